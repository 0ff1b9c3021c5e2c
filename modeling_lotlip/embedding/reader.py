# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Reads the rows of a table of embeddings: [`TableReader`]. Processes that decode import it, so it imports little.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime

from ..data.images import IMAGE_ERRORS, open_image, read_date, read_file
from ..data.reader import Item, RowInfo, RowReader


ORIENTATION = 0x0112  # the tag of EXIF that says how an image is turned


class TableReader(RowReader):
    """Reads rows that are known by a [`RowInfo`], whose `about` is extended by what [`describe_file`] says."""

    def __call__(self, info: RowInfo, row: dict) -> Iterator[Item]:
        about = dict(info.about or {})
        if self.image_column is not None:
            content = read_file(row[self.image_column])
            row = {**row, self.image_column: {"bytes": content, "path": None}}
            about |= describe_file(content)
        for item in super().__call__(info.number, row):
            yield item._replace(row=info._replace(about=about))


def describe_file(content: bytes) -> dict[str, str | int | datetime | None]:
    """What a table stores of an image's file: its `hash`; `width`, `height` and when it was `taken` if it says so."""
    facts = {"hash": hashlib.blake2b(content, digest_size=16).hexdigest()}
    try:
        image = open_image(content)
        exif = image.getexif()
        is_turned = exif.get(ORIENTATION) in (5, 6, 7, 8)
        facts["width"], facts["height"] = image.size[::-1] if is_turned else image.size
        facts["taken"] = read_date(exif)
    except IMAGE_ERRORS:
        pass
    return facts
