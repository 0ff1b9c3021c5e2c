"""The loss of embeddings whose first numbers are embeddings too, and what is made of a model trained with it."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from modeling_lotlip import LotlipConfig, LotlipModel, LotlipProcessor, LotlipTokenWiseModel
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.batches import embed_texts, tokenize
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.losses import blockwise_contrastive_loss, matryoshka_loss
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss
from tests.conftest import as_token_wise


def make_embeds(batch_size: int = 6, num_slots: int = 3, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    images = normalize(torch.randn(batch_size, dim), dim=-1)
    texts = normalize(torch.randn(batch_size, num_slots, dim), dim=-1)
    texts[2, 1] = 0  # an absent caption
    return images.requires_grad_(), texts.requires_grad_()


def test_loss_and_gradients_are_the_mean_of_those_of_prefixes():
    torch.manual_seed(3)
    images, texts = make_embeds()
    present = (texts != 0).any(dim=-1)
    scale = torch.tensor(12.0, requires_grad=True)
    options = {"logit_scale": scale, "present": present}
    loss = matryoshka_loss(blockwise_contrastive_loss, images, texts, [4, 16, 9], **options)
    gradients = torch.autograd.grad(loss, (images, texts, scale))

    losses = [image_text_contrastive_loss(images.double(), texts.double(), scale.double(), present)]
    for dim in (9, 4):
        prefixes = (normalize(embeds[..., :dim].double(), dim=-1) for embeds in (images, texts))
        losses.append(image_text_contrastive_loss(*prefixes, scale.double(), present))
    expected = torch.stack(losses).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, other in zip(gradients, torch.autograd.grad(expected, (images, texts, scale))):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


def test_without_dims_it_is_the_loss_itself():
    images, texts = make_embeds()
    options = {"logit_scale": torch.tensor(12.0), "return_slot_losses": True}
    for ours, expected in zip(
        matryoshka_loss(blockwise_contrastive_loss, images, texts, (), **options),
        blockwise_contrastive_loss(images, texts, **options),
    ):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("dim", [0, 17])
def test_dims_that_are_not_there(dim):
    with pytest.raises(ValueError, match=f"must be from 1 to 16, the dimensions of an embedding, got {dim}"):
        matryoshka_loss(blockwise_contrastive_loss, *make_embeds(), [dim], logit_scale=torch.tensor(1.0))


def test_a_trained_model_knows_its_dims(train, tmp_path, caplog):
    """They are in its configuration, in what it is trained further with, and what it is cut to without a warning."""
    options = {"max_train_steps": 2, "eval_steps": 100, "warmup_steps": 1}
    whole = train("whole", **options)
    assert not hasattr(LotlipConfig.from_pretrained(whole), "matryoshka_dims")
    folder = train("nested", **options, matryoshka_dims=[8, 4])
    dim = LotlipConfig.from_pretrained(folder).projection_dim
    assert LotlipConfig.from_pretrained(folder).matryoshka_dims == [dim, 8, 4]
    weights = [LotlipModel.from_pretrained(path).text_projection.weight for path in (whole, folder)]
    assert not torch.equal(*weights), "another loss"
    further = train("further", **options, model_name_or_path=folder, config_name=None)
    assert json.loads((further / "config.json").read_text())["matryoshka_dims"] == [dim, 8, 4]

    model, processor = load_model(str(folder), InferenceArguments(device="cpu", backend="torch"))
    tokens = tokenize(processor, ["a red boat", "a house"])
    expected = normalize(embed_texts(model, tokens)[:, :8], dim=-1)
    caplog.clear()
    model, _ = load_model(str(folder), InferenceArguments(device="cpu", backend="torch", truncate_dim=8))
    torch.testing.assert_close(embed_texts(model, tokens), expected)
    assert "was not trained" not in caplog.text
    load_model(str(folder), InferenceArguments(device="cpu", truncate_dim=9))
    assert "was not trained for embeddings of 9 numbers (`--truncate_dim`)" in caplog.text
    assert f"It was for {dim}, 8, 4." in caplog.text
    with pytest.raises(ValueError, match=f"`--truncate_dim {dim + 1}` is more than the {dim} numbers"):
        load_model(str(folder), InferenceArguments(device="cpu", truncate_dim=dim + 1))


def test_a_model_that_compares_tokens_has_no_shorter_embeddings(model_dir, tmp_path):
    config = as_token_wise(LotlipConfig.from_pretrained(model_dir))
    LotlipTokenWiseModel(config).save_pretrained(tmp_path)
    LotlipProcessor.from_pretrained(model_dir).save_pretrained(tmp_path)
    inference = InferenceArguments(device="cpu", backend="torch", truncate_dim=8)
    with pytest.raises(
        ValueError, match=f"--truncate_dim 8` is not for `--model_name_or_path {tmp_path}`, which comp"
    ):
        load_model(str(tmp_path), inference, takes_tokens=True)
