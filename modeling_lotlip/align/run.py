# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Joins two encoders: from Python by [`align`], from the data to the saved model by [`align_and_save`]."""

import logging
import time
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from ..data.arguments import CaptionArguments
from ..data.loading import load_slices
from ..data.reader import RowReader
from ..data.repeated_images import warn_of_repeated_images
from ..data.slices import count_shared_rows
from ..encoder.loading import check_device
from ..evaluation.retrieval import (
    EmbeddedCaptions,
    EmbeddedDataset,
    measure_retrieval,
    warn_of_missing_captions,
)
from ..utils.output_folder import OutputFolder
from ..utils.processes import check_single_process, join_processes
from .arguments import AlignArguments
from .card import check_model_dir, describe_alignment, save_aligned
from .features import MODALITIES, FeatureComputer, Features
from .heads import Heads, HeadSettings, train_heads
from .towers import join_models, load_text_model, load_vision_model


logger = logging.getLogger(__name__)

# Fewer images than these teach heads little
FEW_ROWS = 50


def align(  # noqa: PLR0913, what `lotlip align` takes
    text_model: SentenceTransformer | str,
    vision_model: SentenceTransformer | str,
    dataset: Dataset,
    image_column: str = "image",
    caption_column: str = "caption",
    long_captions_column: str = "long_captions",
    features_dir: Path | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    **head_settings: object,
) -> SentenceTransformer:
    """
    Joins a text encoder and an image encoder that were trained apart, by heads that are trained on captioned images.

    Args:
        text_model (`SentenceTransformer` or `str`):
            The text encoder, or its name: a Hub id or a folder.
        vision_model (`SentenceTransformer` or `str`):
            The image encoder, or its name, also of one of transformers.
        dataset (`Dataset`):
            Images and captions.
        image_column (`str`, *optional*, defaults to `"image"`):
            The column of images.
        caption_column (`str`, *optional*, defaults to `"caption"`):
            The column of short captions: texts or lists of texts.
        long_captions_column (`str`, *optional*, defaults to `"long_captions"`):
            The column of long captions. One of both columns may be missing.
        features_dir (`Path`, *optional*):
            Where features of images and texts are kept for later calls. Default: in the Hub's cache.
        batch_size (`int`, *optional*, defaults to 32):
            Images or texts in a batch of the encoders.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that decode images.
        head_settings (`object`):
            Fields of [`~modeling_lotlip.align.heads.HeadSettings`], such as `head="mlp"` or `keep="text"`.

    Returns:
        `SentenceTransformer`: a model of texts and images, which shares the modules of both encoders.

    Raises:
        `ValueError`: if an encoder or the data cannot be used.

    Example:

    ```python
    >>> from datasets import load_dataset
    >>> from modeling_lotlip.align import align

    >>> photos = load_dataset("imagefolder", data_dir="my_photos", split="train")  # doctest: +SKIP
    >>> model = align("sentence-transformers/all-MiniLM-L6-v2", "facebook/dinov2-small", photos)  # doctest: +SKIP
    >>> model.save_pretrained("outputs/aligned")  # doctest: +SKIP
    ```"""
    if isinstance(text_model, str):
        text_model = load_text_model(text_model)
    if isinstance(vision_model, str):
        vision_model = load_vision_model(vision_model)
    captions = CaptionArguments(caption_column=caption_column, long_captions_column=long_captions_column)
    reader = RowReader.of(dataset, captions, image_column=image_column)
    computer = FeatureComputer(text_model, vision_model, features_dir, batch_size, num_workers)
    settings = HeadSettings(**head_settings)
    features = computer.compute(dataset, reader, settings.captions)
    warn_of_counts(features, text_model.max_seq_length)
    heads = train_heads(features, settings, text_model.device).heads
    return join_models(text_model, vision_model, heads.to_dense("text"), heads.to_dense("image"))


