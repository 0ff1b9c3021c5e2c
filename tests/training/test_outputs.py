"""What is measured of a training, and left of it: the best model, the summary, the model card."""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.hub import EVAL_RESULTS_FILE
from modeling_lotlip.losses import BatchLoss, Slots
from modeling_lotlip.metrics import ImageTextRetrieval
from modeling_lotlip.training.arguments import METRICS, TrainArguments
from modeling_lotlip.training.outputs import (
    BestModel,
    TrainingState,
    check_output_dir,
    delete_leftovers,
    find_best,
    find_checkpoint,
    is_best,
    push_model,
    read_metrics,
    read_state,
    save_checkpoint,
)
from modeling_lotlip.training.samples import SampleCounts
from modeling_lotlip.utils.files import write_json
from modeling_lotlip.utils.output_folder import HOST
from tests.conftest import assert_same_weights


def test_losses_are_measured_by_the_names_of_slots_and_terms():
    losses = torch.tensor([1.0, 2.0, 3.0, math.nan, 4.0, 5.0, 6.0])
    slots = Slots(num_long=2, num_corners=2)
    found = BatchLoss(losses.nanmean(), losses, slots, {"penalty": torch.tensor(0.5)})
    expected = {"loss_short": 1.0, "loss_long": 3.0, "loss_corner_1": 4.0, "loss_corner_2": 6.0, "loss_penalty": 0.5}
    assert found.by_name() == expected
    without_corners = BatchLoss(losses.nanmean(), losses[:3], Slots(num_long=2))
    assert without_corners.by_name() == {"loss_short": 1.0, "loss_long": 2.5}


TIMES = ("images_per_second", "tokens_per_second")
# All of a LoTLIP
PARTS = ["text_model", "vision_model", "text_projection", "logit_scale"]


def without_times(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def test_a_resumed_run_has_the_measurements_and_the_best_model_of_the_uninterrupted_one(train, tmp_path):
    options = {"max_train_steps": 6, "eval_steps": 2, "checkpointing_steps": 1, "logging_steps": 3}
    options |= {"metric_for_best_model": "long_t2i_recall@5", "learning_rate": 3e-3}
    whole = train("whole", **options)
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [3, 6]
    evaluations = {row["step"]: row["long_t2i_recall@5"] for row in rows if "long_t2i_recall@5" in row}
    assert list(evaluations) == [2, 4, 6]
    assert all(row["tokens_per_second"] > row["images_per_second"] > 0 for row in rows if "loss" in row)
    for row in (row for row in rows if "loss" in row):
        slots = [row[f"loss_{name}"] for name in ("short", "long", "corner_1", "corner_2")]
        assert row["loss"] == pytest.approx(sum(slots) / 4, rel=1e-5)
    best_step = max(evaluations, key=evaluations.get)  # the first of the best
    best, checkpoint = (load_file(whole / name / "model.safetensors") for name in ("best", f"checkpoint-{best_step}"))
    assert checkpoint.keys() == {f"model.{name}" for name in best}
    assert all(torch.equal(best[name], checkpoint[f"model.{name}"]) for name in best)
    told = json.loads((whole / "best" / "eval_results.json").read_text())
    assert told["long_t2i_recall@5"] == evaluations[best_step]

    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "best")
    for step in range(2, 7):
        shutil.rmtree(stopped / f"checkpoint-{step}")
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # killed while it wrote
    resumed = train("stopped", **options, resume_from_checkpoint="latest")
    assert without_times(read_metrics(resumed / "metrics.jsonl")) == without_times(rows)
    for part in (".", "best"):
        assert_same_weights(resumed / part, whole / part)


def test_the_model_card_carries_the_evaluation_for_the_hub_and_no_path_of_this_machine(train, tmp_path):
    load_scenes(24, seed=2).save_to_disk(tmp_path / "private" / "pictures")
    options = {"dataset_name": tmp_path / "private" / "pictures", "eval_split": "train", "max_train_samples": None}
    folder = train("carded", max_train_steps=2, **options)
    results = json.loads((folder / "eval_results.json").read_text())
    card = ModelCard.load(folder / "README.md")
    recall = results["long_t2i_recall@1"]
    assert f"| `long_t2i_recall@1` | {recall:.4g} |" in card.text
    assert not (folder / EVAL_RESULTS_FILE).exists()
    assert "| `max_train_steps` | 2 |" in card.text
    assert "| `objective` | lotlip |" in card.text
    assert str(tmp_path) not in card.content
    assert "private" not in card.content


