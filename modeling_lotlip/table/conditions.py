# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Conditions in SQL, as a table takes them."""


def in_folder(folder: str) -> str:
    """Writes the condition of the images in a folder, and in all folders in it."""
    escaped = folder.replace("'", "''")
    return f"starts_with(key, '{escaped}/')"
