"""Small parts of a training, each by itself: counts, choices, and what is read and written."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from PIL.Image import Resampling
from transformers import BitImageProcessor, ViTImageProcessor

from modeling_lotlip.training import image_features, loop, outputs
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.batch import CaptionBatch, Texts, count_image_tokens
from modeling_lotlip.training.dual_encoder import check_dual_encoder
from modeling_lotlip.training.models import (
    find_image_size,
    freeze,
    read_image_processor,
    read_timm_settings,
    scales_to_one,
    stretch_table,
)
from modeling_lotlip.training.objectives import OBJECTIVES, read_value
from modeling_lotlip.training.order import BatchSampler
from modeling_lotlip.training.outputs import TrainingState
from modeling_lotlip.training.plan import Plan, count_part, count_steps
from modeling_lotlip.training.prepare import check_captions, find_state, make_crop
from modeling_lotlip.training.samples import Cause, Outcome, SampleCounts, describe_error
from modeling_lotlip.training.step import ObjectiveLoss


# ---- steps


@pytest.mark.parametrize(
    ("steps", "max_train_steps", "num_steps"),
    [(0, 7, 0), (0.1, 7, 0), (0.5, 7, 3), (0.99, 7, 6), (1, 7, 1), (1.5, 7, 2), (9, 7, 9), (0.29, 100, 29)],
)
def test_below_one_steps_are_a_fraction_of_the_run_rounded_down(steps, max_train_steps, num_steps):
    assert count_part(steps, max_train_steps) == num_steps


def test_a_warm_up_may_be_as_long_as_the_run():
    args = TrainArguments(output_dir="out", max_train_steps=10, warmup_steps=10)
    assert count_steps(args, None) == (10, 10)


def make_plan(**fields: object) -> Plan:
    defaults = {
        "mixed_precision": "no",
        "num_processes": 1,
        "global_batch_size": 8,
        "num_samples": 80,
        "max_train_samples": 5,
        "max_train_steps": 10,
        "warmup_steps": 1,
        "decay_steps": 1,
        "max_length": 126,
        "matryoshka_dims": None,
    }
    return Plan(**defaults | fields)


def test_a_stream_is_resumed_with_as_many_samples_and_a_dataset_with_as_many_rows():
    args = TrainArguments(output_dir="out")
    of_rows = make_plan().compared_on_resume(args)
    assert of_rows["num_samples"] == 80
    assert "max_train_samples" not in of_rows
    of_stream = make_plan(num_samples=None).compared_on_resume(args)
    assert of_stream["max_train_samples"] == 5
    assert "num_samples" not in of_stream


@pytest.mark.parametrize(
    ("every", "step", "is_epoch_over", "is_due"),
    [
        (None, 6, True, False),
        ("3", 6, False, True),
        ("3", 7, True, False),
        ("epoch", 6, False, False),
        ("epoch", 6, True, True),
        ("epoch", 10, False, True),
    ],
)
def test_a_checkpoint_is_due_every_so_many_steps_or_epochs(every, step, is_epoch_over, is_due):
    training = SimpleNamespace(
        args=SimpleNamespace(checkpointing_steps=every),
        plan=make_plan(),
        state=TrainingState(step=step),
    )
    assert loop.is_checkpoint_due(training, is_epoch_over) == is_due


@pytest.mark.parametrize(
    ("step", "evaluated_step", "is_due"),
    [(0, -1, False), (4, 2, True), (4, 4, False), (5, 2, False), (10, 8, False)],
    ids=["at the start", "due", "resumed after it", "between", "at the end, where it is done anyway"],
)
def test_an_evaluation_is_due_once_every_so_many_steps(monkeypatch, step, evaluated_step, is_due):
    done = []
    monkeypatch.setattr(loop, "evaluate", lambda training, model: done.append(model))
    monkeypatch.setattr(loop, "gather_model", lambda model, accelerator: model)
    training = SimpleNamespace(
        args=SimpleNamespace(eval_steps=2),
        plan=make_plan(),
        state=TrainingState(step=step, evaluated_step=evaluated_step),
        model=torch.nn.Identity().eval(),
        accelerator=None,
        throughput=SimpleNamespace(restart=lambda: done.append("restarted")),
    )
    loop.evaluate_if_due(training)
    assert done == ([training.model, "restarted"] if is_due else [])
    assert training.model.training == is_due


@pytest.mark.parametrize(
    ("streaming", "num_padding", "is_warned"),
    [(True, 6, True), (True, 5, False), (False, 6, False)],
    ids=["much", "little", "no stream, whose last batch may not divide"],
)
def test_much_padding_in_a_stream_is_said_once(caplog, streaming, num_padding, is_warned):
    training = SimpleNamespace(args=SimpleNamespace(streaming=streaming), has_warned_of_padding=False)
    counts = SampleCounts(num_padding=num_padding)
    counts.rows.num_rows = 100 - num_padding
    PartialState()  # which the logger asks for the process
    loop.warn_of_padding(training, counts)
    loop.warn_of_padding(training, counts)
    assert caplog.text.count("6 of 100 samples so far are padding") == int(is_warned)
    assert caplog.text.count("Write shards of equal size") == int(is_warned)


@pytest.mark.parametrize(
    ("idle_steps", "skipped_steps", "message"),
    [(4, 0, "None of 4 steps had a gradient"), (1, 3, "Nothing was learned: of 4 steps 3 were skipped, .* and 1 had")],
)
def test_a_run_of_which_no_step_learned_is_refused(idle_steps, skipped_steps, message):
    state = TrainingState(step=4, idle_steps=idle_steps, skipped_steps=skipped_steps)
    with pytest.raises(ValueError, match=message):
        loop.check_learning(state)
    loop.check_learning(dataclasses.replace(state, step=5))


@pytest.mark.parametrize(("step", "is_refused"), [(10, False), (11, True)])
def test_a_checkpoint_is_no_later_than_the_end_of_the_run(monkeypatch, step, is_refused):
    state = TrainingState(step=step)
    monkeypatch.setattr(outputs, "read_state", lambda checkpoint, settings: state)
    if is_refused:
        with pytest.raises(ValueError, match="is at step 11, but this run has only 10 steps"):
            find_state(make_plan(), Path("checkpoint-11"), {})
    else:
        assert find_state(make_plan(), Path("checkpoint-10"), {}) is state
    assert find_state(make_plan(), None, {}) == TrainingState()


@pytest.mark.parametrize("num_samples", [7, 8, 9])
def test_every_process_has_as_many_samples_and_each_row_once(num_samples):
    batches = [list(BatchSampler(num_samples, 2, 0, process, 2)) for process in range(2)]
    sampler = BatchSampler(num_samples, 2, 0, 0, 2)
    rows = []
    for first, second in zip(*batches, strict=True):
        assert len(first) == len(second) <= 2
        rows += [key.index for key in [*first, *second] if not key.is_padding]
    assert sorted(rows) == list(range(num_samples))
    assert len(sampler) == len(batches[0]) == math.ceil(num_samples / 4)


# ---- batches


def make_texts(*rows: list[int]) -> Texts:
    ids = torch.tensor(rows)
    return Texts(ids, (ids != 0).long())


def test_equal_captions_are_one_group_whatever_is_behind_them():
    texts = Texts(torch.tensor([[5, 6, 0], [5, 6, 9], [5, 7, 0]]), torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0]]))
    first, second, third = CaptionBatch({}, texts).group_short_captions().tolist()
    assert first == second
    assert first != third


@pytest.mark.parametrize("side", ["left", "right"])
def test_equal_captions_are_one_group_whatever_is_longer_in_their_batch(side):
    groups = []
    for num_padded in (1, 3):
        padding = [0] * num_padded
        row = [*padding, 5, 6] if side == "left" else [5, 6, *padding]
        groups += CaptionBatch({}, make_texts(row)).group_short_captions().tolist()
    assert groups[0] == groups[1]


def test_the_tokens_and_the_captions_of_a_batch_are_counted():
    long = Texts(torch.zeros(3, 1, 4, dtype=torch.long), torch.tensor([[[1, 1, 1, 0]], [[0] * 4], [[0] * 4]]))
    batch = CaptionBatch({}, make_texts([5, 6, 0], [0, 0, 0], [7, 0, 0]), long)
    assert batch.num_tokens == 6
    assert batch.has_captions.tolist() == [True, False, True]
    assert batch.short.lengths.tolist() == [2, 0, 1]
    assert batch.short.select_rows(1, 2).input_ids.shape == (1, 1), "a model takes one token at least"
    assert batch.short.select_rows(0, 3).input_ids.shape == (3, 2)


@pytest.mark.parametrize(
    ("images", "patch_size", "num_tokens"),
    [
        ({}, 8, 0),
        ({"pixel_values": torch.zeros(2, 3, 32, 48)}, 8, 25),
        ({"pixel_values": torch.zeros(2, 3, 32, 48)}, (8, 16), 13),
        ({"pixel_values": torch.zeros(2, 3, 64, 64)}, None, 5),
        ({"pixel_values": torch.zeros(2, 30, 192)}, 8, 30),
    ],
    ids=["features", "patches", "oblong patches", "convolutions", "patches of several sizes"],
)
def test_an_image_counts_as_its_patches_and_one(images, patch_size, num_tokens):
    batch = CaptionBatch(images, make_texts([5]))
    assert count_image_tokens(SimpleNamespace(patch_size=patch_size), batch) == num_tokens


def test_features_are_found_in_their_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(image_features, "SHARD_SIZE", 3)
    assert list(image_features.list_indices(0, 5)) == [0, 1, 2]
    assert list(image_features.list_indices(1, 5)) == [3, 4]
    for shard in range(2):
        values = 10.0 * shard + torch.arange(3.0)
        image_features.np.save(tmp_path / f"{shard:06}.npy", values[:, None].numpy())
    assert [image_features.read_features(tmp_path, index).item() for index in range(5)] == [0, 1, 2, 10, 11]


# ---- samples


def test_a_sample_is_left_out_for_a_reason():
    assert Outcome("a").reason is None
    assert Outcome("a", Cause.NO_CAPTION).reason == "no caption"
    assert Outcome("a", Cause.UNREADABLE_IMAGE, error="OSError").reason == "unreadable image (OSError)"


def test_captions_count_for_samples_that_are_used():
    counts = SampleCounts()
    counts.count(Outcome("a", has_short_caption=True, has_long_caption=False))
    counts.count(Outcome("b", has_short_caption=False, has_long_caption=None))
    counts.count(Outcome("c", Cause.NO_CAPTION, has_short_caption=False))
    assert (counts.rows.num_rows, counts.rows.num_used) == (3, 2)
    assert (counts.short_captions.num_rows, counts.short_captions.num_used) == (2, 1)
    assert (counts.long_captions.num_rows, counts.long_captions.num_used) == (1, 0)


def test_an_image_that_cannot_be_read_is_told_from_a_row_of_the_wrong_type():
    error = ValueError("the image of a cannot be read: no")
    assert describe_error("a", error).cause == Cause.WRONG_TYPE
    error.__cause__ = ValueError("no")
    error.__cause__.__cause__ = OSError("no")
    outcome = describe_error("a", error)
    assert (outcome.cause, outcome.error) == (Cause.UNREADABLE_IMAGE, "OSError")


def make_reader(short: bool = True, long: bool = True) -> SimpleNamespace:
    return SimpleNamespace(short_column="caption" if short else None, has_long_captions=long)


@pytest.mark.parametrize(
    ("options", "reader", "message"),
    [
        ({"objective": "clip"}, make_reader(short=False), "`--objective clip` trains on"),
        ({"objective": "long_clip"}, make_reader(short=False), "`--objective long_clip` trains on"),
        ({"num_long_captions": 0}, make_reader(short=False), "trains on short captions"),
        (
            {"model_name_or_path": "a", "distill_weight": 1.0},
            make_reader(short=False),
            "is for short captions, too, and there are none",
        ),
        ({"short_loss_weight": 2}, make_reader(long=False), "`--short_loss_weight 2` is .* only short"),
        ({"long_loss_weight": 2}, make_reader(short=False), "`--long_loss_weight 2` is .* only long"),
        ({"num_long_captions": 2}, make_reader(long=False), "`--num_long_captions 2` is of"),
        ({"num_sub_captions": 2}, make_reader(long=False), "`--num_sub_captions 2` is of"),
        ({"num_sub_captions": 2, "objective": "clip"}, make_reader(), "`--num_sub_captions 2` is of"),
    ],
)
def test_options_of_captions_that_are_not_there_are_refused(options, reader, message):
    with pytest.raises(ValueError, match=message):
        check_captions(TrainArguments(output_dir="out", **options), reader)


@pytest.mark.parametrize(
    ("options", "reader"),
    [
        ({}, make_reader()),
        ({}, make_reader(short=False)),
        ({}, make_reader(long=False)),
        ({"objective": "laclip", "num_sub_captions": 2}, make_reader()),
        ({"objective": "laclip"}, make_reader(short=False)),
        ({"short_loss_weight": 2, "long_loss_weight": 3}, make_reader()),
    ],
)
def test_one_kind_of_captions_is_enough_where_the_objective_can_do_with_it(options, reader):
    check_captions(TrainArguments(output_dir="out", **options), reader)


# ---- models


@pytest.mark.parametrize(
    ("image_processor", "size"),
    [
        (ViTImageProcessor(size={"height": 20, "width": 30}), (20, 30)),
        (BitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 20, "width": 30}), (20, 30)),
        (BitImageProcessor(size={"shortest_edge": 40}, do_center_crop=False), None),
        (SimpleNamespace(size={"height": 20, "width": None}), None),
        (None, None),
    ],
    ids=["size", "crop", "proportions kept", "no width", "none"],
)
def test_the_size_of_images_is_that_of_the_crop_if_there_is_one(image_processor, size):
    assert find_image_size(image_processor) == size


@pytest.mark.parametrize(
    ("do_rescale", "factor", "expected"), [(True, 1 / 255, True), (True, 1 / 256, False), (False, 1 / 255, False)]
)
def test_pixels_from_0_to_1_are_asked_for(do_rescale, factor, expected):
    assert scales_to_one(SimpleNamespace(do_rescale=do_rescale, rescale_factor=factor)) == expected


@pytest.mark.parametrize(
    ("options", "mean", "margin"),
    [
        ({}, 0.5, 1.25),
        ({"do_normalize": False}, 0, 1.25),
        ({"do_center_crop": False}, 0.5, 1),
        ({"do_resize": False}, 0.5, 1),
    ],
)
def test_a_margin_is_resized_and_cut_off_as_before(options, mean, margin):
    sizes = {"size": {"shortest_edge": 50}, "crop_size": {"height": 40, "width": 30}}
    image_processor = BitImageProcessor(**sizes, image_mean=[0.5] * 3, image_std=[0.25] * 3, **options)
    settings, found = read_image_processor(image_processor)
    assert list(settings["image_mean"]) == [mean] * 3
    assert found == margin


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bilinear", Resampling.BILINEAR), ("", Resampling.BICUBIC), ("random", Resampling.BICUBIC)],
)
def test_images_of_timm_are_resized_as_it_says(name, expected):
    settings = read_timm_settings({"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": name})
    assert settings == {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "resample": expected}


@pytest.mark.parametrize(("num_old", "num_kept"), [(77, 20), (10, 5)])
def test_the_first_positions_stay_and_the_rest_are_stretched(num_old, num_kept):
    table = torch.arange(float(num_old))[:, None]
    stretched = stretch_table(table, 248)[:, 0]
    assert len(stretched) == 248
    expected = torch.linspace(num_kept, num_old - 1, 248 - num_kept)
    torch.testing.assert_close(stretched[:num_kept], table[:num_kept, 0])
    torch.testing.assert_close(stretched[num_kept:], expected)


def make_parts() -> torch.nn.Module:
    model = torch.nn.Module()
    model.text_projection = torch.nn.Linear(2, 2)
    model.vision_model = torch.nn.Linear(2, 2)
    model.logit_scale = torch.nn.Parameter(torch.tensor(1.0))
    return model


@pytest.mark.parametrize(
    ("name", "num_trained"), [("text_head", 3), ("vision_model", 3), ("vision_model.bias", 4), ("logit_scale", 4)]
)
def test_a_part_is_frozen_by_its_name(name, num_trained):
    model = make_parts()
    freeze(model, [name])
    assert sum(parameter.requires_grad for parameter in model.parameters()) == num_trained


def test_a_crop_has_the_size_of_the_image_processor_and_the_scale_of_the_user():
    processor = SimpleNamespace(image_processor=ViTImageProcessor(size={"height": 20, "width": 30}))
    assert make_crop(SimpleNamespace(min_crop_scale=1), processor) is None
    crop = make_crop(SimpleNamespace(min_crop_scale=0.4), processor)
    assert list(crop.size) == [20, 30]
    assert tuple(crop.scale) == (0.4, 1.0)
    processor = SimpleNamespace(image_processor=BitImageProcessor(do_center_crop=False))
    with pytest.raises(ValueError, match="Images of `BitImageProcessor.*` cannot be cropped at random"):
        make_crop(SimpleNamespace(min_crop_scale=0.4), processor)


# ---- objectives


@pytest.mark.parametrize(
    ("value", "value_type", "expected"),
    [("true", bool, True), ("False", bool, False), ("3", int, 3), ("3", float, 3.0), ("3", str, "3")],
)
def test_an_option_is_read_as_its_default_is(value, value_type, expected):
    found = read_value(f"a={value}", value, value_type)
    assert found == expected
    assert type(found) is value_type


@pytest.mark.parametrize(
    ("value", "value_type", "message"),
    [("1", bool, "a=1 must be true or false"), ("x", int, "a=x must be of type int"), ("", float, "of type float")],
)
def test_an_option_of_another_type_is_refused(value, value_type, message):
    with pytest.raises(ValueError, match=message):
        read_value(f"a={value}", value, value_type)


@pytest.mark.parametrize("word", ["num_components", "components=3", "=3"])
def test_an_option_that_the_objective_does_not_have_is_refused(word):
    with pytest.raises(ValueError, match=f"--objective_options {word} is no NAME=VALUE"):
        OBJECTIVES["long_clip"].read_options([word])


def test_an_option_has_its_default_until_it_is_given():
    assert OBJECTIVES["long_clip"].read_options([]) == {"num_components": 32}
    assert OBJECTIVES["long_clip"].read_options(["num_components=5"]) == {"num_components": 5}
    assert OBJECTIVES["long_clip"].read_options([]) == {"num_components": 32}


# ---- outputs


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-best", "checkpoint-11"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-11":
            (tmp_path / name / outputs.STATE_FILE).touch()
    assert [path.name for path in outputs.list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]


def test_a_line_that_was_not_written_to_its_end_is_no_measurement(tmp_path):
    assert outputs.read_metrics(tmp_path / "metrics.jsonl") == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert outputs.read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]


def test_measurements_after_the_checkpoint_are_dropped(tmp_path):
    rows = [{"step": 2, "loss": 1}, {"step": 2, "recall": 2}, {"step": 3, "loss": 3}, {"step": 4, "loss": 4}]
    rows += [{"step": 3, "recall": 5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs.drop_later_metrics(tmp_path, TrainingState(step=3, evaluated_step=2))
    assert outputs.read_metrics(tmp_path / "metrics.jsonl") == rows[:3]


@pytest.mark.parametrize(("missing", "is_refused"), [(0, False), (1, True)])
@pytest.mark.parametrize(("checkpointing_steps", "num_bytes"), [(None, 2 * 48), ("5", 2 * 48 + 2 * (48 + 2 * 16))])
def test_room_is_asked_for_model_and_checkpoints(
    monkeypatch, tmp_path, checkpointing_steps, num_bytes, missing, is_refused
):
    model = torch.nn.ParameterDict({"trained": torch.zeros(4), "frozen": torch.zeros(8)})
    model["frozen"].requires_grad_(False)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: SimpleNamespace(free=num_bytes - missing))
    args = TrainArguments(output_dir=tmp_path / "new", checkpointing_steps=checkpointing_steps)
    if is_refused:
        with pytest.raises(ValueError, match="make room, or name a folder on another disk"):
            outputs.check_room(args, model)
    else:
        outputs.check_room(args, model)


def test_a_card_says_what_a_model_was_trained_on(tmp_path):
    scenes = outputs.describe_training(TrainArguments(output_dir=tmp_path / "run"), make_plan())
    assert scenes["provenance"] == "Trained by `lotlip train` on drawn scenes, from random weights, with seed 0."
    assert (scenes["language"], scenes["base_model"], scenes["repo_id"]) == ("en", None, "run")
    assert scenes["biases"] == outputs.BIASES_OF_SCENES
    names = {
        "text_model_name_or_path": "org/bert",
        "vision_model_name_or_path": str(tmp_path),
        "dataset_name": "org/photos",
        "hub_model_id": "org/mine",
        "push_to_hub": True,
        "language": ["de", "en"],
    }
    args = TrainArguments(output_dir=tmp_path / "run", **names)
    others = outputs.describe_training(args, make_plan())
    assert others["provenance"] == (
        f"Trained by `lotlip train` on org/photos, from {tmp_path.name} and org/bert, with seed 0."
    )
    assert (others["language"], others["base_model"], others["repo_id"]) == (["de", "en"], ["org/bert"], "org/mine")
    assert others["biases"] is None
    assert others["settings"]["max_train_steps"] == 10


def test_the_card_names_the_rows_that_results_are_of_and_those_that_were_trained_on():
    options = {"data_files": ["data/train.parquet"], "eval_data_files": ["data/a.parquet", "data/b.parquet"]}
    args = TrainArguments(
        output_dir="out", dataset_name="parquet", eval_split="train", max_eval_samples=5, split_seed=3, **options
    )
    described = outputs.describe_training(args, make_plan())
    assert "on train.parquet, from random weights" in described["provenance"]
    assert described["dataset"] == "a.parquet and 1 more"
    assert described["dataset_split"] == "train (shuffled with seed 3, at most the first 5 rows)"


def test_the_speed_is_measured_since_the_last_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(outputs.time, "perf_counter", lambda: now[0])
    throughput = outputs.Throughput()
    batch = SimpleNamespace(has_captions=torch.tensor([True, True, False]), num_tokens=torch.tensor(20))
    accelerator = SimpleNamespace(device="cpu", reduce=lambda values, how: values)
    throughput.count(batch)
    throughput.count(batch)
    now[0] = 4.0
    assert throughput.measure(accelerator) == {"images_per_second": 1.0, "tokens_per_second": 10.0}
    throughput.count(batch)
    now[0] = 5.0
    assert throughput.measure(accelerator) == {"images_per_second": 2.0, "tokens_per_second": 20.0}


@pytest.mark.parametrize(
    ("objective", "has_bias", "message"),
    [("siglip", False, "The model has no `logit_bias`"), ("long_clip", True, "The model has a `logit_bias`")],
)
def test_an_objective_that_needs_a_bias_or_has_no_use_for_one_is_refused(objective, has_bias, message):
    ObjectiveLoss(OBJECTIVES[objective], not has_bias)
    with pytest.raises(ValueError, match=message):
        ObjectiveLoss(OBJECTIVES[objective], has_bias)


def test_what_lacks_a_tower_or_a_temperature_cannot_be_trained():
    model = torch.nn.Module()
    model.get_text_features = None
    with pytest.raises(ValueError, match="`Module` has no `vision_model`, `logit_scale`. Name a LoTLIP"):
        check_dual_encoder(model)
    model.vision_model = torch.nn.Identity()
    model.logit_scale = torch.nn.Parameter(torch.tensor(1.0))
    model.config = SimpleNamespace(model_type="clip")
    check_dual_encoder(model)
    model.config.model_type = "fgclip2"
    with pytest.raises(ValueError, match="`Module` reads short and long texts in two ways"):
        check_dual_encoder(model)
