import gc
import json
import os
import random
import re

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torchvision.transforms.v2 import RandomResizedCrop

from modeling_lotlip import LotlipModel, LotlipVisionModel
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training import batch as batch_module
from modeling_lotlip.training.arguments import ObjectiveArguments, TrainArguments
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.order import BatchSampler
from modeling_lotlip.training.outputs import read_metrics
from modeling_lotlip.training.prepare import count_threads, start_processes
from modeling_lotlip.training.samples import CaptionedImages
from modeling_lotlip.training.step import parameter_groups
from tests.conftest import assert_same_weights, forget_accelerator, run_together, tiny_config, training_argv
from tests.helpers import distributed_step
from tests.helpers.images import NO_IMAGE, replace_values
from tests.training.conftest import assert_same_gradients


WAYS = {
    2: [
        "trained groups lotlip",
        "frozen chunks filip",
        "trained chunks siglip",
        "trained chunks long_clip",
        "trained chunks lotlip 16 4",
        "trained chunks prototypes",
        "frozen groups penalty",
    ],
    4: ["frozen groups lotlip"],
}


@pytest.mark.processes
@pytest.mark.parametrize("num_processes", WAYS)
def test_several_processes_equal_one(make_accelerator, tmp_path, num_processes):
    """Gradients of an epoch, and the curve of losses over two more, for the same global batches."""
    steps = tmp_path / "steps"
    ways = WAYS[num_processes]
    run_together(tmp_path / "log", num_processes, [str(steps), "4", *ways], distributed_step.main)
    loaded = [torch.load(f"{steps}.{process}") for process in range(num_processes)]
    accelerator = make_accelerator()
    assert accelerator.num_processes == 1
    assert all(run["num_processes"] == num_processes for run in loaded)
    for way in ways:
        alone = distributed_step.compute_steps(re.sub("groups|chunks", "whole", way), 4, accelerator)
        assert_same_steps(alone, [run["steps"][way] for run in loaded], way)


def assert_same_steps(alone: list[dict], several: list[list[dict]], way: str) -> None:
    assert [len(step["keys"]) for step in alone] == 3 * [4, 4, 3]
    assert several[-1][2]["keys"][-1][2], "the last batch does not divide: one row must be padding"
    seen = []
    most_groups = 0
    for one, *others in zip(alone, *several):
        real = [key for other in others for key in other["keys"] if not key[2]]
        assert sorted(real) == sorted(one["keys"])
        seen += [index for _, index, *_ in real]
        assert all(other["loss"] == others[0]["loss"] for other in others)
        assert len({other["num_groups"] for other in others}) == 1
        most_groups = max(most_groups, others[0]["num_groups"])
        torch.testing.assert_close(others[0]["loss"], one["loss"], rtol=1e-5, atol=0)
        if "gradients" not in one:
            continue
        assert_same_gradients(others[0]["gradients"], one["gradients"])
        assert any(name.startswith("model.vision_model") for name in one["gradients"]) == way.startswith("trained")
    assert sorted(seen) == sorted(3 * list(range(11))), "every sample once in an epoch"
    assert most_groups == 4 // len(several)
    assert alone[-1]["loss"] != alone[-4]["loss"]


@pytest.mark.processes
def test_two_processes_train_and_evaluate_as_one(train, tmp_path, monkeypatch):
    """With a frozen image tower whose output they compute together."""

    def count_models(accelerator):  # one in DistributedDataParallel that outlives its process group sometimes hangs
        num_models.append(sum(model not in earlier for model in find_models()))

    def find_models():
        return [item for item in gc.get_objects() if isinstance(item, ContrastiveModel)]

    num_models = []
    earlier = find_models()  # of other tests
    monkeypatch.setattr(Accelerator, "end_training", count_models)
    tiny_config(dropout=0.0).save_pretrained(tmp_path / "config")
    options = {"model_name_or_path": train("start", max_train_steps=1, max_eval_samples=2), "config_name": None}
    options |= {"max_eval_samples": 25, "max_train_steps": 4, "learning_rate": 1e-5, "cache_image_features": True}
    alone = train("alone", **options, image_features_dir=tmp_path / "features_1")
    options |= {"per_device_train_batch_size": 4, "image_features_dir": tmp_path / "features_2"}
    assert num_models == [0, 0]
    environment = {"ACCELERATE_USE_CPU": "false", "CUDA_VISIBLE_DEVICES": ""}  # which needs not be told
    told = run_together(tmp_path / "log", 2, training_argv(tmp_path, "two", **options)[2:], **environment)
    assert told.count("44 training images, 8 in a batch (2 x 4), 4 steps") == 1
    assert "image tower frozen; images of 32 x 32 pixels, 126 tokens of text" in told
    files = [next((tmp_path / name).rglob("*.npy")) for name in ("features_1", "features_2")]
    assert files[0].parent.name == files[1].parent.name
    np.testing.assert_allclose(*map(np.load, files), rtol=0, atol=1e-5)
    results = [json.loads((folder / "eval_results.json").read_text()) for folder in (alone, tmp_path / "two")]
    assert results[0].keys() == results[1].keys()
    assert results[0]["long_num_images"] == results[1]["long_num_images"] == 25
    assert "short_t2i_recall@1" in results[0]
    assert "long_i2t_recall@10" in results[0]
    assert len(set(results[0].values())) > 5
    assert results[1] == pytest.approx(results[0], abs=1e-3)


