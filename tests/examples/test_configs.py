"""The configurations of accelerate: read as `accelerate launch` reads them, and obeyed by the training script."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import prepare_multi_gpu_env

import modeling_lotlip.modeling_lotlip as modeling
from modeling_lotlip.training.outputs import read_metrics
from tests.conftest import ROOT, assert_same_weights, run_together, tiny_config, training_argv
from tests.helpers import fsdp2_training


CONFIGS = sorted((ROOT / "examples" / "configs").glob("*.yaml"))


def launch_environment(config: Path, *options: str) -> dict[str, str]:
    """The variables that `accelerate launch` sets for its processes."""
    argv = ["--config_file", str(config), *options, "train_lotlip.py"]
    args = launch_command_parser().parse_args(argv)
    args, _, _ = _validate_launch_command(args)
    return prepare_multi_gpu_env(args)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_read_as_they_are_meant(config):
    content = yaml.safe_load(config.read_text())
    loaded = load_config_from_file(str(config))  # refuses keys that it does not know
    assert loaded.distributed_type.value == content["distributed_type"]
    environment = launch_environment(config, "--num_processes", "2", "--gpu_ids", "all")
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert (environment.get("ACCELERATE_USE_FSDP") == "true") == (config.stem == "fsdp2")
    if config.stem == "fsdp2":
        assert environment["FSDP_VERSION"] == "2"
        layers = environment["FSDP_TRANSFORMER_CLS_TO_WRAP"].split(",")
        assert all(hasattr(modeling, layer) for layer in layers)
        assert set(layers) <= {*modeling.LotlipPreTrainedModel._no_split_modules}


def read_losses(folder: Path) -> list[float]:
    """The losses that a training logged."""
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


@pytest.mark.processes
def test_sharded_parameters_train_as_whole_ones_do(train, tmp_path):
    tiny_config(dropout=0.0).save_pretrained(tmp_path / "config")
    options = {
        "max_train_steps": 4,
        "logging_steps": 1,
        "eval_steps": 2,
        "max_train_samples": 32,
        "min_crop_scale": 1,
        "no_freeze_vision_model": True,
    }
    whole = train("whole", **options, per_device_train_batch_size=8)
    in_chunks = {**options, "per_device_train_batch_size": 4, "grad_cache_tokens": 400}
    config = launch_environment(ROOT / "examples" / "configs" / "fsdp2.yaml", "--num_processes", "2")
    of_fsdp = ("FSDP_", "ACCELERATE_USE_FSDP")
    environment = {name: value for name, value in config.items() if name.startswith(of_fsdp)}

    def train_sharded(name: str, **more) -> dict:
        argv = training_argv(tmp_path, name, **in_chunks, **more, mixed_precision="no")
        argv = [str(tmp_path / "told"), *argv[3:]]
        run_together(tmp_path / f"log_{name}", 2, argv, fsdp2_training.main, **environment)
        told, other = (json.loads((tmp_path / f"told.{rank}").read_text()) for rank in range(2))
        # at each of the evaluations and at the end
        assert set(told["whole_models"]) == {1}
        assert set(other["whole_models"]) == {0}
        assert len(told["whole_models"]) == len(other["whole_models"]) > 0
        return told

    told = train_sharded("sharded", checkpointing_steps=2)
    assert told["num_processes"] == 2
    assert told["whole"] == ["model.logit_scale"]
    assert told["num_sharded"] > 50
    sharded = tmp_path / "sharded"
    losses = read_losses(sharded)
    assert len(losses) == 4
    assert losses == pytest.approx(read_losses(whole), rel=1e-4)
    results = json.loads((sharded / "eval_results.json").read_text())
    expected = json.loads((whole / "eval_results.json").read_text())
    assert results.keys() == expected.keys()
    for name in expected:
        if "num_" in name:  # all are evaluated
            assert results[name] == expected[name], name
    # Adam's first steps have the learning rate's size whatever the gradient's: rounding shows in the smallest
    assert_same_weights(sharded, whole, atol=1e-4)

    shutil.copytree(sharded / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    train_sharded("resumed", resume_from_checkpoint="latest")
    assert_same_weights(tmp_path / "resumed", sharded)
