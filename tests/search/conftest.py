"""What the tests of the search share: a folder of images, and a model."""

from pathlib import Path

import pytest

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.search.handlers import Handlers
from modeling_lotlip.search.index import find_table, open_images
from modeling_lotlip.search.searcher import Searcher


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten images, one in a folder of its own."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for index in range(10):
        name = f"more/{index}.jpg" if index == 3 else f"{index}.png"
        make_scene(5, index).draw().save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def open_folder(folder, encoder, tmp_path):
    """Makes what is behind a page of the folder, with an index that all of them share."""

    def open_handlers(k: int = 4) -> Handlers:
        table = find_table(folder, encoder, tmp_path / "indices")
        searcher = Searcher(encoder, table, folder, batch_size=3)
        return Handlers(searcher, open_images(table), k)

    return open_handlers
