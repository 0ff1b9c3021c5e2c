# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Zero-shot classification of a data set: every class is embedded once, from its name in one or several prompt templates.

    python examples/zero_shot_classification.py --model_name_or_path outputs/demo
    python examples/zero_shot_classification.py --model_name_or_path MODEL --dataset_name imagefolder --data_dir FOLDER
    python examples/zero_shot_classification.py --model_name_or_path MODEL --benchmark imagenet --data_dir FOLDER
"""

import argparse
import logging
from collections import Counter
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import ClassLabel, Dataset, IterableDataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from ..data.arguments import HelpFormatter, add_data_arguments
from ..data.images import read_images, undecoded
from ..data.loading import get_columns, leave_signals_to_the_main_process, load_split, split_by_process
from ..data.published import get_benchmark, load_benchmark
from ..embedding.arguments import add_evaluation_arguments
from ..embedding.batches import embed_images, embed_texts, tokenize
from ..embedding.models import load_model
from ..embedding.token_wise import is_token_wise, pad_and_concatenate, similarity_blocks_of_tokens
from ..files import write_json
from .retrieval import describe_run


logger = logging.getLogger(__name__)


def read_class_names(args: argparse.Namespace, label_feature) -> list[str]:
    """
    The names of the classes: from the command line, from a file with a name on each line, or from the data set.

    Raises:
        `ValueError`: if there are none, a name stands there twice, or the data set has another number of classes.
    """
    if args.class_names is not None:
        class_names = args.class_names
    elif args.class_names_file is not None:
        lines = args.class_names_file.read_text(encoding="utf-8").splitlines()
        class_names = [line.strip() for line in lines if line.strip()]
    elif isinstance(label_feature, ClassLabel):
        class_names = [name.replace("_", " ") for name in label_feature.names]
    else:
        raise ValueError(
            f"The column {args.label_column!r} does not name its classes. Name them with `--class_names` or "
            "`--class_names_file`."
        )
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        raise ValueError(f"Class names must differ, but {repeated} are there more than once.")
    if isinstance(label_feature, ClassLabel) and len(class_names) != label_feature.num_classes:
        raise ValueError(
            f"{len(class_names)} class names were given with `--class_names` or `--class_names_file`, but the data "
            f"set has {label_feature.num_classes} classes: name each, in the order of {label_feature.names[:5]}..."
        )
    return class_names


def class_index(label: int | str, class_names: list[str]) -> int:
    """
    The class of a label, an index or a name.

    Raises:
        `ValueError`: if there is no such class.
    """
    if isinstance(label, str) and label in class_names:
        return class_names.index(label)
    if isinstance(label, int) and 0 <= label < len(class_names):
        return label
    raise ValueError(f"The label {label!r} is none of the {len(class_names)} classes: {class_names[:10]}...")


def embed_classes(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    class_names: list[str],
    templates: list[str],
    batch_size: int,
    max_length: int | None = None,
) -> torch.Tensor:
    """
    Class embeddings (classes, dim): the mean of the normalised embeddings of a name in each template, normalised again
    (Radford et al., 2021, https://arxiv.org/abs/2103.00020, section 3.1.4). Of a model that compares tokens they are
    those of all tokens in each template, (classes, templates, length, dim).
    """
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    embeds = [
        embed_texts(model, tokenize(processor, prompts[start : start + batch_size], max_length))
        for start in range(0, len(prompts), batch_size)
    ]
    if is_token_wise(model):
        return pad_and_concatenate(embeds).unflatten(0, (len(class_names), len(templates)))
    embeds = torch.cat(embeds).unflatten(0, (len(class_names), len(templates))).mean(dim=1)
    return torch.nn.functional.normalize(embeds, dim=-1)


def summarize(predictions: torch.Tensor, labels: torch.Tensor, class_names: list[str], num_pairs: int = 10) -> dict:
    """
    Accuracies in per cent and the pairs of classes confused most.

    Args:
        predictions (`torch.Tensor` of shape `(images, k)`):
            The most similar classes, best first.
        labels (`torch.Tensor` of shape `(images,)`):
            The true classes.
        class_names (`list[str]`):
            The names of the classes.
        num_pairs (`int`, *optional*, defaults to 10):
            How many pairs to list.
    """
    is_hit = predictions == labels[:, None]
    wrong = [pair for pair in zip(labels.tolist(), predictions[:, 0].tolist()) if pair[0] != pair[1]]
    return {
        "num_images": len(labels),
        "num_classes": len(class_names),
        "top1": 100 * is_hit[:, 0].float().mean().item(),
        "top5": 100 * is_hit[:, :5].any(dim=-1).float().mean().item(),
        "most_confused": [
            {"class": class_names[label], "taken_for": class_names[prediction], "count": count}
            for (label, prediction), count in Counter(wrong).most_common(num_pairs)
        ],
    }


def similarities_with_classes(image_embeds: torch.Tensor, class_embeds: torch.Tensor) -> torch.Tensor:
    """Similarities (images, classes) of embeddings, or by late interaction of those of all tokens."""
    if class_embeds.dim() == 2:
        return image_embeds @ class_embeds.t()
    blocks = similarity_blocks_of_tokens(image_embeds, class_embeds.flatten(0, 1))
    image_to_text = torch.cat([similarities for _, similarities, _ in blocks])
    return image_to_text.unflatten(0, class_embeds.shape[:2]).mean(dim=1).t()


def classify(
    image_embeds: torch.Tensor, labels: list[int | str], class_embeds: torch.Tensor, class_names: list[str]
) -> dict:
    """
    Takes every image for the class that is most similar to it.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)` or `(images, length, dim)`):
            Normalised.
        labels (`list[int | str]`):
            The classes of the images, by index or by name.
        class_embeds (`torch.Tensor` of shape `(classes, dim)` or `(classes, templates, length, dim)`):
            Those of [`embed_classes`]. Of tokens the similarity of image to text is meant, its mean over templates.
        class_names (`list[str]`):
            The names of the classes.

    Returns:
        `dict`: what [`summarize`] returns.
    """
    labels = torch.tensor([class_index(label, class_names) for label in labels])
    predictions = [
        similarities_with_classes(embeds, class_embeds).topk(min(5, len(class_names))).indices
        for embeds in image_embeds.split(4096)
    ]
    return summarize(torch.cat(predictions), labels, class_names)


class ClassificationCollator:
    """Turns rows into preprocessed images and labels, in the workers of a data loader."""

    def __init__(self, processor: ProcessorMixin, args: argparse.Namespace, class_names: list[str]):
        self.processor = processor
        self.image_column = args.image_column
        self.label_column = args.label_column
        self.class_names = class_names

    def __call__(self, rows: list[dict]) -> tuple[dict[str, torch.Tensor] | None, list[int], list[str]]:
        rows, images, wrong = read_images(rows, self.image_column)
        labels = [class_index(row[self.label_column], self.class_names) for row in rows]  # a wrong one ends it at once
        inputs = dict(self.processor.image_processor(images, return_tensors="pt")) if images else None
        return inputs, labels, wrong


def evaluate_zero_shot(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    class_names: list[str],
    args: argparse.Namespace,
    state: PartialState,
) -> dict:
    """
    Zero-shot classification of a data set. Every process classifies its share; the main one has the results, the
    others get empty ones.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `get_text_features` and `get_image_features`.
        processor (`ProcessorMixin`):
            Its processor.
        dataset (`Dataset` or `IterableDataset`):
            The images and labels.
        class_names (`list[str]`):
            The names of the classes.
        args (`argparse.Namespace`):
            The data arguments, `templates`, `batch_size` and `max_length`.
        state (`PartialState`):
            The processes.

    Returns:
        `dict`: what [`summarize`] returns.
    """
    was_training = model.training
    model.eval()
    class_embeds = embed_classes(model, processor, class_names, args.templates, args.batch_size, args.max_length)
    loader = DataLoader(
        split_by_process(undecoded(dataset, args.image_column), state.process_index, state.num_processes),
        batch_size=args.batch_size,
        collate_fn=ClassificationCollator(processor, args, class_names),
        num_workers=args.dataloader_num_workers,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # leaves the global random state, and with it a training, alone
    )
    image_embeds, labels = [], []
    for images, batch_labels, wrong in tqdm(loader, "Classifying", unit=" batches", disable=not state.is_main_process):
        for message in wrong:
            logger.warning(message)
        if images is not None:
            image_embeds.append(embed_images(model, images))
            labels += batch_labels
    image_embeds, labels = gather_object(image_embeds), gather_object(labels)
    model.train(was_training)
    if not image_embeds:
        raise ValueError("No image of the evaluation data can be read.")
    return classify(torch.cat(image_embeds), labels, class_embeds, class_names) if state.is_main_process else {}


def add_classification_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of zero-shot classification to `parser`."""
    parser.add_argument("--class_names", nargs="+", help="The classes, in the order of the labels.")
    parser.add_argument("--class_names_file", type=Path, help="A file with the name of a class on each line.")
    parser.add_argument(
        "--templates",
        nargs="+",
        type=template,
        default=["a photo of a {}"],
        help="Prompts with {} in the place of the name; averaged.",
    )


def template(text: str) -> str:
    """A prompt template of the command line."""
    if "{}" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} has no {{}} in the place of the class name.")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_evaluation_arguments(parser)
    add_data_arguments(parser)
    add_classification_arguments(parser)
    parser.add_argument("--benchmark", help="A benchmark by name, `imagenet`, whose files are in `--data_dir`.")
    parser.add_argument("--allow_partial", action="store_true", help="Use what there is of a benchmark.")
    parser.set_defaults(text_embedding="cls")
    args = parser.parse_args()
    if args.benchmark is not None:
        if args.data_dir is None or args.dataset_name is not None or args.max_eval_samples is not None:
            parser.error("--benchmark needs --data_dir, the folder of its files, and is evaluated whole.")
        if get_benchmark(args.benchmark).task != "classification":
            parser.error(f"--benchmark {args.benchmark} has no classes: see examples/evaluate_retrieval.py.")

    state = PartialState(cpu=args.device == "cpu")
    if args.benchmark is not None:
        dataset = load_benchmark(args.benchmark, args.data_dir, allow_partial=args.allow_partial)
    else:
        dataset = load_split(args, args.eval_split, args.max_eval_samples)
    columns = get_columns(dataset)
    if args.label_column not in columns:
        raise ValueError(f"`--label_column {args.label_column}` is no column of the data set, which has {columns}.")
    class_names = read_class_names(args, dataset.features[args.label_column] if dataset.features else None)
    model, processor = load_model(args.model_name_or_path, args, takes_tokens=True)
    results = evaluate_zero_shot(model, processor, dataset, class_names, args, state)
    if state.is_main_process:
        print("| images | classes | top-1 | top-5 |\n| --- | --- | --- | --- |")
        print("| {num_images} | {num_classes} | {top1:.1f} | {top5:.1f} |".format(**results))
        for pair in results["most_confused"]:
            print("{count} x {class} taken for {taken_for}".format(**pair))
        if args.output_file is not None:
            settings = {
                "dataset": args.benchmark or args.dataset_name or "scenes",
                **describe_run(args, model, processor),
                "templates": args.templates,
            }
            if args.benchmark is not None:
                settings["published_num_images"] = get_benchmark(args.benchmark).num_images
            write_json(args.output_file, {**settings, **results})
    state.wait_for_everyone()


if __name__ == "__main__":
    main()