def align_and_save(args: AlignArguments) -> dict[str, float]:
    """
    Joins two encoders by heads, and saves the model in `args.output_dir`.

    Args:
        args ([`AlignArguments`]): What `lotlip align` takes.

    Returns:
        `dict[str, float]`: the results on `eval_split`: see [`measure_retrieval`].

    Raises:
        `ValueError`: if an encoder or the data cannot be used.
    """
    check_device(args.device)
    state = join_processes(args.device)
    check_single_process("align", state)
    check_model_dir(args)
    device = str(args.device or state.device)
    with OutputFolder(args.output_dir, content="an aligned model"):
        check_model_dir(args)  # another run may have ended there meanwhile
        dataset, evaluation_data, num_shared = load_splits(args)
        reader = RowReader.of(dataset, args, args, args.image_column)
        reader.report_keys(dataset, "training images")
        evaluation_reader = RowReader.of(evaluation_data, args, args, args.image_column)
        evaluation_reader.report_keys(evaluation_data, "evaluation images")
        text_model = load_text_model(args.text_model_name_or_path, args.max_length, args.text_prompt, device)
        vision_model = load_vision_model(args.vision_model_name_or_path, device)
        computer = FeatureComputer(
            text_model, vision_model, args.features_dir, args.batch_size, args.dataloader_num_workers
        )
        # first, since it is the smaller one: what is wrong with it is said before the features of all others
        evaluation_features = computer.compute(
            evaluation_data, evaluation_reader, ("short", "long"), what="evaluation"
        )
        features = computer.compute(dataset, reader, args.captions)
        warn_of_counts(features, text_model.max_seq_length)
        start = time.perf_counter()
        if args.num_train_epochs is None:
            logger.info("The number of epochs is chosen, on images held out of the training split.")
        trained_heads = train_heads(features, make_settings(args), device)
        seconds = time.perf_counter() - start
        logger.info(f"The heads were trained for {trained_heads.num_epochs} epochs, in {seconds:.1f} s.")
        embedded = embed_features(trained_heads.heads, evaluation_features)
        warn_of_missing_captions(evaluation_reader, embedded)
        # a drawn scene has the short caption of others
        results = measure_retrieval(embedded, distinct_short_captions=args.dataset_name is None)
        heads = trained_heads.heads
        model = join_models(text_model, vision_model, heads.to_dense("text"), heads.to_dense("image"))
        settings = describe_alignment(args, model, features, trained_heads)
        if num_shared > 0:
            settings["evaluated_rows_that_were_trained_on"] = num_shared
        save_aligned(args, model, settings, results)
    return results


def embed_features(heads: Heads, features: Features) -> EmbeddedDataset:
    """Returns what heads make of features, as `lotlip evaluate` measures it."""
    with torch.inference_mode():
        image_embeds = heads.embed("image", features.images)
        text_embeds = heads.embed("text", features.texts)
    captions = {}
    for code, modality in enumerate(MODALITIES):
        rows = features.captions[features.captions[:, 2] == code]
        if len(rows) == 0:
            continue
        texts = rows[:, 1]
        captions[modality] = EmbeddedCaptions(
            texts=[features.contents[text] for text in texts.tolist()],
            images=rows[:, 0],
            embeds=text_embeds[texts],
            num_truncated=int(features.is_truncated[texts].sum()),
        )
    num_unreadable = features.counts["unreadable_images"]
    return EmbeddedDataset(image_embeds, captions, [None] * len(image_embeds), num_unreadable)


def load_splits(args: AlignArguments) -> tuple[Dataset, Dataset, int]:
    """Returns the rows to train on and to evaluate, and how many are both, with a warning if there are any."""
    key_column = args.image_key_column
    dataset, slices = load_slices(
        args, args.train_split, args.max_train_samples, key_column=key_column, may_repeat=True
    )
    evaluation_data, evaluation_slices = load_slices(
        args, args.eval_split, args.max_eval_samples, key_column=key_column
    )
    num_shared = count_shared_rows(slices, evaluation_slices)
    if num_shared > 0:
        logger.warning(
            f"{num_shared} rows of `--eval_split {args.eval_split}` are trained on. Hold rows back, such as "
            '`--train_split "train[:90%]" --eval_split "train[90%:]" --split_seed 0`.'
        )
    warn_of_repeated_images(dataset, args.image_column, "training")
    warn_of_repeated_images(evaluation_data, args.image_column, "evaluation")
    return dataset, evaluation_data, num_shared


def warn_of_counts(features: Features, max_length: int) -> None:
    """Logs what of the training data was left out or cut off, and whether it is little."""
    counts = features.counts
    num_images = len(features.images)
    logger.info(f"{num_images} of {counts['rows']} rows are used.")
    if counts["unreadable_images"] > 0:
        logger.warning(f"{counts['unreadable_images']} of {counts['rows']} images cannot be read, and are left out.")
    if counts["images_without_caption"] > 0:
        logger.warning(f"{counts['images_without_caption']} images have no caption and are left out.")
    if counts.get("images_without_long_caption", 0) > 0:
        logger.warning(f"{counts['images_without_long_caption']} of {num_images} images have no long caption.")
    if counts["truncated_captions"] > 0:
        logger.warning(
            f"{counts['truncated_captions']} of {counts['num_captions']} captions are longer than "
            f"the {max_length} tokens that the text model reads, and are cut off."
        )
    if num_images < FEW_ROWS:
        logger.warning(
            f"{num_images} images are few: heads that saw fewer than {FEW_ROWS} find little beyond "
            "these. Caption more, some hundreds if you can."
        )


def make_settings(args: AlignArguments) -> HeadSettings:
    """Returns how heads are trained, of the arguments."""
    return HeadSettings(
        head=args.head,
        keep=args.keep,
        captions=tuple(args.captions),
        projection_dim=args.projection_dim,
        dropout=args.dropout,
        batch_size=args.per_device_train_batch_size,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        num_epochs=args.num_train_epochs,
        seed=args.seed,
    )
