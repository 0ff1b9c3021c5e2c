# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""How a captioner is found by its name."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import CAPTIONERS, CaptionerArguments


if TYPE_CHECKING:
    from .endpoint import EndpointCaptioner
    from .local import LocalCaptioner


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

    model_id, revision = split_revision(name)
    return LocalCaptioner(model_id, revision, arguments)


def split_revision(name: str) -> tuple[str, str | None]:
    """Returns the Hub id or the folder of a captioner that runs here, and the revision of a Hub id if one is named."""
    if Path(name).is_dir():
        return name, None
    model_id, _, revision = name.partition("@")
    return CAPTIONERS.get(model_id, model_id), revision or None


def check_captioners(names: list[str], arguments: CaptionerArguments) -> None:
    """
    Raises a `ValueError` if a captioner that is to run here is not there: before the first one runs, for hours
    perhaps.
    """
    if arguments.endpoint is not None:
        return
    from .local import read_captioner_config

    for name in names:
        model_id, revision = split_revision(name)
        read_captioner_config(model_id, revision)
