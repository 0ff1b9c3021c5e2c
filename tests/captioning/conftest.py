"""Pictures, a captioner, captioning and filtering from Python."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from accelerate import PartialState
from pyarrow import parquet

from modeling_lotlip.captioning.filter import filter_captions
from modeling_lotlip.captioning.recaption import recaption
from modeling_lotlip.commands.filter import ARGUMENTS as FILTER_ARGUMENTS
from modeling_lotlip.commands.recaption import ARGUMENTS
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.caption_files import SCHEMA, make_rows
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
        defaults = {"device": "cpu", "max_new_tokens": 12, "without_rules": ["all"]}
        options = {**defaults, "captioner": list(captioners), "output_dir": tmp_path / name, **options}
        arguments, source, split, captioning, rules = make_arguments(ARGUMENTS, **options)
        stop_number = recaption(source, split, arguments, captioning, rules, PartialState(cpu=True))
        run.stop_number = stop_number
        return read_records(tmp_path / name)

    return run


@pytest.fixture
def captions_dir(tmp_path) -> Path:
    """Two files of captions."""
    folder = tmp_path / "captions"
    folder.mkdir()
    for shard, rows in enumerate((make_rows()[:10], make_rows()[10:])):
        parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / f"{shard}.parquet", row_group_size=4)
    return folder


@pytest.fixture
def run(tmp_path) -> Callable[..., dict]:
    """Filters files of captions from Python; returns the report that was written."""

    def run(captions: Path, output: str, **options: object) -> dict:
        options |= {"captions": [str(captions)], "output_dir": tmp_path / output}
        report = filter_captions(*make_arguments(FILTER_ARGUMENTS, **options))
        assert json.loads((tmp_path / output / "report.json").read_text()) == report
        return report

    return run
