# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a captioner answers, and how one is found by its name."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .arguments import CAPTIONERS, CaptionerArguments


if TYPE_CHECKING:
    from .endpoint import EndpointCaptioner
    from .local import LocalCaptioner


class Answer(NamedTuple):
    """
    Holds what a captioner says of an image, or why it says nothing.

    Args:
        caption (`str`, *optional*):
            What it says, None if it failed.
        num_tokens (`int`, *optional*, defaults to 0):
            The tokens of the caption by the captioner's tokenizer, None if that is not known.
        error (`str`, *optional*):
            Why there is no caption.
        is_cut_off (`bool`, *optional*, defaults to `False`):
            Whether the captioner was stopped at the maximum of tokens.
    """

    caption: str | None
    num_tokens: int | None = 0
    error: str | None = None
    is_cut_off: bool = False


def load_captioner(name: str, arguments: CaptionerArguments) -> "LocalCaptioner | EndpointCaptioner":
    """
    Loads a captioner.

    Args:
        name (`str`):
            One of `CAPTIONERS`, a Hub id (`ID@REVISION` for one of its revisions) or a folder of an image-text-to-text
            model; with `arguments.endpoint` the name of the model there.
        arguments (`CaptionerArguments`):
            How it runs and generates.

    Returns:
        `LocalCaptioner` or `EndpointCaptioner`: its method `answer` captions images.

    Raises:
        `ValueError`: if there is no such model, or it is no image-text-to-text model.
        `ImportError`: if it is on a server and openai is not installed.
    """
    if arguments.endpoint is not None:
        if importlib.util.find_spec("openai") is None:
            raise ImportError('`--endpoint` needs openai: `pip install "lotlip[endpoint]"`.')
        from .endpoint import EndpointCaptioner

        return EndpointCaptioner(name, arguments)
    from .local import LocalCaptioner

    if Path(name).is_dir():
        return LocalCaptioner(name, None, arguments)
    model_id, _, revision = name.partition("@")
    return LocalCaptioner(CAPTIONERS.get(model_id, model_id), revision or None, arguments)
