# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a captioner is, and which ones have a name: to add one, add a line to `CAPTIONERS`."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol


if TYPE_CHECKING:  # imports torch, and `--help` needs the names alone
    from .arguments import CaptionerArguments
    from .image_files import ImageFile


class Answer(NamedTuple):
    """What a captioner says of an image, or why it says nothing."""

    caption: str | None
    num_tokens: int | None = 0
    error: str | None = None
    is_cut_off: bool = False  # at the most tokens


class Captioner(Protocol):
    """
    A model that describes images.

    Attributes:
        revision (`str`, *optional*):
            Which version of the model it is, for the records.
        settings (`dict`):
            How it generates captions, for the records.
    """

    revision: str | None
    settings: dict

    def answer(
        self, files: Iterator["ImageFile"], is_stopped: Callable[[], bool]
    ) -> Iterator[tuple["ImageFile", Answer]]:
        """
        Captions images, in any order.

        Args:
            files (`Iterator[ImageFile]`):
                The images, each with its prompt. Reading one takes time.
            is_stopped (`Callable[[], bool]`):
                Whether the run is to end: then what is not finished is left out.
        """


# The captioners that have a name: a model of transformers by its Hub id, or what makes a captioner from its name and
# the arguments. These are the paper's.
CAPTIONERS: dict[str, "str | Callable[[str, CaptionerArguments], Captioner]"] = {
    "instructblip": "Salesforce/instructblip-vicuna-7b",
    "llava": "llava-hf/llava-1.5-7b-hf",
    "llava-next": "llava-hf/llava-v1.6-mistral-7b-hf",
    "sharegpt4v": "Lin-Chen/ShareGPT4V-7B",
}


def load_captioner(name: str, arguments: "CaptionerArguments") -> Captioner:
    """
    Loads a captioner.

    Args:
        name (`str`):
            One of `CAPTIONERS`, a Hub id (`ID@REVISION` for one of its revisions) or a folder of an image-text-to-text
            model; with `arguments.endpoint` the name of the model there.
        arguments (`CaptionerArguments`):
            How it runs and generates.

    Raises:
        `ValueError`: if there is no such model, or it is of another kind.
        `ImportError`: if it is behind a server and openai is not installed.
    """
    if arguments.endpoint is not None:
        if importlib.util.find_spec("openai") is None:
            raise ImportError('`--endpoint` needs openai: `pip install "lotlip[endpoint]"`.')
        from .endpoint import EndpointCaptioner

        return EndpointCaptioner(name, arguments)
    model_id, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
    known = CAPTIONERS.get(model_id, model_id)
    if not isinstance(known, str):
        return known(name, arguments)
    from .local import LocalCaptioner

    return LocalCaptioner(known, revision or None, arguments)
