# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Keys of images: paths in a folder, which are stored alike on every system."""

import os
import unicodedata


def to_key(path: str) -> str:
    """Writes a relative path as a key, with `/` between its parts, on Windows too."""
    return path.replace(os.sep, "/")


def join_key(source: str, key: str) -> str:
    """Joins a folder, or a URL, and a key to the path of a file, as the system writes it."""
    if "://" in source:
        return f"{source.rstrip('/')}/{key}"
    return os.path.join(source, key).replace("/", os.sep)


def list_spellings(name: str) -> list[str]:
    """
    Lists the forms in which a name may be stored that are the same to a reader: macOS writes an accented letter as two
    characters, a letter and an accent (NFD), other systems as one (NFC).
    """
    return sorted({name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)})
