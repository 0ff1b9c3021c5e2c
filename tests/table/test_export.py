"""Embeddings for other tools."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

from modeling_lotlip.encoder.arguments import KINDS
from modeling_lotlip.table.export import export_embeddings
from modeling_lotlip.table.storage import EmbeddingTable
from tests.helpers.embeddings import draw_unit_vectors


@pytest.fixture
def captioned(tmp_path) -> tuple[EmbeddingTable, torch.Tensor]:
    """A hundred images with two captions each, written in another order, and their embeddings."""
    embeds = draw_unit_vectors(torch.manual_seed(0), 300, 16)
    table = EmbeddingTable.create(tmp_path / "table", 16, {"kinds": list(KINDS)})
    rows = []
    for number, embedding in enumerate(embeds):
        row = {"key": f"key {number // 3:02}", "row": number // 3}
        rows.append({**row, "kind": KINDS[number % 3], "embedding": embedding})
    order = torch.randperm(300).tolist()
    unreadable = {"key": "bad's", "row": 100, "problem": "cut off"}
    table.append([rows[index] for index in order[:100]])
    table.append([*(rows[index] for index in order[100:]), unreadable])
    return table, embeds


def read_parquet(path: Path) -> dict[str, list]:
    return parquet.read_table(path).to_pydict()


def read_npz(path: Path) -> dict[str, list]:
    arrays = np.load(path)
    return {name: arrays[name].tolist() for name in arrays}


@pytest.mark.parametrize("name, read", [("vec:tors.parquet", read_parquet), ("vectors.npz", read_npz)])
def test_export_is_in_the_order_of_the_data(captioned, tmp_path, monkeypatch, name, read):
    table, embeds = captioned
    monkeypatch.chdir(tmp_path)
    num_exported = export_embeddings(table, Path(name))
    assert num_exported == 300
    values = read(tmp_path / name)
    assert values["key"] == [f"key {number // 3:02}" for number in range(300)]
    assert values["kind"] == [*KINDS] * 100
    assert values["position"] == [0] * 300
    assert torch.tensor(values["embedding"]).equal(embeds)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_symbolic_link_stays_one_and_its_file_is_written(captioned, tmp_path, suffix):
    file = tmp_path / f"vectors{suffix}"
    file.write_bytes(b"of an earlier run")
    link = tmp_path / f"link{suffix}"
    link.symlink_to(file)
    assert export_embeddings(captioned[0], link) == 300
    assert link.is_symlink()
    assert file.stat().st_size > 300 * 16 * 4
