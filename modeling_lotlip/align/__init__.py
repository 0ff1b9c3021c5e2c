# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Two frozen encoders joined as a model of the sentence-transformers library. `run.py` reads from top to bottom:
`towers.py` loads both and puts the model together, `features.py` computes what they make of a dataset, `heads.py`
trains on that, `card.py` writes.
"""

from collections.abc import Callable


def __getattr__(name: str) -> Callable:
    """Gives [`~modeling_lotlip.align.run.align`], which imports more than the arguments need, when it is asked for."""
    if name == "align":
        from .run import align

        return align
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["align"]
