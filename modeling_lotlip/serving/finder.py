# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Searches of many requests, which are computed together where the table is held in memory."""

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from ..table.storage import EmbeddingTable
from ..table.vector_index import Found, search_many


@dataclass(frozen=True)
class WaitingSearch:
    """
    A search that waits to be computed.

    Args:
        embeds (`torch.Tensor` of shape `(queries, dim)`): What is searched for, normalized.
        k (`int`): The max count of results of each query.
        kind (`str`): What is searched.
        answer (`asyncio.Future`): Gets what is found.
    """

    embeds: torch.Tensor
    k: int
    kind: str
    answer: asyncio.Future


class Finder:
    """
    Searches in a table for what requests ask. While one product is computed, queries of other requests gather to the
    next.

    Args:
        table ([`EmbeddingTable`]): The table.
    """

    def __init__(self, table: EmbeddingTable):
        self.table = table
        self.queue = asyncio.Queue()
        self.thread = ThreadPoolExecutor(max_workers=1)

    async def find(self, embeds: torch.Tensor, k: int, kind: str) -> list[Found]:
        """
        Finds what is most similar to each query.

        Args:
            embeds (`torch.Tensor` of shape `(queries, dim)`): What is searched for, normalized.
            k (`int`): The max count of results of each query.
            kind (`str`): What is searched.
        """
        waiting = WaitingSearch(embeds, k, kind, asyncio.get_running_loop().create_future())
        self.queue.put_nowait(waiting)
        return await waiting.answer

    async def run(self) -> None:
        """Computes what is waiting, until it is canceled."""
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self.queue.get()]
            while not self.queue.empty():
                waiting.append(self.queue.get_nowait())
            groups = defaultdict(list)
            for one in waiting:
                groups[one.kind, one.k].append(one)
            for (kind, k), group in groups.items():
                await self.answer(loop, group, k, kind)

    async def answer(self, loop: asyncio.AbstractEventLoop, group: list[WaitingSearch], k: int, kind: str) -> None:
        """
        Computes searches that ask for the same, and answers each, also with the error of the table.

        Args:
            loop (`asyncio.AbstractEventLoop`): Runs the server.
            group (`list[WaitingSearch]`): The searches.
            k (`int`): The max count of results of each query.
            kind (`str`): What is searched.
        """
        queries = torch.cat([one.embeds for one in group])
        search = loop.run_in_executor(self.thread, search_many, self.table, queries, k, kind)
        # An error is returned, not raised: it belongs to the requests, and the searches after it go on
        (found,) = await asyncio.gather(search, return_exceptions=True)
        if isinstance(found, ValueError) and len(group) > 1:  # of one of them, and not of the others
            for one in group:
                await self.answer(loop, [one], k, kind)
            return
        if isinstance(found, BaseException):
            for one in group:
                if not one.answer.done():
                    one.answer.set_exception(found)
            return
        for one in group:
            own = found[: len(one.embeds)]
            found = found[len(one.embeds) :]
            if not one.answer.done():  # the client has not gone
                one.answer.set_result(own)