DATA = {"texts": "a"}
METRIC = "long_mean_recall"


def make_best(score: float, step: int = 2, data: dict | None = None, metric: str = METRIC) -> BestModel:
    return BestModel(step, {METRIC: score, "long_num_images": 9}, data or DATA, metric)


@pytest.mark.parametrize(
    ("metric", "result", "expected"),
    [
        (METRIC, 51, True),
        (METRIC, 50, False),
        ("long_t2i_median_rank", 4, True),
        ("long_t2i_median_rank", 6, False),
        ("short_mean_recall", 0, True),
    ],
)
def test_a_better_result_is_a_higher_recall_a_lower_rank_or_the_first_of_its_kind(metric, result, expected):
    best = BestModel(2, {METRIC: 50, "long_t2i_median_rank": 5}, DATA)
    assert is_best({metric: result}, metric, best) == expected


def test_a_result_of_other_images_is_not_compared():
    assert is_best({METRIC: 3, "long_num_images": 8}, METRIC, make_best(50))
    assert not is_best({METRIC: 3, "long_num_images": 9}, METRIC, make_best(50))


def test_a_metric_that_was_not_measured_is_no_best_result():
    with pytest.raises(ValueError, match="long_mean_recall` cannot be measured"):
        is_best({"short_mean_recall": 9}, METRIC, None)


def make_resumed(folder: Path, saved: BestModel | None = None) -> TrainArguments:
    """The arguments of a run that resumes in its output folder, where it has saved its best model."""
    checkpoint = make_checkpoint(folder / "checkpoint-2", {})
    if saved is not None:
        (folder / "best").mkdir()
        about = {"evaluation_data": saved.data, "metric_for_best_model": saved.metric}
        results = {"num_steps": saved.step, **about, **saved.results}
        write_json(folder / "best" / "eval_results.json", results)
    return TrainArguments(output_dir=folder, resume_from_checkpoint=checkpoint, metric_for_best_model=METRIC)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [(make_best(50), make_best(50)), (make_best(60, step=4), make_best(60, step=4))],
    ids=["of the checkpoint", "saved after the checkpoint"],
)
def test_the_best_model_of_the_output_folder_is_that_of_the_resumed_run(tmp_path, caplog, saved, expected):
    args = make_resumed(tmp_path, saved)
    assert find_best(args, TrainingState(best=make_best(50)), DATA) == expected
    assert caplog.text == ""


@pytest.mark.parametrize("saved", [None, make_best(90, data={"texts": "b"})], ids=["no best", "of other data"])
def test_a_best_score_whose_weights_are_elsewhere_stays_the_best_and_is_named(tmp_path, caplog, saved):
    args = make_resumed(tmp_path, saved)
    assert find_best(args, TrainingState(best=make_best(50)), DATA) == make_best(50)
    assert "of step 2 with long_mean_recall 50, is not in" in caplog.text


def test_a_run_that_resumes_into_another_folder_keeps_the_best_score(tmp_path, caplog):
    args = make_resumed(tmp_path / "first", make_best(60, step=4))
    args = dataclasses.replace(args, output_dir=tmp_path / "other")
    assert find_best(args, TrainingState(best=make_best(50)), DATA) == make_best(50)
    assert f"is not in {tmp_path / 'other' / 'best'}" in caplog.text
    with pytest.raises(ValueError, match="Nothing is uploaded: no model was better than the best one of an"):
        push_model(args)


def test_a_score_on_other_evaluation_data_is_not_compared(tmp_path, caplog):
    args = make_resumed(tmp_path, make_best(90))
    assert find_best(args, TrainingState(best=make_best(90)), {"texts": "b"}) is None
    assert "was measured on other data than this run evaluates" in caplog.text


