"""Searches of several requests that are computed together."""

import asyncio

import pytest
import torch

from modeling_lotlip.serving.finder import Finder
from modeling_lotlip.table.storage import EmbeddingTable


def test_a_query_that_cannot_be_searched_leaves_the_others_their_answers(tmp_path):
    table = EmbeddingTable.create(tmp_path / "table", 8, {"kinds": ["image"]})
    table.append([{"key": "boat", "embedding": torch.eye(8)[0]}, {"key": "house", "embedding": torch.eye(8)[1]}])

    async def ask_together():
        finder = Finder(table)
        queries = (torch.eye(8)[:1], torch.zeros(1, 8), torch.eye(8)[1:2])
        answers = [asyncio.ensure_future(finder.find(query, 1, "image")) for query in queries]
        await asyncio.sleep(0)  # all are waiting before the first is computed
        running = asyncio.ensure_future(finder.run())
        found = await asyncio.gather(*answers, return_exceptions=True)
        running.cancel()
        return found

    first, refused, last = asyncio.run(ask_together())
    assert first[0].keys == ["boat"]
    assert last[0].keys == ["house"]
    with pytest.raises(ValueError, match="all zeros"):
        raise refused
