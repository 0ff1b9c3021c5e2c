# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The options by which `datasets` reads files: a card next to them may set some (`sep`, `filters`, `drop_labels`), and so
do the endings of files.
"""

from typing import Any

from datasets import BuilderConfig, DatasetBuilder


def find_options(builder: DatasetBuilder) -> dict[str, Any]:
    """
    Finds the options of what reads files that are not the defaults, without those that say which files are read, and
    without the types of columns. Whoever makes another builder for the same files must give them to it.
    """
    defaults = builder.BUILDER_CONFIG_CLASS()
    others = {*vars(BuilderConfig()), "features"}
    options = {}
    for name, default in vars(defaults).items():
        value = getattr(builder.config, name)
        if name not in others and value != default:
            options[name] = value
    return options