def test_the_best_model_by_another_metric_is_not_compared(tmp_path, caplog):
    """One that was better by the metric of now may have been left out."""
    best = make_best(90, metric="short_mean_recall")
    args = make_resumed(tmp_path, best)
    assert find_best(args, TrainingState(best=best), DATA) is None
    assert f"or is the best by another metric than `{METRIC}`" in caplog.text


def test_a_checkpoint_has_the_best_score(accelerator, tmp_path):
    state = TrainingState(step=2, best=make_best(50))
    save_checkpoint(accelerator, tmp_path, state, {})
    assert read_state(tmp_path / "checkpoint-2", {}) == state


def test_an_evaluation_on_the_training_data_is_warned_of(train, tmp_path, caplog):
    """Also where the split that is asked for is not there, and the only one is taken."""
    load_scenes(24, seed=2).to_parquet(tmp_path / "rows.parquet")
    options = {"dataset_name": "parquet", "data_files": tmp_path / "rows.parquet", "max_train_steps": 1}
    for name, more in (("run", {}), ("same", {"eval_data_files": tmp_path / "rows.parquet"})):
        train(name, **options, **more)
        assert "24 rows of `--eval_split test` are trained on" in caplog.text
        caplog.clear()
    train("held_back", **options, train_split="train[:16]", eval_split="train[16:]", max_train_samples=None)
    assert "are trained on" not in caplog.text


def test_every_result_can_choose_the_best_model():
    results = ImageTextRetrieval().compute(image_embeds=torch.eye(3), text_embeds=torch.eye(3), ks=(1, 5, 10))
    assert {f"{kind}_{name}" for kind in ("short", "long") for name in results} <= set(METRICS)


def test_a_disk_without_room_for_model_and_checkpoints_is_an_error_before_the_first_step(train, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_500_000))
    train("run", max_train_steps=1, max_eval_samples=2)
    with pytest.raises(ValueError, match="has 0.0015 GB left, but the model and checkpoints need .* GB: make room"):
        train("other", max_train_steps=1, max_eval_samples=2, checkpointing_steps=1)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"image_column": "picture"}, "--image_column picture"),
        ({"long_captions_column": "y"}, "`--long_captions_column y` is not a column"),
        ({"long_captions_column": "", "metric_for_best_model": "long_mean_recall"}, "be measured.* no long"),
        ({"long_captions_column": "", "num_long_captions": 2}, "`--num_long_captions 2` is of long captions"),
        ({"num_long_captions": 0, "num_sub_captions": 1}, "`--num_sub_captions 1` is of long captions"),
        ({"max_train_samples": 1}, "A batch of one image has nothing to be contrasted with"),
        ({"eval_split": "validation"}, "no split 'validation' but 'train', 'test'"),
        ({"overwrite_output_dir": None}, "of an earlier run, and no checkpoint to resume it from"),
        ({"max_length": 2}, "leaves no room for a text"),
        ({"with_tracking": True, "report_to": "wandb"}, "`--report_to wandb` is not installed"),
        ({"mixed_precision": "fp16"}, "`--mixed_precision fp16` needs an accelerator"),
        ({"objective": "clip", "caption_column": ""}, "trains on short captions, and there are none"),
        ({"short_captions": "none", "num_long_captions": 0}, "trains on short captions, and there are none"),
        ({"freeze": ["logit_scales"]}, "`--freeze logit_scales` is no module or parameter of the LotlipModel"),
        ({"objective": "clip", "short_loss_weight": 0}, "`--short_loss_weight 0` is a weight .* only short ones are"),
        (
            {"short_captions": "none", "long_loss_weight": 3},
            "`--long_loss_weight 3` is a weight .* only long ones are",
        ),
        ({"freeze": [""]}, "`--freeze ` is no module or parameter of the LotlipModel"),
        ({"freeze": PARTS}, "`--freeze text_model .* leaves nothing to train"),
        ({"overwrite_output_dir": None, "resume_from_checkpoint": "nope"}, "nope` is no folder of a checkpoint"),
        ({"push_to_hub": True, "hub_model_id": "no name!"}, "Repo id must"),
    ],
)
def test_an_error_comes_before_an_earlier_run_is_overwritten(train, tmp_path, wrong, message):
    earlier = tmp_path / "run" / "model.safetensors"
    earlier.parent.mkdir()
    earlier.write_bytes(b"precious")
    with pytest.raises(ValueError, match=message):
        train("run", **({"overwrite_output_dir": True, "max_train_steps": 1} | wrong))
    assert earlier.read_bytes() == b"precious"
    assert list(earlier.parent.iterdir()) == [earlier]


