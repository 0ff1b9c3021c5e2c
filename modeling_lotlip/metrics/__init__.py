# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Metrics of image-text retrieval. `evaluate.load(IMAGE_TEXT_RETRIEVAL)` loads the metric from its folder. May import
nothing of the package; evaluation uses them. `evaluate` is imported when one of the names is first used, not before.
"""

import importlib
from pathlib import Path
from typing import Any


# The metric's folder
IMAGE_TEXT_RETRIEVAL = str(Path(__file__).parent / "image_text_retrieval")

__all__ = [
    "IMAGE_TEXT_RETRIEVAL",
    "TOLERANCE",
    "ImageTextRetrieval",
    "RetrievalRanks",
    "check_finite",
    "metrics_of_ranks",
    "retrieval_metrics",
    "retrieval_ranks",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(".image_text_retrieval.image_text_retrieval", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
