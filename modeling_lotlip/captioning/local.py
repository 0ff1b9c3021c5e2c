# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Captioners that run here: the image-text-to-text models of transformers, and those in the original LLaVA layout. Its
pipeline would not say which answers were cut off, nor batch the chats of models whose images differ in size.
"""

import json
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from accelerate import PartialState
from datasets.fingerprint import Hasher
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from ..data.images import UnreadableImageError, bound_aspect_ratio
from ..data.rows import batched
from ..encoder.batches import PREPROCESSING_ERRORS, prefetch
from ..encoder.hashes import hash_model, hash_processor
from ..encoder.loading import check_device, find_commit
from .answer import Answer
from .arguments import CAPTIONERS, CaptionerArguments
from .image_files import ImageFile
from .llava import is_original_llava, load_original_llava


logger = logging.getLogger(__name__)

PREFETCHED_BATCHES = 2


class Job(NamedTuple):
    """Holds images that the model captions at once, or one that it cannot caption, with the message."""

    files: list[ImageFile]
    inputs: BatchFeature | None
    error: str | None = None


def load_captioning_model(
    name: str, revision: str | None, dtype: torch.dtype, trust_remote_code: bool
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    Loads a captioner with the processor that it was saved with.

    Args:
        name (`str`):
            A Hub id or a folder.
        revision (`str`, *optional*):
            Of the model on the Hub.
        dtype (`torch.dtype`):
            Of the weights.
        trust_remote_code (`bool`):
            Whether code that comes with the model is run.

    Returns:
        `tuple[PreTrainedModel, ProcessorMixin]`: the model and its processor.

    Raises:
        `ValueError`: if there is none, it is no image-text-to-text model, or it has no chat template.
    """
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = read_captioner_config(name, revision)
    try:
        if is_original_llava(config):
            return load_original_llava(name, config, revision, dtype)
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, **options)
        processor = AutoProcessor.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise make_captioner_error(name, error) from error
    if not getattr(processor, "chat_template", None) and model.config.model_type != "instructblip":
        raise ValueError(
            f"`--captioner {name}` ({model.config.model_type}) has no chat template: save its "
            "processor with one, as `chat_template`."
        )
    return model, processor