@pytest.mark.parametrize("name", ["README.md", "config.json", "tokenizer.json", "adapter_model.safetensors"])
def test_a_file_that_no_run_has_written_is_not_replaced_unasked(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=f"holds {name}, which the model of this run would replace"):
        check_output_dir(TrainArguments(output_dir=tmp_path))
    check_output_dir(TrainArguments(output_dir=tmp_path, overwrite_output_dir=True))


def test_no_adapters_of_an_earlier_model_stay_beside_a_trained_one(train, tmp_path):
    earlier = tmp_path / "run" / "adapter_config.json"
    earlier.parent.mkdir()
    earlier.write_text("{}")
    folder = train("run", overwrite_output_dir=True, max_train_steps=1)
    assert (folder / "model.safetensors").exists()
    assert not earlier.exists()


def name_unfinished(folder: Path, process: int) -> Path:
    return folder / f"table.parquet.{process}{HOST}.lotlip-partial"


def test_a_file_that_another_process_writes_does_not_stop_a_run(tmp_path):
    being_written = name_unfinished(tmp_path, os.getppid())
    being_written.touch()
    check_output_dir(TrainArguments(output_dir=tmp_path))
    delete_leftovers(TrainArguments(output_dir=tmp_path, overwrite_output_dir=True), TrainingState())
    assert being_written.exists()


def test_an_unfinished_file_that_nobody_writes_any_more_is_left_over(tmp_path):
    left = name_unfinished(tmp_path, os.getpid())
    left.touch()
    with pytest.raises(ValueError, match=f"holds {left.name} of an earlier run"):
        check_output_dir(TrainArguments(output_dir=tmp_path))


def make_checkpoint(folder: Path, settings: dict) -> Path:
    folder.mkdir(parents=True)
    content = {"settings": settings, "progress": vars(TrainingState()) | {"counts": SampleCounts().state_dict()}}
    write_json(folder / "training_state.json", content)
    return folder


def test_a_checkpoint_of_another_name_in_the_output_folder_is_refused(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "run" / "my-checkpoint", {})
    args = TrainArguments(output_dir=tmp_path / "run", resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match="my-checkpoint` has another name.*`checkpoint-N` again"):
        find_checkpoint(args)


def test_a_checkpoint_of_another_name_elsewhere_is_resumed_from(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "run" / "my-checkpoint", {})
    args = TrainArguments(output_dir=tmp_path / "other", resume_from_checkpoint=checkpoint)
    assert find_checkpoint(args) == checkpoint


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint-2", {"data": {"num_files": 3}})
    assert read_state(checkpoint, {"data": {"num_files": 3}}) == TrainingState()
    with pytest.raises(ValueError, match="was written with other data than this run .*3.*, not .*4"):
        read_state(checkpoint, {"data": {"num_files": 4}})


@pytest.mark.parametrize(
    ("text_config", "message"),
    [
        ({"heads": 2}, r"config\.text_config\.heads = 4, and that of this run has 2"),
        ({}, r"config\.text_config\.heads = 4, and that of this run has its default"),
        ({"heads": 4, "dropout": 0.3}, r"config\.text_config\.dropout = its default, and that of this run has 0\.3"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, text_config, message):
    saved = {"architecture": {"class": "LotlipModel", "config": {"text_config": {"heads": 4}}}}
    checkpoint = make_checkpoint(tmp_path / "checkpoint-2", saved)
    assert read_state(checkpoint, saved) == TrainingState()
    given = {"class": "LotlipModel", "config": {"text_config": text_config}}
    with pytest.raises(ValueError, match=message):
        read_state(checkpoint, {"architecture": given})


def test_settings_that_are_tuples_are_those_of_the_checkpoint(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint-2", {"freeze": ["logit_scale"]})
    assert read_state(checkpoint, {"freeze": ("logit_scale",)}) == TrainingState()
    with pytest.raises(ValueError, match="was written with freeze = "):
        read_state(checkpoint, {"freeze": ()})
