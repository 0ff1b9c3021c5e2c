"""What the arguments of a training mean, and that each has its effect."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from datasets import Dataset

from modeling_lotlip import LotlipModel
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import build_model
from modeling_lotlip.training.plan import Plan, count_steps
from modeling_lotlip.training.prepare import (
    Data,
    load_evaluation_data,
    load_training_data,
    make_optimizer,
    warn_of_shared_rows,
)
from tests.conftest import tiny_config


def test_a_checkpoint_has_what_a_resumed_run_must_have_in_common(train):
    folder = train("run", max_train_steps=1, checkpointing_steps=1, max_eval_samples=2)
    settings = json.loads((folder / "checkpoint-1" / "training_state.json").read_text())["settings"]
    of_the_run = {
        "architecture",
        "global_batch_size",
        "num_processes",
        "num_samples",
        "processor",
        "caption_files",
        "data_dir",
        "data",
    }
    assert settings.keys() >= of_the_run
    assert not {"logging_steps", "ddp_timeout"} & settings.keys()
    assert settings["mixed_precision"] == "no"
    assert settings["max_length"] == 126
    assert settings["freeze_vision_model"] is False
    assert settings["learning_rate"] == 1e-3


def make(tmp_path, **options) -> tuple[torch.optim.AdamW, list[float]]:
    """The optimizer of a training of ten steps, and their rates."""
    defaults = {"lr_scheduler_type": "constant_with_warmup", "learning_rate": 0.01, "max_train_steps": 10}
    args = TrainArguments(output_dir=tmp_path, **defaults | options)
    max_train_steps, warmup_steps = count_steps(args, None)
    plan = Plan(
        mixed_precision="no",
        num_processes=1,
        global_batch_size=8,
        num_samples=80,
        max_train_samples=None,
        max_train_steps=max_train_steps,
        warmup_steps=warmup_steps,
        decay_steps=4,
        max_length=126,
        matryoshka_dims=None,
    )
    optimizer, schedule = make_optimizer(args, plan, ContrastiveModel(LotlipModel(tiny_config())))
    return optimizer, [schedule(step) for step in range(max_train_steps)]


def test_the_options_of_the_optimizer_have_their_effect(tmp_path):
    options = {"adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 1e-3, "weight_decay": 0.3}
    groups = make(tmp_path, **options)[0].param_groups
    assert {(group["betas"], group["eps"]) for group in groups} == {((0.5, 0.6), 1e-3)}
    assert [group["weight_decay"] for group in groups] == [0.3, 0, 0]


def write_numbers(folder: Path, **counts: int) -> list[str]:
    """Writes files of as many rows as are asked for, numbered through, and returns their names."""
    files = []
    first = 0
    for name, count in counts.items():
        numbers = list(range(first, first + count))
        rows = Dataset.from_dict({"image": [""] * count, "caption": [f"boat {number}" for number in numbers]})
        files.append(str(folder / f"{name}.parquet"))
        rows.add_column("number", numbers).to_parquet(files[-1])
        first += count
    return files


def read_numbers(data: Data) -> list[int]:
    return [row["number"] for row in undecoded(data.dataset, "image")]


@pytest.mark.parametrize("streaming", [False, True])
def test_sources_are_drawn_by_their_weights(tmp_path, streaming):
    files = write_numbers(tmp_path, a=20, b=4)
    options = {"dataset_name": "parquet", "data_files": files, "data_weights": [1, 3]}
    if streaming:
        options |= {"streaming": True, "max_train_steps": 1}
    args = TrainArguments(output_dir=tmp_path, **options)
    assert args.compared_on_resume()["data_files"] == ["a.parquet", "b.parquet"], "in whatever folder, in this order"
    mixed = read_numbers(load_training_data(args, 1))
    assert set(mixed) == set(range(24)), "every row of every source comes"
    assert 0.6 < sum(number >= 20 for number in mixed) / len(mixed) < 0.9
    assert read_numbers(load_training_data(replace(args, seed=1), 1)) != mixed
    assert read_numbers(load_training_data(replace(args, max_train_samples=6), 1)) == mixed[:6]


@pytest.mark.parametrize("split_seed", [None, 0])
def test_a_slice_is_one_of_each_file_that_has_a_weight(tmp_path, split_seed):
    """So that no row is trained and evaluated on."""
    files = write_numbers(tmp_path, a=40, b=20)
    splits = {"train_split": "train[:90%]", "eval_split": "train[90%:]", "split_seed": split_seed}
    options = {"dataset_name": "parquet", "data_files": files, "data_weights": [1, 2], **splits}
    args = TrainArguments(output_dir=tmp_path, **options)
    evaluated = read_numbers(load_evaluation_data(args))
    assert sum(number < 40 for number in evaluated) == 4
    assert sum(number >= 40 for number in evaluated) == 2
    assert not set(evaluated) & set(read_numbers(load_training_data(args, 1)))
    assert read_numbers(load_evaluation_data(replace(args, max_eval_samples=5))) == evaluated[:5]


@pytest.mark.parametrize("name", ["dataset_name", "data_dir"])
def test_a_folder_of_data_is_compared_by_what_is_in_it(tmp_path, name):
    options = {"output_dir": tmp_path, "dataset_name": "imagefolder"}
    here = TrainArguments(**options | {name: str(tmp_path)})
    elsewhere = TrainArguments(**options | {name: f"{tmp_path}/../{tmp_path.name}/"})
    of_the_hub = TrainArguments(**options | {name: "org/data"})
    assert here.compared_on_resume() == elsewhere.compared_on_resume()
    assert of_the_hub.compared_on_resume()[name] == "org/data"


@pytest.mark.parametrize("warmup_steps, num_steps", [({"warmup_steps": 0.2}, 2), ({"warmup_steps": 3}, 3), ({}, 1)])
def test_a_warm_up_is_a_share_of_the_run(tmp_path, warmup_steps, num_steps):
    rates = make(tmp_path, **warmup_steps)[1]
    assert rates == pytest.approx([min(1, step / num_steps) * 0.01 for step in range(10)])


def test_a_run_of_one_step_learns_at_the_full_rate(tmp_path):
    assert make(tmp_path, max_train_steps=1)[1] == [0.01]


def test_a_warm_up_whose_every_step_has_a_rate_of_0_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`--warmup_steps 1` leaves a learning rate of 0 for all 1 steps"):
        make(tmp_path, max_train_steps=1, warmup_steps=1)


def test_a_rate_may_stay_and_then_fall(tmp_path):
    rates = make(tmp_path, lr_scheduler_type="warmup_stable_decay", warmup_steps=2)[1]
    assert rates[:7] == pytest.approx([0, 0.005] + 5 * [0.01])
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert 0 < rates[9] < 0.0025
    with pytest.raises(ValueError, match="--decay_steps has no effect without --lr_scheduler_type warmup_stable_d"):
        TrainArguments(output_dir=tmp_path, decay_steps=2.0)


def test_a_warm_up_is_no_longer_than_the_run(tmp_path):
    with pytest.raises(ValueError, match="`--warmup_steps 11` is longer than the run of 10 steps"):
        make(tmp_path, warmup_steps=11)


@pytest.mark.parametrize("num_epochs, accumulation, expected", [(2, 1, 6), (2, 2, 3), (1, 2, 2), (1, 4, 1)])
def test_epochs_are_counted_in_steps_of_the_optimizer(tmp_path, num_epochs, accumulation, expected):
    options = {"num_train_epochs": num_epochs, "gradient_accumulation_steps": accumulation}
    max_train_steps, _ = count_steps(TrainArguments(output_dir=tmp_path, **options), batches_per_epoch=3)
    assert max_train_steps == expected


@pytest.mark.parametrize(
    ("num_long_captions", "has_mask", "are_trained"), [(0, True, False), (1, True, True), (0, False, True)]
)
def test_corners_are_trained_where_there_are_some(tmp_path, num_long_captions, has_mask, are_trained):
    """Without their mask also short captions read them."""
    dataset = load_scenes(4)
    options = {"num_long_captions": num_long_captions, "no_corner_attention_mask": not has_mask}
    args = TrainArguments(output_dir=tmp_path, num_corner_tokens=2, **options)
    model, _ = build_model(args, dataset, RowReader(dataset.column_names, args))
    assert model.text_model.embeddings.corner_tokens.requires_grad == are_trained
    assert model.text_model.embeddings.word_embeddings.weight.requires_grad


def test_other_files_to_evaluate_on(tmp_path):
    train, evaluation = (str(tmp_path / name) for name in ("train.parquet", "eval.parquet"))
    for file, num_rows in ((train, 6), (evaluation, 3)):
        load_scenes(num_rows, seed=num_rows).to_parquet(file)
    options = {"data_files": [train], "eval_data_files": [evaluation], "eval_split": "train"}
    args = TrainArguments(output_dir=tmp_path, dataset_name="parquet", **options)
    assert list(load_evaluation_data(args).dataset["caption"]) == list(load_scenes(3, seed=3)["caption"])
    assert len(load_evaluation_data(replace(args, eval_data_files=None)).dataset) == 6


BOTH = ["a.parquet", "b.parquet"]
HELD_BACK = {"train_split": "train[:2]", "eval_split": "train[2:]"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_data_files": ["./a.parquet"]}, "6 rows of `--eval_split test` are trained on"),
        ({"eval_data_files": ["?.parquet"]}, "6 rows of `--eval_split test` are trained on"),
        (
            {"dataset_name": "rows", "eval_data_files": ["?.parquet"]},
            "6 rows of `--eval_split test` are trained on",
        ),
        (
            {"streaming": True, "max_train_steps": 1},
            "Rows of `--eval_split test` are trained on. Name other files",
        ),
        ({"data_files": BOTH, "eval_data_files": ["b.parquet"]}, "1 files that are evaluated"),
        ({"data_files": BOTH, "eval_data_files": ["b.parquet"], **HELD_BACK}, "1 files that are evaluated"),
        ({"data_files": BOTH, "data_weights": [1, 2]}, "12 rows of `--eval_split test` are trained on"),
        (
            {"data_files": BOTH, "data_weights": [1, 2], "max_eval_samples": 2},
            "2 rows of `--eval_split test` are trained on",
        ),
        (
            {"data_files": BOTH, "data_weights": [1, 2], "max_train_samples": 4},
            "Up to 4 rows of `--eval_split test` are trained on",
        ),
        (
            {"data_files": BOTH, "data_weights": [1, 2], "eval_data_files": ["b.parquet"]},
            "6 rows of `--eval_split test` are trained on",
        ),
        ({"eval_data_files": ["b.parquet"]}, None),
        ({"data_files": BOTH, **HELD_BACK}, None),
        ({"data_files": BOTH, "data_weights": [1, 2], **HELD_BACK}, None),
        ({"data_files": BOTH, "data_weights": [1, 2], "eval_data_files": ["b.parquet"], **HELD_BACK}, None),
    ],
)
def test_files_that_are_trained_and_evaluated_on_are_warned_of_however_they_are_named(
    tmp_path, monkeypatch, caplog, options, message
):
    monkeypatch.chdir(tmp_path)
    options = {"dataset_name": "parquet", "data_files": ["a.parquet"], **options}
    folder = Path("" if options["dataset_name"] == "parquet" else options["dataset_name"])
    folder.mkdir(exist_ok=True)
    load_scenes(6, seed=0).to_parquet(folder / "a.parquet")
    if "b.parquet" in str(options):
        load_scenes(6, seed=1).to_parquet("b.parquet")
    args = TrainArguments(output_dir=tmp_path / "out", **options)
    PartialState()  # which the log asks
    warn_of_shared_rows(args, load_training_data(args, 1), load_evaluation_data(args))
    if message is None:
        assert "trained on" not in caplog.text
    else:
        assert message in caplog.text


def test_defaults_of_objectives_and_data(tmp_path):
    def defaults(**options) -> tuple:
        args = TrainArguments(output_dir=tmp_path, **options)
        return args.short_captions, args.num_long_captions, args.num_corner_tokens, args.min_crop_scale

    for names, is_frozen in (({}, False), ({"vision_model_name_or_path": "vit"}, True), ({"config_name": "a"}, False)):
        assert TrainArguments(output_dir=tmp_path, **names).freeze_vision_model == is_frozen
    assert defaults() == ("given", 1, 2, 1.0)
    assert defaults(dataset_name="imagefolder") == ("given", 1, 2, 0.9)
    assert defaults(objective="clip") == ("given", 0, 0, 1.0) == defaults(objective="siglip")
    assert defaults(objective="laclip") == ("any", 0, 0, 1.0)
    assert defaults(objective="clip", num_long_captions=1, short_captions="none") == ("none", 1, 0, 1.0)
    assert defaults(objective="clip", model_name_or_path="model")[2] is None, "those of the model"
    assert defaults(config_name="config")[2] is None, "those of the configuration"
    assert defaults(dataset_name="imagefolder", vision_model_name_or_path="vit")[3] == 1.0, "as they are"

    def learning_rate(**options) -> float:
        return TrainArguments(output_dir=tmp_path, **options).learning_rate

    assert learning_rate() == learning_rate(vision_model_name_or_path="vit") == 1e-3
    assert learning_rate(text_model_name_or_path="bert") == 1e-4
    assert learning_rate(model_name_or_path="model") == 1e-5
    assert learning_rate(model_name_or_path="model", learning_rate=0.5) == 0.5


@pytest.mark.parametrize(
    "wrong, message",
    [
        *[({name: -5}, f"--{name} must be at least 0, got -5") for name in ("weight_decay", "adam_beta1", "seed")],
        ({"adam_beta2": 1.5}, "--adam_beta2 must be less than 1"),
        ({"model_name_or_path": "a", "config_name": "b"}, "--model_name_or_path excludes --config_name"),
        ({"text_model_name_or_path": "a", "tokenizer_name": "b"}, "excludes --tokenizer_name"),
        ({"config_name": "a", "vision_model_name_or_path": "b"}, "--config_name excludes --vision_model_name_or_path"),
        ({"overwrite_output_dir": True, "resume_from_checkpoint": "latest"}, "excludes --resume_from_checkpoint"),
        ({"report_to": "nosuch"}, "--report_to has no effect without --with_tracking"),
        ({"vision_model_name_or_path": "a", "min_crop_scale": 0.5}, "--min_crop_scale 0.5 would be ignored"),
        ({"image_features_dir": "a"}, "has no effect without --cache_image_features"),
        ({"shuffle_buffer_size": 5}, "has no effect without --streaming"),
        ({"key_column": "url"}, "--key_column has no effect without --caption_files"),
        ({"num_train_epochs": 2, "max_train_steps": 3}, "--num_train_epochs excludes --max_train_steps"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 3}, "--warmup_steps has no effect with --lr_scheduler"),
        ({"short_captions": "none", "keep_duplicate_negatives": True}, "--keep_duplicate_negatives has no effect"),
        (
            {"short_captions": "none", "distill_weight": 1, "model_name_or_path": "a"},
            "--distill_weight is for short captions, too: leave out --short_captions none",
        ),
        ({"cache_image_features": True, "freeze_vision_model": False}, "is for a frozen image tower"),
        ({"cache_image_features": True, "streaming": True}, "excludes --streaming"),
        ({"ddp_timeout": 0}, "--ddp_timeout must be at least 1"),
        ({"short_captions": "all"}, "--short_captions must be one of given, any, none"),
        ({"mixed_precision": "bf17"}, "--mixed_precision must be one of float32, float16, bfloat16"),
        ({"short_loss_weight": -1.0}, "--short_loss_weight must be at least 0"),
        ({"learning_rate": 0.0}, "--learning_rate must be greater than 0"),
        ({"model_name_or_path": "a", "distill_weight": float("inf")}, "--distill_weight must be a finite number"),
        ({"short_loss_weight": 0.0, "long_loss_weight": 0.0}, "leave no loss: raise one of them"),
        (
            {"objective": "long_clip", "objective_options": ["num_components=x"]},
            "num_components=x must be of type",
        ),
        ({"objective_options": ["weight=1"]}, "weight=1 is no NAME=VALUE of an option of the objective: none"),
        ({"plugin": ["nosuch.py"]}, "--plugin .*nosuch.py is no Python file"),
        ({"data_weights": [1, 2], "data_files": ["a"]}, "number above 0 for each of the 1 values"),
        ({"data_weights": [1, 0], "data_files": ["a", "b"]}, "number above 0 for each"),
        ({"checkpointing_steps": "0"}, "must be a number or `epoch`"),
        ({"streaming": True, "dataset_name": "a"}, "--streaming needs --max_train_steps"),
        ({"metric_for_best_model": "loss"}, "--metric_for_best_model must be one of short_i2t"),
    ],
)
def test_clashes_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainArguments(output_dir=tmp_path, **wrong)


def test_the_model_card_names_no_files(tmp_path):
    paths = {"caption_files": ["/private/a.csv"], "data_dir": "/private"}
    told = TrainArguments(output_dir=tmp_path, max_train_steps=3, **paths).in_model_card()
    assert not any("private" in str(value) for value in told.values())
    assert told["short_captions"] == "given"
    assert told["learning_rate"] == 1e-3
    assert "per_device_train_batch_size" in told
    assert "logging_steps" not in told
    assert "freeze" not in told


def test_the_model_card_names_what_is_frozen_and_the_weights_of_files(tmp_path):
    data = {"dataset_name": "json", "data_files": ["a.json", "b.json"], "data_weights": [0.5, 2.0]}
    args = TrainArguments(output_dir=tmp_path, freeze=["text_head", "logit_scale"], **data)
    told = args.in_model_card()
    assert told["freeze"] == "text_head, logit_scale"
    assert told["data_weights"] == "0.5, 2.0"


@pytest.mark.parametrize(("num_images", "is_told"), [(17, True), (9, False), (16, False), (18, False)])
def test_a_last_batch_of_one_image_is_told(caplog, num_images, is_told):
    PartialState()
    args = TrainArguments(output_dir="run", max_train_samples=num_images, per_device_train_batch_size=4)
    load_training_data(args, num_processes=4)
    assert ("The last batch of each epoch has one image" in caplog.text) == is_told
