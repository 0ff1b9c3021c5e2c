# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a string must be to be read as a text."""


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
