# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[sentence-transformers]"]
# ///
"""
Training and evaluation with sentence-transformers, of which a LoTLIP folder is a model.

    python examples/train_sentence_transformers.py --model outputs/demo --output_dir outputs/st
    python examples/train_sentence_transformers.py --model MODEL --output_dir OUT --dataset_name imagefolder \
        --data_dir FOLDER --caption_column "" --long_captions_column long_captions

Its loss is CLIP's, of one caption with each image: the corner tokens and `logit_scale` take no part in it, and of two
images with the same caption in a batch each is a negative of the other.
LoTLIP's own loss is in `train_lotlip.py` and `train_with_trainer.py`.
"""

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, Image
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

import modeling_lotlip  # noqa: F401 registers LoTLIP with the Auto classes
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments, TrainSplitArguments
from modeling_lotlip.data.collator import draw_captions, with_captions
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.hub_lotlip import find_pretrained
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse


# A single image is always found, and a tenth is held back
MIN_IMAGES = 11


@dataclass
class SentenceTransformersArguments(Arguments):
    """What is trained, and how."""

    model_name_or_path: str = argument(
        help="A LoTLIP model: a Hub id or a folder.",
        aliases=("--model",),
    )
    output_dir: Path = argument(
        help="Where the model goes, into a folder `model`, and the checkpoints.",
    )
    learning_rate: float = argument(1e-5, "The highest one, after the warm-up.")
    per_device_train_batch_size: int = argument(64, "Images of a process in a step.", least=2)
    num_train_epochs: float = argument(1.0, "Passes over the data.")
    max_steps: int = argument(-1, "Optimizer steps, instead of a number of epochs.")
    bf16: bool = argument(False, "Compute in bfloat16, on a GPU.")
    use_cpu: bool = argument(False, "Leave a GPU alone.")


def make_pairs(rows: Dataset, reader: RowReader) -> Dataset:
    """Returns the images, each with one caption, the same in every run: a short one, or a long one without."""
    generator = random.Random(0)
    rows = with_captions(rows, reader)
    captions = []
    for row in rows.select_columns(reader.text_columns):
        short_caption, long_caption = draw_captions(reader, row, generator)
        captions.append(short_caption or long_caption)
    images = rows.select_columns(reader.image_column)
    images = images.rename_columns({reader.image_column: "image"})
    # the loss takes the columns in this order
    return images.add_column("caption", captions).cast_column("image", Image())


def build_evaluator(pairs: Dataset) -> InformationRetrievalEvaluator:
    """Returns the evaluator in which captions look for their images: each once, for any image that has it."""
    images_of_caption = defaultdict(set)
    for index, caption in enumerate(pairs["caption"]):
        images_of_caption[caption].add(str(index))
    return InformationRetrievalEvaluator(
        queries={caption: caption for caption in images_of_caption},
        corpus={str(index): image for index, image in enumerate(pairs["image"])},
        relevant_docs=images_of_caption,
        name="text-to-image",
    )


def main() -> None:
    args, data, split, captions = parse(
        (SentenceTransformersArguments, SourceArguments, TrainSplitArguments, CaptionArguments),
        description=__doc__,
    )
    rows = load_split(data, split.train_split, split.max_train_samples)
    reader = RowReader(rows.column_names, captions, image_column=data.image_column)
    pairs = make_pairs(rows, reader)
    if len(pairs) < MIN_IMAGES:
        raise ValueError(
            f"{len(pairs)} images with captions are too few to evaluate on a tenth: give {MIN_IMAGES} or more."
        )
    pairs = pairs.train_test_split(test_size=0.1, seed=0)

    device = "cpu" if args.use_cpu else None
    model = SentenceTransformer(str(find_pretrained(args.model_name_or_path)), device=device)
    evaluator = build_evaluator(pairs["test"])
    arguments = SentenceTransformerTrainingArguments(
        args.output_dir,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.per_device_train_batch_size,
        num_train_epochs=args.num_train_epochs,
        max_steps=args.max_steps,
        bf16=args.bf16,
        use_cpu=args.use_cpu,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs["train"],
        loss=MultipleNegativesRankingLoss(model),
        evaluator=evaluator,
    )
    trainer.train()
    # how often one of its images is found; what it calls recall is the part of them that is
    recall = evaluator(model)["text-to-image_cosine_accuracy@10"]
    print(f"recall@10: {recall:.3f} of {len(pairs['test'])} images")
    model.save_pretrained(str(args.output_dir / "model"))


if __name__ == "__main__":
    with exit_on_error("train_sentence_transformers.py"):
        main()
