"""What is embedded is written in parts."""

from modeling_lotlip.encoder.batches import EmbeddedBatch
from modeling_lotlip.table import embed


def test_a_batch_without_rows_is_not_written_however_late_it_is(monkeypatch):
    monkeypatch.setattr(embed, "WRITE_SECONDS", 0)
    written = []
    embed.write_batches([[EmbeddedBatch([], None, [])]], written.append)
    assert written == []
