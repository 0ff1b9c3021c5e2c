# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a string must be to be read as a text."""

import unicodedata


def is_unicode(text: str) -> bool:
    """
    Returns whether a string is a Unicode text. One with half of a surrogate pair is none, and no tokenizer reads it:
    Python makes it of bytes that are in another encoding than the terminal's, and of `"\\ud83d"` in JSON.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_invisible(text: str) -> bool:
    """
    Returns whether no character of a text can be seen: there are none but white space, control codes and what Unicode
    calls format characters, such as zero-width spaces and byte-order marks, which no tokenizer reads.
    """
    return all(character.isspace() or unicodedata.category(character) in ("Cc", "Cf") for character in text)