def read_captioner_config(name: str, revision: str | None) -> dict:
    """Reads the `config.json` of a captioner, and nothing else of it. Raises a `ValueError` if there is none."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    except (OSError, ValueError) as error:
        raise make_captioner_error(name, error) from error
    return config


def make_captioner_error(name: str, error: Exception) -> ValueError:
    """Makes the error of a captioner that cannot be loaded."""
    return ValueError(
        f"`--captioner {name}` cannot be loaded. It must be one of {', '.join(CAPTIONERS)}, or a Hub "
        f"id or a folder of an image-text-to-text model: {error}"
    )


def list_generate_options(arguments: CaptionerArguments) -> dict:
    """Lists what `generate` is called with."""
    options = {
        "max_new_tokens": arguments.max_new_tokens,
        "num_beams": arguments.num_beams,
        "repetition_penalty": arguments.repetition_penalty,
    }
    if arguments.temperature:
        options["temperature"] = arguments.temperature
        options["top_p"] = arguments.top_p
    options = {name: value for name, value in options.items() if value is not None}
    options["do_sample"] = bool(arguments.temperature)
    return options


def list_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int | None]:
    """Lists the ids of tokens that end an answer, or pad it after its end."""
    end_ids = {model.generation_config.pad_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    eos_token_id = model.generation_config.eos_token_id
    if isinstance(eos_token_id, list):
        end_ids.update(eos_token_id)
    else:
        end_ids.add(eos_token_id)
    return end_ids


def hash_captioner(model: PreTrainedModel, processor: ProcessorMixin) -> str:
    """Returns a hash of what answers depend on: the model, how it generates by default, and its processor."""
    generation = model.generation_config.to_diff_dict()
    generation.pop("transformers_version", None)
    return Hasher.hash([hash_model(model), json.dumps(generation, sort_keys=True), hash_processor(processor)])


class LocalCaptioner:
    """
    Captions batches of images by a model of transformers.

    Args:
        name (`str`):
            The Hub id or folder of the model.
        revision (`str`, *optional*):
            Of the model on the Hub.
        arguments (`CaptionerArguments`, *optional*):
            How it runs and generates.

    Raises:
        `ValueError`: if there is no such model, or it has no chat template.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        arguments: CaptionerArguments | None = None,
    ):
        self.arguments = arguments or CaptionerArguments()
        check_device(self.arguments.device)
        device = torch.device(self.arguments.device or PartialState().device)
        dtype = self.arguments.dtype
        if dtype is None:
            dtype = "float32" if device.type == "cpu" else "bfloat16"
        if device.type == "cpu" and name in CAPTIONERS.values():
            logger.warning(
                f"{name} has 7 billion parameters, and there is no GPU: an image takes minutes, and "
                "memory of 28 GB. Name a smaller model, or a server with --endpoint."
            )
        trust_remote_code = self.arguments.trust_remote_code
        model, self.processor = load_captioning_model(name, revision, getattr(torch, dtype), trust_remote_code)
        self.model = model.to(device).eval()
        self.revision = find_commit(name, revision) or revision
        if self.revision is None:  # a folder, where other files may come
            self.revision = hash_captioner(self.model, self.processor)
        self.generate_options = list_generate_options(self.arguments)
        self.settings = {**self.generate_options, "dtype": dtype}
        tokenizer = self.processor.tokenizer
        self.is_encoder_decoder = getattr(model.config.get_text_config(), "is_encoder_decoder", False)
        # an answer follows its prompt; an encoder counts its positions from the first one
        tokenizer.padding_side = "right" if self.is_encoder_decoder else "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.end_ids = list_end_ids(model, tokenizer)

    def answer(
        self,
        files: Iterator[ImageFile],
        is_stopped: Callable[[], bool],
    ) -> Iterator[list[tuple[ImageFile, Answer]]]:
        """Captions images, each with its prompt, until `is_stopped`: what a batch has begun is finished."""
        for job in prefetch(self.make_jobs(files), depth=PREFETCHED_BATCHES):
            if job.inputs is None:
                yield [(job.files[0], Answer(None, error=job.error))]
            else:
                yield list(zip(job.files, self.generate(job.inputs)))
            if is_stopped():
                return

    def make_jobs(self, files: Iterator[ImageFile]) -> Iterator[Job]:
        """Makes batches of images with prompts; an image that the processor refuses is a job of its own."""
        image_processor = getattr(self.processor, "image_processor", None)
        for batch in batched(files, self.arguments.batch_size):
            good = []
            images = []
            for file in batch:
                try:
                    images.append(bound_aspect_ratio(file.decode(), image_processor))
                    good.append(file)
                except UnreadableImageError as error:
                    yield Job([file], None, str(error))
            if not good:
                continue
            try:
                yield Job(good, self.make_inputs([file.prompt for file in good], images))
            except PREPROCESSING_ERRORS:
                for file, image in zip(good, images):
                    try:
                        yield Job([file], self.make_inputs([file.prompt], [image]))
                    except PREPROCESSING_ERRORS as error:
                        yield Job([file], None, f"the processor refuses it: {str(error) or type(error).__name__}")

    def make_inputs(self, prompts: list[str], images: list[Image.Image]) -> BatchFeature:
        """Makes what the model is given of images and prompts: `input_ids` (batch, length), images in its own form."""
        if not getattr(self.processor, "chat_template", None):
            return self.processor(images=images, text=prompts, padding=True, return_tensors="pt")
        conversations = []
        for image, prompt in zip(images, prompts):
            content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
            conversations.append([{"role": "user", "content": content}])
        return self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )

    @torch.inference_mode()
    def generate(self, inputs: BatchFeature) -> list[Answer]:
        """Generates the answers for one batch."""
        inputs = inputs.to(self.model.device, self.model.dtype)
        tokens = self.model.generate(**inputs, **self.generate_options)
        if not self.is_encoder_decoder:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        tokenizer = self.processor.tokenizer
        # what ended before the longest answer was padded
        has_end = [token in self.end_ids for token in tokens[:, -1].tolist()]
        is_full = tokens.shape[1] >= self.arguments.max_new_tokens
        texts = [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        answers = []
        for text, ids, ended in zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], has_end):
            answers.append(Answer(text, len(ids), is_cut_off=is_full and not ended))
        return answers
