"""What the tests of the search share: a folder of pictures, and a model."""

from pathlib import Path

import pytest

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.search.pictures import PictureFolder
from modeling_lotlip.search.searcher import Searcher
from modeling_lotlip.search.update import find_table


@pytest.fixture(scope="module")
def model_and_processor(model_dir):
    return load_model(str(model_dir), InferenceArguments(device="cpu"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten pictures, one in a folder of its own."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for index in range(10):
        name = f"more/{index}.jpg" if index == 3 else f"{index}.png"
        make_scene(5, index).draw().save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def open_folder(folder, model_and_processor, tmp_path):
    """Makes a searcher of the folder, with a table that all of them share."""

    def open_searcher(**options) -> Searcher:
        pictures = PictureFolder(folder)
        table = find_table(pictures, *model_and_processor, tmp_path / "indices")
        return Searcher(*model_and_processor, pictures, table, batch_size=3, splitter="paper", **options)

    return open_searcher
