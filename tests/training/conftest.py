"""What several tests of training use."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.models import build_tokenizer
from tests.conftest import forget_accelerator


NUM_SHARDS = 4
ROWS_PER_SHARD = 11


@pytest.fixture
def make_accelerator() -> Callable[..., Accelerator]:
    """A function that gives a new accelerator of the CPU."""

    def make(**options) -> Accelerator:
        forget_accelerator()
        return Accelerator(cpu=True, **options)

    return make


@pytest.fixture
def accelerator(make_accelerator) -> Accelerator:
    """One whose gradients are kept: no step of the optimizer is due."""
    return make_accelerator(gradient_accumulation_steps=1000)


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Scenes in parquet files, with a number in each row."""
    folder = tmp_path_factory.mktemp("shards")
    scenes = load_scenes(NUM_SHARDS * ROWS_PER_SHARD, seed=6)
    scenes = scenes.add_column("number", list(range(len(scenes))))
    for shard in range(NUM_SHARDS):
        rows = range(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        scenes.select(rows).to_parquet(folder / f"{shard}.parquet")
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    scenes = load_scenes(20, seed=6)
    build_tokenizer(scenes, RowReader(scenes.column_names, CaptionArguments())).save_pretrained(folder)
    return folder


def get_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    total_norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm().item()
    for name, gradient in expected.items():
        # the gradient of a key bias is zero but for rounding, which is relative to the others'
        difference = (found[name] - gradient).norm().item()
        assert difference <= 1e-5 * gradient.norm().item() + 1e-6 * total_norm, name
