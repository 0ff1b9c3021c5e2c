"""What is embedded is written in parts."""

import pytest
import torch

from modeling_lotlip.data.reader import Item, RowInfo
from modeling_lotlip.encoder.batches import EmbeddedBatch
from modeling_lotlip.table import embed


def make_batch(row_index: int, kind: str, value: float) -> EmbeddedBatch:
    item = Item(RowInfo(row_index, f"row {row_index}", file_facts={}), kind)
    return EmbeddedBatch([item], torch.tensor([[value, 0.0]]), [])


def test_a_batch_without_rows_is_not_written_however_late_it_is(monkeypatch):
    monkeypatch.setattr(embed, "WRITE_SECONDS", 0)
    written = []
    embed.write_batches([[EmbeddedBatch([], None, [])]], written.append, torch.nn.Identity())
    assert written == []


def test_of_a_group_that_ends_in_an_error_nothing_is_written():
    groups = [
        [make_batch(0, "image", 1.0), make_batch(0, "short", 1.0)],
        [make_batch(1, "image", 1.0), make_batch(1, "short", torch.nan)],
    ]
    written = []
    with pytest.raises(ValueError, match="row 1 holds NaN or infinity, though its weights are finite"):
        embed.write_batches(groups, written.extend, torch.nn.Identity())
    assert [(row["row"], row["kind"]) for row in written] == [(0, "image"), (0, "short")]