STREAM = {"streaming": True, "shuffle_buffer_size": 20, "eval_split": "train", "checkpointing_steps": 1}


@pytest.mark.processes
@pytest.mark.parametrize(
    "options, steps",  # 6 batches an epoch, with dropout: in the middle of an epoch, and at its end or in the next one
    [
        ({"min_crop_scale": 0.8}, (3, 6)),
        ({"grad_cache_tokens": 150}, (3,)),
        # 3 batches an epoch and 2 an update: the first epoch ends in the middle of an update
        ({"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "checkpointing_steps": "epoch"}, (2,)),
        (STREAM, (2, 7)),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(train, shards, tokenizer, monkeypatch, options, steps):
    monkeypatch.setitem(batch_module.TOKENS_PER_CALL, "cpu", 4)  # a batch is several groups
    options = {"checkpointing_steps": 3, "eval_steps": 4, "max_eval_samples": 8} | options
    if options.get("streaming"):
        options |= {"dataset_name": shards, "tokenizer_name": tokenizer}
    whole = train("whole", **options)
    for step, num_workers in zip(steps, (2, 0)):
        more = {"resume_from_checkpoint": whole / f"checkpoint-{step}", "dataloader_num_workers": num_workers}
        assert_same_weights(train(f"resumed_{step}", **options, **more), whole)


def test_resume_refuses_another_run(train):
    folder = train("first", checkpointing_steps=4, max_train_steps=4)
    with pytest.raises(ValueError, match="seed = 0, this run has 1"):
        train("second", seed=1, resume_from_checkpoint=folder / "checkpoint-4")
    with pytest.raises(ValueError, match="checkpoint-4` is a checkpoint, .*: name the model, which is in `.*first`"):
        LotlipModel.from_pretrained(folder / "checkpoint-4")
    (folder / "checkpoint-9.0.lotlip-partial").mkdir()  # torn while it was written
    longer = {"max_train_steps": 5, "checkpointing_steps": 1}
    train("first", resume_from_checkpoint="latest", **longer)

    # a refused one changes nothing
    names = sorted(path.name for path in folder.iterdir())
    assert "checkpoint-5" in names
    assert "checkpoint-9.0.lotlip-partial" not in names
    for wrong, message in (
        ({"learning_rate": 1e-5}, "learning_rate = "),
        ({"max_train_steps": 3}, "checkpoint-5` is at step 5, but this run has only 3 steps"),
        ({"mixed_precision": "bf16"}, "mixed_precision = no, this run has bf16"),
        ({"resume_from_checkpoint": folder / "checkpoint-4"}, "holds checkpoint-5, which is later"),
    ):
        with pytest.raises(ValueError, match=message):
            train("first", **{"resume_from_checkpoint": "latest"} | longer | wrong)
        assert sorted(path.name for path in folder.iterdir()) == names
    other = train("other", resume_from_checkpoint=folder / "checkpoint-4", **longer)
    assert_same_weights(other, folder)


def test_the_order_is_of_the_epoch_and_the_seed():
    first, epoch, seed = (BatchSampler(10, 2, seed, 0, 2, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0)))
    orders = [[key[1] for keys in batches for key in keys] for batches in (first, epoch, seed)]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def sample_dataset(seed: int = 0, **options) -> CaptionedImages:
    text = "1. First things. 2) A boat.\nThe sea.. 3. Last"
    dataset = load_scenes(3, seed=2).remove_columns(["caption", "long_captions"])
    dataset = dataset.add_column("caption", [["a", "b", "c"], [None, "d"], []])
    dataset = dataset.add_column("long_captions", [[text, "Other"], [text], []])
    reader = RowReader(dataset.column_names, CaptionArguments())
    return CaptionedImages(dataset, reader, ObjectiveArguments(**options), seed)


def test_every_caption_of_an_image_is_sampled_in_some_epoch():
    samples = sample_dataset(num_long_captions=2)
    short = {samples[epoch, 0, False].short_caption for epoch in range(50)}
    long = {tuple(samples[epoch, 0, False].long_captions) for epoch in range(50)}
    assert short == {"a", "b", "c"}
    assert long == {
        ("First things. 2) A boat. The sea. Last", "Other"),
        ("Other", "First things. 2) A boat. The sea. Last"),
    }


def test_enumeration_is_no_sub_caption_but_a_number_in_a_sentence_stays():
    sample = sample_dataset(num_long_captions=2)[0, 1, False]
    assert sample.short_caption == "d"
    assert sample.long_captions == ["First things. 2) A boat. The sea. Last", ""]


@pytest.mark.parametrize("key", [(0, 2, False), (0, 0, True)], ids=["no captions", "padding"])
def test_a_sample_without_captions_has_empty_texts(key):
    sample = sample_dataset(num_long_captions=2)[key]
    assert sample.short_caption == ""
    assert sample.long_captions == ["", ""]


def test_sub_captions_that_are_sampled_are_consecutive():
    parts = ["First things", "2) A boat", "The sea", "Last"]
    consecutive = {". ".join(parts[start : start + 2]) for start in range(3)}
    samples = sample_dataset(num_sub_captions=2)
    assert {samples[epoch, 1, False].long_captions[0] for epoch in range(50)} == consecutive


def test_captions_that_are_sampled_do_not_depend_on_earlier_ones():
    keys = [(epoch, index, False) for epoch in range(5) for index in range(3)]
    samples = sample_dataset(num_sub_captions=2)
    in_order = {key: samples[key].long_captions for key in keys}
    random.Random(0).shuffle(keys)
    samples = sample_dataset(num_sub_captions=2)
    shuffled = {key: samples[key].long_captions for key in keys}
    assert shuffled == in_order


def test_draws_and_crops_depend_on_sample_epoch_and_seed():
    dataset = load_scenes(1, seed=2).remove_columns("caption").add_column("caption", [list("abcdefgh")])
    dataset = dataset.select([0] * 12)
    crop = RandomResizedCrop((32, 32), scale=(0.3, 0.9))

    def draw(keys: list[tuple[int, int]], seed: int = 0) -> tuple[list[str], list[bytes]]:
        reader = RowReader(dataset.column_names, CaptionArguments())
        samples = CaptionedImages(dataset, reader, ObjectiveArguments(), seed, crop)
        drawn = [samples[epoch, index, False] for epoch, index in keys]
        return [sample.short_caption for sample in drawn], [sample.image.tobytes() for sample in drawn]

    indices = [(0, index) for index in range(12)]
    epochs = [(epoch, 0) for epoch in range(12)]
    for keys in (indices, epochs):
        captions, images = draw(keys)
        assert len(set(captions)) > 3
        assert len(set(images)) == 12
        other_captions, other_images = draw(keys, seed=1)
        assert other_captions != captions
        assert not set(other_images) & set(images)


def test_no_weight_decay_on_norms_biases_and_temperature():
    """Corner tokens decay as the words do, in whose table the original has them."""
    model = ContrastiveModel(LotlipModel(tiny_config()))
    decay = {}
    for group in parameter_groups(model, 0.1):
        decay |= {id(parameter): group["weight_decay"] for parameter in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_kept = name.endswith(("bias", "logit_scale")) or "norm" in name
        assert decay[id(parameter)] == (0 if is_kept else 0.1), name


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_frozen_tower_stays_in_evaluation_mode(is_frozen):
    model = LotlipModel(tiny_config())
    model.vision_model.requires_grad_(not is_frozen)
    contrastive_model = ContrastiveModel(model).train()
    assert contrastive_model.training
    assert model.text_model.training
    assert model.vision_model.training != is_frozen


@pytest.mark.parametrize("projection_dim", [None, 16])
def test_images_are_embedded_once_for_evaluations_of_a_frozen_tower(train, tmp_path, projection_dim):
    """Unless a trained projection lies behind it. One image cannot be read."""
    config = tiny_config()
    config.vision_config.projection_dim = projection_dim
    if projection_dim is not None:
        config.text_config.projection_dim = config.projection_dim = projection_dim
    config.save_pretrained(tmp_path / "config")
    replace_values(load_scenes(12, seed=3), {5: {"image": NO_IMAGE}}).save_to_disk(tmp_path / "data")
    seen = []

    def record(module, inputs):
        if isinstance(module, LotlipVisionModel) and torch.is_inference_mode_enabled():
            seen.append(module)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(record)
    options = {"dataset_name": tmp_path / "data", "train_split": "train[6:]", "eval_split": "train[:6]"}
    options |= {"freeze_vision_model": True, "per_device_train_batch_size": 6, "max_train_samples": None}
    results = []
    calls = []
    for eval_steps in (1, 100):
        folder = train(f"every_{eval_steps}", **options, eval_steps=eval_steps, max_train_steps=3)
        results.append(json.loads((folder / "eval_results.json").read_text()))
        calls.append(len(seen))
        seen.clear()
    hook.remove()
    assert calls == ([1, 1] if projection_dim is None else [3, 1])
    assert results[0] == results[1]
    assert results[0]["num_unreadable_images"] == 1
    assert results[0]["short_num_images"] == 5


@pytest.mark.parametrize("lacks", ["caption", "long_captions"])
@pytest.mark.parametrize("where", ["data", "arguments"])
def test_trains_on_one_kind_of_captions(train, tmp_path, lacks, where):
    """Where the other is left out by an argument, both are evaluated."""
    dataset = load_scenes(20, seed=3)
    kind = "short" if lacks == "caption" else "long"
    dataset = dataset.remove_columns(lacks) if where == "data" else dataset
    dataset.save_to_disk(tmp_path / "data")
    options = {"short_captions": "none"} if lacks == "caption" else {"num_long_captions": 0}
    options = {} if where == "data" else options
    folder = train("run", dataset_name=tmp_path / "data", max_train_steps=2, logging_steps=1, **options)
    for row in [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]:
        assert ("loss_short" in row, "loss_long" in row) == (kind == "long", kind == "short")
    results = json.loads((folder / "eval_results.json").read_text())
    evaluated = [name for name in ("short", "long") if f"{name}_t2i_recall@1" in results]
    assert evaluated == [name for name in ("short", "long") if name != kind or where == "arguments"]


def test_a_run_that_has_nothing_to_tell_apart_is_an_error_and_saves_no_model(train, tmp_path):
    dataset = load_scenes(20, seed=3).remove_columns("long_captions")
    dataset = dataset.remove_columns("caption").add_column("caption", ["a photo"] * 20)
    dataset.save_to_disk(tmp_path / "data")
    options = {"dataset_name": tmp_path / "data", "checkpointing_steps": 1}
    with pytest.raises(ValueError, match="None of 2 steps had a gradient: in no batch"):
        train("run", **options, max_train_steps=2)
    with pytest.raises(ValueError, match="None of 3 steps had a gradient: in no batch"):
        train("run", **options, max_train_steps=3, resume_from_checkpoint="latest")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_trackers_get_losses_and_results(train):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"eval_steps": 4, "logging_steps": 1, "gradient_accumulation_steps": 2}
    folder = train("tracked", with_tracking=True, report_to="tensorboard", **options)
    events = EventAccumulator(str(folder / "logs" / "lotlip")).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    assert [event.step for event in events.Scalars("long_t2i_recall@1")] == [4, 8]
    results = json.loads((folder / "eval_results.json").read_text())
    assert events.Scalars("short_mean_recall")[-1].value == pytest.approx(results["short_mean_recall"])


@pytest.mark.parametrize(
    "variables, expected",
    [
        pytest.param({}, 12, id="all cores"),
        pytest.param({"OMP_NUM_THREADS": "1"}, 1, id="one, as the user says"),
        pytest.param({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 12, id="the 1 of a launcher"),
        pytest.param({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "4"}, 3, id="the 1 of a launcher of four processes"),
        pytest.param({"OMP_NUM_THREADS": "5", "LOCAL_WORLD_SIZE": "4"}, 5, id="the user's, in four processes"),
    ],
)
def test_threads_are_those_that_the_user_asks_for_or_an_equal_part_of_the_cores(monkeypatch, variables, expected):
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert count_threads() == expected


def test_batches_of_a_step_are_those_of_the_argument_not_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(os.cpu_count()))  # one thread
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    forget_accelerator()
    accelerator = start_processes(TrainArguments(output_dir=tmp_path, gradient_accumulation_steps=3))
    assert accelerator.gradient_accumulation_steps == 3
