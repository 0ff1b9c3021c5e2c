"""Dual encoders of transformers in the module that training wraps."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoModel, CLIPTextModel, CLIPTokenizer, PreTrainedModel

from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.encoder.families import count_positions, find_family
from modeling_lotlip.training.batch import CaptionBatch, Texts
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import stretch_positions
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.outputs import read_metrics
from modeling_lotlip.training.step import ObjectiveLoss, StepOptions, train_step
from tests.conftest import TINY_TOWER, assert_same_weights, run_together, training_argv
from tests.helpers.dual_encoders import FAMILIES, LONG, VISION, flatten, new_model
from tests.training.conftest import get_gradients


def build_model(family: str) -> PreTrainedModel:
    if family != "tipsv2":
        return FAMILIES[family].build()[0]
    text = {**TINY_TOWER, "vocab_size": 64}
    vision = {**VISION, "mlp_ratio": 2}
    del vision["intermediate_size"]
    return new_model("tipsv2", text_config=text, vision_config=vision)


def make_batch(family: str) -> CaptionBatch:
    images = {"pixel_values": torch.randn(6, 3, 32, 32)}
    if family == "siglip2":
        images = {"pixel_values": torch.randn(6, 4, 768), "pixel_attention_mask": torch.ones(6, 4, dtype=torch.long)}
        images["spatial_shapes"] = torch.tensor([[2, 2]] * 6)
    texts = []
    for shape in ((6,), (6, 2)):
        mask = torch.arange(12) < torch.randint(12 if "siglip" in family else 3, 13, (*shape, 1))
        texts.append(Texts(torch.randint(3, 39, (*shape, 12)) * mask, mask.long()))
    texts[1].attention_mask[2, 1] = 0
    return CaptionBatch(images, *texts)


def test_batch_norms_keep_the_statistics_of_the_start_model():
    """Those of a batch would depend on the groups in which its images are embedded."""
    contrastive_model = ContrastiveModel(build_model("align")).train()
    before = {name: values.clone() for name, values in contrastive_model.named_buffers() if "running" in name}
    contrastive_model(make_batch("align"))
    after = dict(contrastive_model.named_buffers())
    assert before
    assert contrastive_model.model.vision_model.training
    assert all(torch.equal(after[name], values) for name, values in before.items())


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("family", ["clip", "metaclip2", "siglip", "siglip2", "vit_bert", "align", "tipsv2"])
def test_embeddings_are_the_models_and_the_gradient_cache_is_the_whole_batch(accelerator, family, is_frozen):
    torch.manual_seed(0)
    model = build_model(family).eval()
    batch = make_batch(family)
    contrastive_model = ContrastiveModel(model)
    contrastive_model.loss = ObjectiveLoss(OBJECTIVES["lotlip"], has_bias="logit_bias" in contrastive_model.scalars)
    model.vision_model.requires_grad_(not is_frozen)
    with torch.no_grad():
        embeds = contrastive_model(batch)
        expected = model.get_image_features(**batch.images).pooler_output
        torch.testing.assert_close(embeds.images, normalize(expected, dim=-1))
        expected = model.get_text_features(batch.short.input_ids, batch.short.attention_mask).pooler_output
        torch.testing.assert_close(embeds.short, normalize(expected, dim=-1))
    assert embeds.corners is None
    assert embeds.long_mask.tolist() == [[True, row != 2] for row in range(6)]
    assert not embeds.long[2, 1].any()

    results = []
    for tokens_per_chunk in (None, 30):
        copied = copy.deepcopy(contrastive_model)
        optimizer = torch.optim.SGD(copied.parameters())
        loss = train_step(copied, batch, optimizer, accelerator, StepOptions(tokens_per_chunk)).loss.loss
        results.append((loss.detach(), get_gradients(copied)))
    torch.testing.assert_close(*[loss for loss, _ in results], rtol=1e-5, atol=1e-6)
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-3, atol=1e-6)


PLAIN = """
import json, sys, torch
from transformers import AutoModel, AutoProcessor
for line in sys.stdin:
    folder, padding, texts = json.loads(line)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(text=texts, padding=padding, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        torch.save(model.eval().get_text_features(**inputs).pooler_output, f"{folder}/embeds.pt")
    assert "modeling_lotlip" not in sys.modules
    print("embedded", flush=True)
"""


@pytest.fixture(scope="module")
def plain_text_embeds() -> Iterator[Callable]:
    """Normalized embeddings of the long captions by transformers alone, in a process of its own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-I", "-c", PLAIN], text=True, **pipes) as process:

        def embed(folder: Path, padding: bool | str) -> torch.Tensor:
            print(json.dumps([str(folder), padding, flatten(LONG)[0]]), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer == "embedded\n"
            return normalize(torch.load(folder / "embeds.pt"), dim=-1)

        yield embed


@pytest.mark.processes
@pytest.mark.parametrize("family, padding", [("clip", True), ("siglip2", "max_length")])
def test_the_command_teaches_a_dual_encoder_long_texts(
    train, tmp_path, family_folders, noise_dir, plain_text_embeds, family, padding
):
    """
    Resumed bit by bit; the gradient cache, cached image features and two processes give the same; loaded without this
    package.
    """
    options = {"config_name": None, "model_name_or_path": family_folders(family), "max_length": 100}
    options |= {"dataset_name": noise_dir, "train_split": "train", "eval_split": "train", "max_train_steps": 4}
    options["per_device_train_batch_size"] = 6
    whole = train("whole", **options, checkpointing_steps=3)
    assert_same_weights(train("resumed", **options, resume_from_checkpoint=whole / "checkpoint-3"), whole)

    def embed(folder: Path) -> torch.Tensor:
        return load_encoder(str(folder)).encode_text(flatten(LONG)[0], convert_to_tensor=True)

    embeds = embed(whole)
    before, after = (load_file(folder / "model.safetensors") for folder in (family_folders(family), whole))
    table = "text_model.embeddings.position_embedding.weight"
    assert len(after[table]) == 100
    assert (after[table][:20] != before[table][:20]).any(), "the first are trained too"
    frozen = [name for name in before if name.startswith("vision_model.")]
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert (embeds - embed(family_folders(family))).abs().max() > 0.1

    torch.testing.assert_close(plain_text_embeds(whole, padding), embeds, rtol=0, atol=1e-5)
    card = (whole / "README.md").read_text()
    assert "from transformers import AutoModel" in card
    assert "modeling_lotlip" not in card
    assert "The code of LoTLIP in this repository" not in card
    measured = [row for row in read_metrics(whole / "metrics.jsonl") if "loss" in row]
    assert {name for row in measured for name in row if name.startswith("loss_")} == {"loss_short", "loss_long"}
    argv = training_argv(tmp_path, "two", **options | {"per_device_train_batch_size": 3})
    run_together(tmp_path / "log", 2, argv[2:])
    torch.testing.assert_close(embed(tmp_path / "two"), embeds, rtol=0, atol=1e-3)
    options |= {"cache_image_features": True, "image_features_dir": tmp_path / "features"}
    torch.testing.assert_close(embed(train("cached", **options, grad_cache_tokens=300)), embeds, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "family, options, message",
    [
        ("clip", {"num_corner_tokens": 2}, "CLIPModel has 0 corner tokens: leave out `--num_corner_tokens 2`, or"),
        ("clip", {"no_corner_attention_mask": True}, "has 0 corner tokens: leave out `--no_corner_attention_mask`"),
        ("clip", {"objective": "filip"}, "--objective filip` compares all tokens .* a CLIPModel cannot: leave it out"),
        ("clip", {"objective": "siglip"}, "--objective siglip` is for a model with a `logit_bias`: choose another"),
        ("siglip", {"objective": "long_clip"}, "--objective long_clip` is for a model without a `logit_bias`"),
        ("siglip2", {"no_freeze_vision_model": True}, "cannot be cropped at random.*--min_crop_scale 1"),
    ],
)
def test_what_a_model_cannot_do_is_one_line(train, family_folders, noise_dir, family, options, message):
    data = {"dataset_name": noise_dir, "train_split": "train", "eval_split": "train"}
    with pytest.raises(ValueError, match=message):
        train("run", config_name=None, model_name_or_path=family_folders(family), **data, **options)


@pytest.mark.parametrize(
    "family, max_length, text_side", [("align", 64, "text_model"), ("tipsv2", 100, "text_encoder")]
)
def test_a_model_whose_temperature_divides_is_trained(train, tmp_path, noise_dir, family, max_length, text_side):
    """ALIGN at its limit; TIPSv2, whose positions are computed, beyond it."""
    model, processor = FAMILIES[family].build()
    with torch.no_grad():
        model.temperature.fill_(0.1)
    model.save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")
    options = {"dataset_name": noise_dir, "train_split": "train", "eval_split": "train", "max_train_steps": 3}
    options["max_length"] = max_length
    start = tmp_path / "start"
    folder = train("run", config_name=None, model_name_or_path=start, freeze_vision_model=True, **options)
    before, after = (load_file(folder / "model.safetensors") for folder in (start, folder))
    assert before.keys() == after.keys()
    assert after["temperature"] != before["temperature"]
    assert 0.001 <= after["temperature"] <= 1
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert text_side in changed
    assert not {side for side in changed if side.startswith("vision")}
    assert load_encoder(str(folder)).max_length == max_length


def test_the_settings_of_the_published_long_siglip2(train, family_folders, noise_dir):
    """Image tower, scale, bias and text head stay as they are; the rest of the text tower is trained."""
    start = family_folders("siglip2")
    options = {"dataset_name": noise_dir, "train_split": "train", "eval_split": "train", "max_train_steps": 3}
    options |= {"max_length": 100, "freeze": ["logit_scale", "logit_bias", "text_head"], "learning_rate": 4e-4}
    folder = train("run", config_name=None, model_name_or_path=start, freeze_vision_model=True, **options)
    before, after = (load_file(folder / "model.safetensors") for folder in (start, folder))
    table = "text_model.embeddings.position_embedding.weight"
    assert len(after.pop(table)) == 100
    del before[table]
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    is_frozen = ("vision_model.", "text_model.head.", "logit_")
    assert unchanged == {name for name in before if name.startswith(is_frozen)}


def test_a_stretched_clip_loads_as_the_text_encoder_of_a_diffusion_pipeline(tmp_path):
    model, processor = FAMILIES["clip"].build()
    stretch_positions(model.eval(), 248)
    processor.tokenizer.model_max_length = 248
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    text_encoder = CLIPTextModel.from_pretrained(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer(flatten(LONG)[0], padding="max_length", truncation=True, return_tensors="pt")
    assert tokens.input_ids.shape[1] == 248
    with torch.no_grad():
        found = text_encoder(**tokens)
        expected = model.text_model(**tokens)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(found.pooler_output, expected.pooler_output)


def test_computed_positions_go_on_as_they_began(tmp_path):
    model, _ = FAMILIES["tipsv2"].build()
    model.eval()
    tokens = {"input_ids": torch.randint(5, 15, (3, 16)), "attention_mask": torch.ones(3, 16, dtype=torch.long)}
    before = model.get_text_features(**tokens).pooler_output
    stretch_positions(model, 248)
    torch.testing.assert_close(model.get_text_features(**tokens).pooler_output, before, rtol=0, atol=0)
    model.save_pretrained(tmp_path)
    longer = {"input_ids": torch.randint(5, 15, (1, 248)), "attention_mask": torch.ones(1, 248, dtype=torch.long)}
    after = AutoModel.from_pretrained(tmp_path).get_text_features(**longer).pooler_output
    torch.testing.assert_close(after, model.get_text_features(**longer).pooler_output)


@pytest.mark.parametrize("family", ["clip", "vit_bert", "altclip", "lotlip", "siglip"])
def test_stretched_positions_keep_the_first_and_the_last(tmp_path, family):
    model, processor = FAMILIES[family].build()
    model.eval()
    (name,) = [name for name in model.text_model.state_dict() if "embeddings.position_embedding" in name]
    old = model.text_model.state_dict()[name].clone()
    num_more = 248 - count_positions(model, find_family(model.config))
    ids = torch.randint(5, 15, (3, 16))
    before = model.get_text_features(ids).pooler_output
    stretch_positions(model, 248)
    new = model.text_model.state_dict()[name]
    assert len(new) == len(old) + num_more == model.config.get_text_config().max_position_embeddings
    torch.testing.assert_close(new[[*range(20), -1]], old[[*range(20), -1]], rtol=0, atol=0)
    step = (len(old) - 21) / (len(new) - 21)
    torch.testing.assert_close(new[21], (1 - step) * old[20] + step * old[21])
    if family != "siglip":
        torch.testing.assert_close(model.get_text_features(ids).pooler_output, before, rtol=0, atol=0)
    model.save_pretrained(tmp_path)
    ids = torch.randint(5, 15, (1, 248))
    after = AutoModel.from_pretrained(tmp_path).get_text_features(ids).pooler_output
    torch.testing.assert_close(after, model.get_text_features(ids).pooler_output)
    with pytest.raises(ValueError, match="`max_length=248` needs no more than the 248 positions there are"):
        stretch_positions(model, 248)
