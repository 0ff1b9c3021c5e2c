# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What captioning has recorded of each image, by its key, in some 50 bytes of memory each."""

from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

import numpy as np


# So many keys of the sorted ones may be new before they are sorted in; such a one takes ten times the memory.
SHARE_OF_RECENT, LEAST_RECENT = 1 / 32, 1000
HALVES = Struct("<QQ")
# The columns beside the two halves of the hash, which are sorted by the first
TYPES = {"high": np.uint64, "low": np.uint64, "digest": np.uint64, "done": np.uint64, "turn": np.uint8}


class Place(NamedTuple):
    """Where a key is: a row of the sorted ones, or the values of a recent one."""

    row: int
    recent: dict | None


def hash_key(key: str) -> tuple[int, int]:
    """
    128 bits of a key, in two halves. That two of 100 million keys share them has a probability of 1.5e-23, and
    some key would then be taken for done.
    """
    return HALVES.unpack(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def shorten_digest(sha256: str | None) -> int:
    """64 bits of a hash of a file, 0 where there is none."""
    return 0 if sha256 is None else int(sha256[:16], 16)


class KnownKeys:
    """
    Keys, each with the captioners that have a record of it, 64 bits of the hash of its image, and the last pass over
    the data in which it was seen. The keys are kept as hashes of 128 bits in sorted arrays, new ones in
    a dictionary until they are some per cent.

    Example:

    ```python
    >>> from modeling_lotlip.captioning.known_keys import KnownKeys

    >>> known = KnownKeys()
    >>> known.add_record("llava", "1.jpg", None)
    >>> known.is_done("1.jpg", "llava"), known.is_done("1.jpg", "blip"), known.count("llava")
    (True, False, 1)
    >>> known.meet("1.jpg", turn=1), known.meet("1.jpg", turn=1), known.meet("1.jpg", turn=2)
    (True, False, True)
    ```"""

    def __init__(self):
        self.captioners: list[str] = []
        self.columns = {name: np.empty(0, dtype) for name, dtype in TYPES.items()}
        self.recent: dict[tuple[int, int], dict] = {}

    def __len__(self) -> int:
        return len(self.columns["high"]) + len(self.recent)

    def get_bit(self, captioner: str) -> int:
        """
        Raises:
            `ValueError`: if there are more than 64 captioners.
        """
        if captioner not in self.captioners:
            if len(self.captioners) == 64:
                raise ValueError(f"Captions of more than 64 captioners, {captioner!r} for one: name another folder.")
            self.captioners.append(captioner)
        return 1 << self.captioners.index(captioner)

    def add_record(self, captioner: str, key: str, sha256: str | None) -> None:
        """Notes a record by a captioner, with the hash of the image."""
        place = self.find(key, is_added=True)
        self.set(place, "done", self.get(place, "done") | self.get_bit(captioner))
        self.set(place, "digest", shorten_digest(sha256))

    def find(self, key: str, is_added: bool = False) -> Place | None:
        """Where a key is; None where it is not, unless it is then added."""
        hashed = hash_key(key)
        if hashed in self.recent:
            return Place(-1, self.recent[hashed])
        high, low = self.columns["high"], self.columns["low"]
        row = int(high.searchsorted(np.uint64(hashed[0])))
        while row < len(high) and high[row] == hashed[0]:  # another key may share the first half
            if low[row] == hashed[1]:
                return Place(row, None)
            row += 1
        if not is_added:
            return None
        if len(self.recent) >= max(LEAST_RECENT, SHARE_OF_RECENT * len(high)):
            self.sort_in()
        self.recent[hashed] = {}
        return Place(-1, self.recent[hashed])

    def get(self, place: Place, name: str) -> int:
        return int(self.columns[name][place.row]) if place.recent is None else place.recent.get(name, 0)

    def set(self, place: Place, name: str, value: int) -> None:
        if place.recent is None:
            self.columns[name][place.row] = value
        else:
            place.recent[name] = value

    def sort_in(self) -> None:
        """Moves the recent keys to the sorted ones, one column after the other."""
        hashes = sorted(self.recent)
        rows = self.columns["high"].searchsorted(np.array([high for high, _ in hashes], np.uint64))
        for name, dtype in TYPES.items():
            if name in ("high", "low"):
                values = [hashed[name == "low"] for hashed in hashes]
            else:
                values = [self.recent[hashed].get(name, 0) for hashed in hashes]
            self.columns[name] = np.insert(self.columns[name], rows, np.array(values, dtype))
        self.recent = {}

    def is_done(self, key: str, captioner: str) -> bool:
        """Whether a key has a record by a captioner."""
        place = self.find(key)
        return place is not None and self.get(place, "done") & self.get_bit(captioner) != 0

    def count(self, captioner: str) -> int:
        """How many keys have a record by a captioner."""
        bit = self.get_bit(captioner)
        recent = sum(values.get("done", 0) & bit != 0 for values in self.recent.values())
        return int(np.count_nonzero(self.columns["done"] & np.uint64(bit))) + recent

    def meet(self, key: str, turn: int) -> bool:
        """Notes that a key was met in a turn, the first of which is 1; whether it is the first time in this turn."""
        place = self.find(key, is_added=True)
        if self.get(place, "turn") == turn:
            return False
        self.set(place, "turn", turn)
        return True

    def note_digest(self, key: str, sha256: str | None) -> None:
        """Notes the hash of the image of a key."""
        self.set(self.find(key, is_added=True), "digest", shorten_digest(sha256))

    def has_digest(self, key: str, sha256: str | None) -> bool:
        """Whether the image of a key has a hash."""
        place = self.find(key)
        return place is not None and self.get(place, "digest") == shorten_digest(sha256)
