"""The objectives of training: each trains, resumes, and leaves a model that loads as any other."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.losses import contrastive_loss
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.objectives import OBJECTIVES, Objective
from modeling_lotlip.training.outputs import read_metrics
from modeling_lotlip.training.samples import CaptionedImages


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("num_long_captions", [0, 1])
def test_an_objective_trains_its_slots_in_a_model_of_its_class(train, objective, num_long_captions):
    options = {"max_train_steps": 2, "logging_steps": 1, "eval_steps": 100, "num_long_captions": num_long_captions}
    options |= {"max_train_samples": 8, "max_eval_samples": 4, "per_device_train_batch_size": 4, "warmup_steps": 0}
    folder = train("run", objective=objective, **options, grad_cache_tokens=200 if num_long_captions else None)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    assert ("loss_long" in rows[0]) == (num_long_captions > 0)
    assert ("loss_corner_1" in rows[0]) == (num_long_captions > 0 and objective == "lotlip")
    model = AutoModel.from_pretrained(folder)
    assert type(model) is OBJECTIVES[objective].load_model_class()
    assert model.config.text_config.num_corner_tokens == (2 if objective == "lotlip" else 0)
    assert objective != "siglip" or model.logit_bias != -10, "it is trained"


def test_siglip_trained_further_keeps_temperature_and_bias(train, tmp_path):
    options = {"max_train_samples": 8, "max_eval_samples": 4, "per_device_train_batch_size": 4, "max_train_steps": 1}
    options["learning_rate"] = 1e-12  # which changes nothing
    first = AutoModel.from_pretrained(train("first", objective="siglip", **options))
    assert first.logit_scale.exp().item() == pytest.approx(10)
    assert first.logit_bias.item() == -10
    with torch.no_grad():
        first.logit_scale.fill_(4.75)  # 115.6
        first.logit_bias.fill_(-12.5)
    first.save_pretrained(tmp_path / "first")

    options |= {"config_name": None, "model_name_or_path": tmp_path / "first"}
    again = AutoModel.from_pretrained(train("again", objective="siglip", **options))
    assert again.logit_scale.item() == 4.75
    assert again.logit_bias.item() == -12.5
    assert "logits_per_image.sigmoid()" in (tmp_path / "again" / "README.md").read_text()


def test_filip_trains_on_kept_tokens_of_a_frozen_tower(train, tmp_path):
    options = {"objective": "filip", "num_long_captions": 1, "max_train_steps": 3, "freeze_vision_model": True}
    options |= {"config_name": None, "adam_epsilon": 1e-3}  # without dropout, nor steps by noise
    features = {"cache_image_features": True, "image_features_dir": tmp_path / "features"}
    weights = [
        load_file(train(name, **options, **more) / "model.safetensors")
        for name, more in (("run", {}), ("kept", features), ("kept_chunks", features | {"grad_cache_tokens": 150}))
    ]
    for other in weights[1:]:
        for name, weight in weights[0].items():
            torch.testing.assert_close(other[name], weight, rtol=1e-3, atol=1e-5)


def test_filip_is_evaluated_token_by_token(train):
    """It has no single embedding for what needs one."""
    folder = train("run", objective="filip", max_train_steps=2, max_eval_samples=12, per_device_eval_batch_size=5)
    assert json.loads((folder / "eval_results.json").read_text())["long_num_captions"] == 12
    assert "compare all tokens" in (folder / "README.md").read_text()
    loading = LoadingArguments(dtype="bfloat16", device="cpu")
    encoder = load_encoder(str(folder), loading)
    with pytest.raises(ValueError, match="no single embedding"):
        encoder.encode_text(["a boat"], convert_to_tensor=True)


def test_long_clip_stretches_positions(train):
    options = {"objective": "long_clip", "max_train_steps": 2, "max_train_samples": 8}
    folder = train("run", **options, max_length=580, checkpointing_steps=1)
    assert AutoModel.from_pretrained(folder).config.text_config.max_position_embeddings == 580
    assert AutoProcessor.from_pretrained(folder).tokenizer.model_max_length == 580
    with pytest.raises(ValueError, match="max_length = 580, this run has 590"):
        train("run", **options, max_length=590, resume_from_checkpoint="latest")


def test_laclip_draws_among_all_captions_of_an_image():
    dataset = load_scenes(1).remove_columns(["caption", "long_captions"])
    dataset = dataset.add_column("caption", [["a", "b"]]).add_column("long_captions", [["One. Two", "Three"]])
    reader = RowReader(dataset.column_names, CaptionArguments())
    samples = CaptionedImages(dataset, reader, ObjectiveArguments(objective="laclip", num_sub_captions=1))
    drawn = [samples[epoch, 0, False] for epoch in range(200)]
    assert {sample.short_caption for sample in drawn} == {"a", "b", "One", "Two", "Three"}
    assert all(sample.long_captions == [] for sample in drawn)


def test_an_objective_of_the_package_is_not_replaced():
    known = OBJECTIVES["lotlip"]
    with pytest.raises(ValueError, match="The objective `lotlip` is one of this package: rename yours"):
        OBJECTIVES["lotlip"] = Objective("mine", "modeling_lotlip.losses:sigmoid_loss")
    assert OBJECTIVES["lotlip"] is known


def test_an_objective_that_is_none_is_refused():
    with pytest.raises(ValueError, match="The objective `mine` is a function: give an `Objective`"):
        OBJECTIVES["mine"] = contrastive_loss
    assert "mine" not in OBJECTIVES


@pytest.mark.parametrize("default", [(1, 2), [1], None])
def test_an_option_that_a_command_line_cannot_say_is_refused(default):
    objective = Objective("mine", "modeling_lotlip.losses:contrastive_loss", options={"dims": default})
    assert objective.read_options([]) == {"dims": default}
    with pytest.raises(ValueError, match="dims=12 cannot be read: its default is of type"):
        objective.read_options(["dims=12"])


@pytest.mark.parametrize("name", ["short", "long", "corner_1", "distill"])
def test_a_term_with_a_name_of_the_package_is_refused(name):
    """It would stand in place of the loss of a slot, or the teacher's error in its place."""
    with pytest.raises(ValueError, match=f"The term `{name}` has a name of the package, `loss_{name}`"):
        Objective("mine", contrastive_loss, terms={name: torch.sub})
