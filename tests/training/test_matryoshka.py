"""What is made of a model that was trained so that the first numbers of embeddings are such, too."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from modeling_lotlip import LotlipConfig, LotlipModel
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.dual_encoder import load_encoder


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
    assert f"| `matryoshka_dims` | {dim}, 8, 4 |" in (further / "README.md").read_text()

    encoder = load_encoder(str(folder), InferenceArguments(device="cpu", backend="torch"))
    texts = ["a red boat", "a house"]
    expected = normalize(encoder.encode_text(texts, convert_to_tensor=True)[:, :8], dim=-1)
    caplog.clear()
    shorter = load_encoder(str(folder), InferenceArguments(device="cpu", backend="torch", truncate_dim=8))
    torch.testing.assert_close(shorter.encode_text(texts, convert_to_tensor=True), expected)
    assert "was not trained" not in caplog.text
    load_encoder(str(folder), InferenceArguments(device="cpu", truncate_dim=9))
    assert "was not trained for embeddings of 9 dimensions (`--truncate_dim`)" in caplog.text
    assert f"It was for {dim}, 8, 4." in caplog.text
    with pytest.raises(ValueError, match=f"`--truncate_dim {dim + 1}` is more than the {dim} dimensions"):
        load_encoder(str(folder), InferenceArguments(device="cpu", truncate_dim=dim + 1))


def test_a_model_that_compares_tokens_has_no_shorter_embeddings(token_wise_dir):
    inference = InferenceArguments(device="cpu", backend="torch", truncate_dim=8)
    with pytest.raises(ValueError, match="--truncate_dim 8` is not for `.*token_wise.*`, which"):
        load_encoder(str(token_wise_dir), inference)
