"""Pictures, a captioner, and captioning from Python."""

from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import PartialState

from modeling_lotlip.captioning.recaption import recaption
from modeling_lotlip.commands.recaption import ARGUMENTS
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.captioners import make_arguments, read_records, save_captioner


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Six pictures of several shapes, formats and folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for index, scene in enumerate(load_scenes(6, seed=21)):
        image = scene["image"].resize((64 + 24 * index, 64))
        image.save(folder / (f"{index}.png" if index % 3 else f"more/{index}.jpg"))
    return folder


@pytest.fixture(scope="session")
def llava(tmp_path_factory) -> str:
    return save_captioner("llava", tmp_path_factory.mktemp("captioner") / "llava")


@pytest.fixture
def caption(tmp_path) -> Callable[..., list[dict]]:
    """Captions images from Python, and returns the rows that the folder then holds."""

    def run(name: str, *captioners: str, **options: object) -> list[dict]:
        defaults = {"device": "cpu", "max_new_tokens": 12, "rules": ["none"]}
        options = {**defaults, "captioner": list(captioners), "output_dir": tmp_path / name, **options}
        arguments, source, split, captioning, rules = make_arguments(ARGUMENTS, **options)
        stop_number = recaption(source, split, arguments, captioning, rules, PartialState(cpu=True))
        run.stop_number = stop_number
        return read_records(tmp_path / name)

    return run
