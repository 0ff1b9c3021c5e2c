# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Joins two towers, from the data to the saved model: see [`align_towers`]."""

import logging
import time

import torch
from datasets import Dataset

from ..data.loading import load_slices
from ..data.reader import RowReader
from ..data.repeated_images import warn_of_repeated_images
from ..data.slices import count_shared_rows
from ..encoder.loading import check_device, find_saved_truncate_dim
from ..encoder.preprocessing import warn_of_unknown
from ..evaluation.retrieval import (
    EmbeddedCaptions,
    EmbeddedDataset,
    measure_retrieval,
    warn_of_missing_captions,
)
from ..hub import SENTENCE_TRANSFORMERS_CONFIG
from ..modeling_aligned_lotlip import LotlipAlignedModel
from ..utils.output_folder import OutputFolder
from ..utils.processes import check_single_process, join_processes
from .arguments import AlignArguments
from .features import MODALITIES, FeatureComputer, Features, find_features_dir
from .heads import Heads, HeadSettings, TrainedHeads, train_heads
from .outputs import check_model_dir, describe_alignment, save_aligned
from .towers import (
    ImageTower,
    TextTower,
    join_towers,
    load_image_tower,
    load_text_tower,
    make_processor,
    refer_to,
)


logger = logging.getLogger(__name__)

# Fewer images than these teach heads little
FEW_ROWS = 50


def align_towers(args: AlignArguments) -> dict[str, float]:
    """
    Joins two towers by heads, and saves the model in `args.output_dir`.

    Args:
        args ([`AlignArguments`]): What `lotlip align` takes.

    Returns:
        `dict[str, float]`: the results on `eval_split`: see [`measure_retrieval`].

    Raises:
        `ValueError`: if a tower or the data cannot be used.
    """
    check_device(args.device)
    check_single_process("align", join_processes(args.device))
    check_model_dir(args)
    with OutputFolder(args.output_dir, content="an aligned model"):
        check_model_dir(args)  # another run may have ended there meanwhile
        return align_and_save(args)


def align_and_save(args: AlignArguments) -> dict[str, float]:
    """Joins two towers in a folder that no other run writes to: see [`align_towers`]."""
    state = join_processes(args.device)
    device = state.device if args.device is None else torch.device(args.device)
    dataset, evaluation_data, num_shared = load_splits(args)
    reader = RowReader.of(dataset, args, args, args.image_column)
    reader.report_keys(dataset, "training images")
    evaluation_reader = RowReader.of(evaluation_data, args, args, args.image_column)
    evaluation_reader.report_keys(evaluation_data, "evaluation images")
    text_tower = load_text_tower(
        args.text_model_name_or_path, args.text_pooling, args.max_length, args.text_prompt, device
    )
    image_tower = load_image_tower(args.vision_model_name_or_path, args.image_pooling, device)
    reference = None
    if args.towers == "reference":
        reference = refer_to(text_tower, image_tower)
    args.text_pooling = text_tower.pooling
    args.text_prompt = text_tower.prompt or None
    args.image_pooling = image_tower.pooling
    args.max_length = text_tower.tokenizer.model_max_length
    computer = FeatureComputer(
        text_tower,
        image_tower,
        args.features_dir or find_features_dir(),
        batch_size=args.batch_size,
        num_workers=args.dataloader_num_workers,
    )
    # first, since it is the smaller one: what is wrong with it is said before the features of all others are computed
    evaluation_features = computer.compute(evaluation_data, evaluation_reader, ("short", "long"), what="evaluation")
    check_kept_dimensions(args, evaluation_features)
    counts = evaluation_features.counts
    num_unknown = counts["unknown_captions"]
    warn_of_unknown(num_unknown, counts["num_captions"], text_tower.tokenizer, text_tower.name)
    features = computer.compute(dataset, reader, args.captions)
    warn_of_counts(features, args.max_length)
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
    model = join(text_tower, image_tower, features, trained_heads, args)
    model.config.towers = reference
    processor = make_processor(text_tower, image_tower)
    settings = describe_alignment(args, features, trained_heads)
    if num_shared > 0:
        settings["evaluated_rows_that_were_trained_on"] = num_shared
    save_aligned(args, model, processor, (text_tower, image_tower), settings, results)
    return results


def check_kept_dimensions(args: AlignArguments, features: Features) -> None:
    """
    Raises a `ValueError` if the side that is kept cuts its embeddings, as sentence-transformers saves that: the model
    would have all dimensions of its features, and stored embeddings fewer.
    """
    kept = {
        "text": (args.text_model_name_or_path, features.texts),
        "image": (args.vision_model_name_or_path, features.images),
    }
    if args.keep is None:
        return
    name, whole = kept[args.keep]
    num_dims = find_saved_truncate_dim(name)
    if num_dims is not None and num_dims < whole.shape[1]:
        raise ValueError(
            f"`--keep {args.keep}` would not keep the embeddings of {name}, which are cut to {num_dims} of "
            f"{whole.shape[1]} dimensions: take `truncate_dim` out of its {SENTENCE_TRANSFORMERS_CONFIG} and embed "
            "anew, or leave out --keep."
        )


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
            num_unknown=int(features.is_unknown[texts].sum()),
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
    if counts["unknown_captions"] > 0:
        logger.warning(
            f"{counts['unknown_captions']} of {counts['num_captions']} captions hold no word that "
            "the text model knows: no heads can learn from them. Name one whose tokenizer knows "
            "their language."
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


def join(
    text_tower: TextTower,
    image_tower: ImageTower,
    features: Features,
    trained_heads: TrainedHeads,
    args: AlignArguments,
) -> LotlipAlignedModel:
    """
    Returns the model of two towers with heads that are trained.

    Args:
        text_tower ([`TextTower`]): The text tower.
        image_tower ([`ImageTower`]): The image tower.
        features ([`Features`]): What the heads were trained on.
        trained_heads ([`TrainedHeads`]): The heads.
        args ([`AlignArguments`]): How they were made.
    """
    text_dim = features.texts.shape[1]
    image_dim = features.images.shape[1]
    projection_dims = {None: args.projection_dim, "text": text_dim, "image": image_dim}
    model = join_towers(
        text_tower,
        image_tower,
        text_dim,
        image_dim,
        text_head="none" if args.keep == "text" else args.head,
        image_head="none" if args.keep == "image" else args.head,
        head_dropout=args.dropout,
        projection_dim=projection_dims[args.keep],
    )
    model.text_head.load_state_dict(trained_heads.heads.text_head.state_dict())
    model.image_head.load_state_dict(trained_heads.heads.image_head.state_dict())
    with torch.no_grad():
        model.logit_scale.copy_(trained_heads.heads.logit_scale)
    return model
