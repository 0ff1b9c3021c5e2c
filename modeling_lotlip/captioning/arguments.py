# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments of captioners, of the rules for what they write, and of the filter."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..encoder.arguments import AUTO
from ..utils.arguments import DTYPES, Arguments, argument, refuse_given
from ..utils.plugins import load_plugin
from .rules import RULES


# The paper's captioners, by name: models of transformers
CAPTIONERS = {
    "instructblip": "Salesforce/instructblip-vicuna-7b",
    "llava": "llava-hf/llava-1.5-7b-hf",
    "llava-next": "llava-hf/llava-v1.6-mistral-7b-hf",
    "sharegpt4v": "Lin-Chen/ShareGPT4V-7B",
}


@dataclass
class CaptionerArguments(Arguments):
    """
    How captioners run and generate: on this machine, or on a server.

    Example:

    ```python
    >>> from modeling_lotlip.captioning.arguments import CaptionerArguments

    >>> CaptionerArguments(temperature=0.7).num_beams
    1
    ```"""

    _argument_group_name = "captioners"

    seed: int = argument(0, "The random seed of prompts and sampling.", compared_on_resume=True)
    max_new_tokens: int = argument(
        512,
        "Max tokens in a caption.",
        least=1,
        compared_on_resume=True,
    )
    num_beams: int = argument(
        1, "Search with this many beams.", least=1, excludes=("endpoint",), compared_on_resume=True
    )
    temperature: float | None = argument(
        None,
        "Sample with this temperature. Default, and 0: no sampling.",
        least=0,
        compared_on_resume=True,
    )
    top_p: float | None = argument(
        None,
        "Sample among the likeliest tokens whose probabilities add up to this.",
        requires="temperature",
        compared_on_resume=True,
    )
    repetition_penalty: float | None = argument(
        None,
        "Values above 1 discourage repetition.",
        compared_on_resume=True,
    )
    batch_size: int = argument(8, "Images in a batch, for each process.", least=1, excludes=("endpoint",))
    dtype: str | None = argument(
        None,
        "The precision of the computation. Default, and auto: bfloat16, on a CPU float32.",
        choices=(*DTYPES, AUTO),
        excludes=("endpoint",),
        compared_on_resume=True,
    )
    device: str | None = argument(
        None,
        "The device, as `cpu` or `cuda:0`. Default: an accelerator if there is one.",
    )
    trust_remote_code: bool = argument(False, "Run the code that comes with the model.", excludes=("endpoint",))
    plugin: list[Path] = argument([], "Python files of your own that register models.", metavar="FILE")
    endpoint: str | None = argument(
        None, "The URL of an OpenAI-compatible server, up to /v1; its key is read from OPENAI_API_KEY."
    )
    concurrency: int = argument(
        32,
        "Requests at a time, for each process.",
        least=1,
        requires="endpoint",
    )
    timeout: float = argument(
        120.0,
        "Seconds to wait for a whole answer.",
        least=0,
        requires="endpoint",
    )
    max_retries: int = argument(
        6,
        "How often a failed request is sent again.",
        least=0,
        requires="endpoint",
    )
    max_image_size: int | None = argument(
        None,
        "Send images with at most N pixels on a side.",
        least=1,
        requires="endpoint",
        compared_on_resume=True,
    )

    def __post_init__(self):
        for path in self.plugin:
            load_plugin(path)
        super().__post_init__()
        if not self.temperature:
            refuse_given(self, ("top_p",), "with --temperature 0")
        self.dtype = DTYPES.get(self.dtype)
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"--endpoint {self.endpoint} must begin with http:// or https://.")


@dataclass
class RuleArguments(Arguments):
    """The rules that captions go through."""

    _argument_group_name = "rules"
    _argument_group_description = "\n".join(f"{name}: {help}" for name, help in RULES.items())

    without_rules: list[str] = argument(
        [], "Rules to leave out, or `all`.", choices=(*RULES, "all"), compared_on_resume=True
    )
    min_words: int = argument(
        5,
        "Min words of a caption (rule `too_short`).",
        least=1,
        compared_on_resume=True,
    )
    max_words: int = argument(
        500,
        "Max words of a caption (rule `too_long`).",
        least=1,
        compared_on_resume=True,
    )

    @property
    def rules(self) -> list[str]:
        """The names of the rules that apply."""
        return [name for name in RULES if not {name, "all"} & {*self.without_rules}]

    def __post_init__(self):
        super().__post_init__()
        case = f"with --without_rules {' '.join(self.without_rules)}"
        for rule, name in (("too_short", "min_words"), ("too_long", "max_words")):
            if rule not in self.rules:
                refuse_given(self, (name,), case)


@dataclass
class RecaptionArguments(Arguments):
    """What describes images, what it is asked, and where the captions go."""

    captioner: list[str] = argument(
        help=f"{', '.join(CAPTIONERS)}, a Hub id (`ID@REVISION` for one of its revisions) or a folder of an "
        "image-text-to-text model, or with --endpoint the name of the model there. One or several."
    )
    output_dir: Path = argument(help="The folder of the parquet files.")
    key_column: str | None = argument(
        None,
        "The column of the images' keys, such as `json.url` of shards. The image column itself: the SHA-256 of the "
        "image file. Default: `__key__` of shards, else the path of the image, else its SHA-256.",
        compared_on_resume=True,
    )
    prompt: list[str] | None = argument(
        None, "The prompt; of several one is sampled for each image.", excludes=("prompts_file",)
    )
    prompts_file: Path | None = argument(
        None,
        "A file of prompts, one in each line, instead of --prompt. Default: eight that come with LoTLIP.",
    )
    shard_size: int = argument(
        200_000,
        "Captions in each file: some 100 MB.",
        least=1,
        compared_on_resume=True,
    )
    retry_failed: bool = argument(False, "Try again the images on which earlier runs failed.")

    def __post_init__(self):
        super().__post_init__()
        for index, name in enumerate(self.captioner):
            if os.path.isdir(name):  # `captioner/` and `./captioner` are one
                self.captioner[index] = str(Path(name))
        if len(set(self.captioner)) < len(self.captioner):
            raise ValueError(f"`--captioner` is given twice: {' '.join(self.captioner)}.")


@dataclass
class FilterArguments(Arguments):
    """The files of captions, and where the filtered ones go."""

    captions: list[str] = argument(help="Parquet files of captions, or patterns of their names.")
    output_dir: Path = argument(help="The folder of the filtered files.")
    caption_column: str = argument("caption", "The column of captions in --captions.")
    file_key_column: str = argument("key", "The column of the images' keys in --captions.")


@dataclass
class SimilarityArguments(Arguments):
    """How captions are compared with the images of the data arguments."""

    _argument_group_name = "images and captions"

    dual_encoder: str | None = argument(None, "The model that compares captions with their images.")
    key_column: str | None = argument(
        None,
        "The column of the images' keys. The image column itself: the SHA-256 of the image file. Default: the name of "
        "--file_key_column.",
        requires="dual_encoder",
    )
    min_image_text_similarity: float | None = argument(
        None,
        "Reject captions less similar to their image (rule `image_text_similarity`).",
        requires="dual_encoder",
    )
    reject_unmeasured: bool = argument(
        False,
        "Reject captions whose image is not among those that were read, or cannot be read.",
        requires="min_image_text_similarity",
    )
