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
Image-text retrieval of a dual encoder on a data set: recall in both directions, for short and for long captions.

    python examples/evaluate_retrieval.py --model_name_or_path outputs/demo
    python examples/evaluate_retrieval.py --model_name_or_path MODEL --dataset_name imagefolder --data_dir FOLDER

Several models on several of the paper's benchmarks, in one table; each benchmark in a folder of its own name:

    python examples/evaluate_retrieval.py --model_name_or_path MODEL OTHER_MODEL \
        --benchmark dci iiw urban1k --data_dir BENCHMARKS --output_file results.json

Long captions may be in files beside the images: see `--side_files`.
"""

import argparse
import csv
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from ..data.arguments import HelpFormatter, add_data_arguments, add_side_file_arguments
from ..data.captions import CaptionReader
from ..data.images import read_images, undecoded
from ..data.loading import get_columns, leave_signals_to_the_main_process, load_split, split_by_process
from ..data.published import get_benchmark, load_benchmark
from ..embedding.arguments import add_evaluation_arguments
from ..embedding.batches import embed_images, embed_texts, tokenize_and_count
from ..embedding.models import load_model
from ..embedding.token_wise import is_token_wise, pad_and_concatenate, rank_by_tokens
from ..files import write_json, written_whole
from ..metrics import metrics_of_ranks, ranks_of_blocks, retrieval_ranks, similarity_blocks
from ..sub_captions import join_sub_captions


logger = logging.getLogger(__name__)


class Embedded(NamedTuple):
    """
    What was embedded of a data set.

    Args:
        image_embeds (`list[torch.Tensor]`):
            Normalised image embeddings of each batch, (images, dim), or of all tokens (images, length, dim).
        texts (`dict[str, dict[str, list]]`):
            For `"short"` and `"long"` captions the `captions` themselves, the numbers of the `images` that they belong
            to, and of each batch the `embeds` and how many were `truncated`.
        labels (`list`):
            The label of each image, None where there is none.
        num_unreadable (`int`):
            Images that could not be read, which are left out with their captions.
    """

    image_embeds: list[torch.Tensor]
    texts: dict[str, dict[str, list]]
    labels: list
    num_unreadable: int


class RetrievalCollator:
    """Preprocesses the images of rows and tokenizes the captions of each kind, in the workers of a data loader."""

    def __init__(
        self, processor: ProcessorMixin, args: argparse.Namespace, reader: CaptionReader, label_column: str | None
    ):
        self.label_column = label_column
        self.processor = processor
        self.image_column = args.image_column
        self.max_length = args.max_length
        self.reader = reader

    def __call__(self, rows: list[dict]) -> dict:
        rows, images, wrong = read_images(rows, self.image_column)
        inputs = dict(self.processor.image_processor(images, return_tensors="pt")) if images else None
        labels = [row.get(self.label_column) for row in rows]
        batch = {"image_inputs": inputs, "wrong": wrong, "labels": labels}
        for kind, read in {"short": self.reader.short_captions, "long": self.reader.long_captions}.items():
            captions = [read(row) for row in rows]
            if kind == "long":
                captions = [
                    [join_sub_captions(self.reader.sub_captions(text)) for text in texts] for texts in captions
                ]
                captions = [[text for text in texts if text] for texts in captions]
            texts = [text for texts in captions for text in texts]
            batch[f"{kind}_captions"] = texts
            tokens, truncated = tokenize_and_count(self.processor, texts, self.max_length) if texts else (None, [])
            batch[f"{kind}_tokens"], batch[f"{kind}_truncated"] = tokens, sum(truncated)
            batch[f"{kind}_images"] = [image for image, texts in enumerate(captions) for _ in texts]
        return batch


def embed_dataset(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    reader: CaptionReader,
    args: argparse.Namespace,
    state: PartialState,
    label_column: str | None = None,
) -> Embedded:
    """Embeds a data set: every process its share, once, and each gets the whole."""
    num_corner_tokens = getattr(model.config.get_text_config(), "num_corner_tokens", 0)
    if args.text_embedding != "cls" and num_corner_tokens == 0:
        raise ValueError(f"`--text_embedding {args.text_embedding}` needs corner tokens, but the model has none.")
    was_training = model.training
    model.eval()
    share = split_by_process(undecoded(dataset, args.image_column), state.process_index, state.num_processes)
    loader = DataLoader(
        share,
        batch_size=args.batch_size,
        collate_fn=RetrievalCollator(processor, args, reader, label_column),
        num_workers=args.dataloader_num_workers,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # leaves the global random state, and with it a training, alone
    )
    image_embeds, labels, num_images, num_unreadable = [], [], 0, 0
    texts = {kind: {"captions": [], "images": [], "embeds": [], "truncated": []} for kind in ("short", "long")}
    total = len(share) if isinstance(share, Dataset) else None
    with tqdm(total=total, desc="Embedding", unit=" images", disable=not state.is_local_main_process) as progress:
        for batch in loader:
            for kind, embedded in texts.items():
                embedded["captions"] += batch[f"{kind}_captions"]
                embedded["images"] += [num_images + image for image in batch[f"{kind}_images"]]
                embedded["truncated"].append(batch[f"{kind}_truncated"])
                if batch[f"{kind}_tokens"] is not None:
                    embeds = embed_texts(model, batch[f"{kind}_tokens"], with_corners=args.text_embedding != "cls")
                    if args.text_embedding == "mean":
                        embeds = torch.nn.functional.normalize(embeds.mean(dim=1), dim=-1)
                    embedded["embeds"].append(embeds)
            for message in batch["wrong"]:
                logger.warning(message)
            num_unreadable += len(batch["wrong"])
            labels += batch["labels"]
            if batch["image_inputs"] is not None:
                image_embeds.append(embed_images(model, batch["image_inputs"]))
                num_images += len(image_embeds[-1])
                progress.update(len(image_embeds[-1]))
    model.train(was_training)
    return join_shares(gather_object([Embedded(image_embeds, texts, labels, num_unreadable)]))


def join_shares(shares: list[Embedded]) -> Embedded:
    """The shares of several processes as one, with images counted through."""
    texts = {kind: {name: [] for name in embedded} for kind, embedded in shares[0].texts.items()}
    joined = Embedded([], texts, [], sum(share.num_unreadable for share in shares))
    for share in shares:
        num_images = sum(map(len, joined.image_embeds))
        for kind, embedded in share.texts.items():
            for name, values in embedded.items():
                values = [num_images + image for image in values] if name == "images" else values
                joined.texts[kind][name].extend(values)
        joined.image_embeds.extend(share.image_embeds)
        joined.labels.extend(share.labels)
    if not joined.image_embeds:
        raise ValueError("No image of the evaluation data can be read.")
    return joined


def evaluate_retrieval(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    args: argparse.Namespace,
    state: PartialState,
) -> dict[str, float]:
    """
    Embeds a data set and measures its retrieval: see [`measure_retrieval`].

    Every process embeds its share; the main one computes the metric, the others get an empty result.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `get_text_features` and `get_image_features`.
        processor (`ProcessorMixin`):
            Its processor.
        dataset (`Dataset` or `IterableDataset`):
            The images and captions.
        args (`argparse.Namespace`):
            The arguments of data and of side files, `batch_size`, `max_length`, `text_embedding` and
            `distinct_short_captions`.
        state (`PartialState`):
            The processes.

    Returns:
        `dict[str, float]`: what [`measure_retrieval`] returns.
    """
    with state.main_process_first():  # which reads new side files
        reader = CaptionReader(get_columns(dataset), args, args, args.image_column)
    embedded = embed_dataset(model, processor, dataset, reader, args, state)
    return measure_retrieval(embedded, args.distinct_short_captions) if state.is_main_process else {}


def measure_retrieval(embedded_data: Embedded, distinct_short_captions: bool) -> dict[str, float]:
    """
    Recall of short and of long captions, each in a gallery of the images that have such a caption.

    Args:
        embedded_data (`Embedded`):
            The images and captions.
        distinct_short_captions (`bool`):
            Whether each short caption and one image of it stand for all that have it.

    Returns:
        `dict[str, float]`: the results of [`ImageTextRetrieval`] with prefixes `short_` and `long_`, the numbers of
        images and captions of each, and the share of captions that were truncated.
    """
    image_embeds, num_unreadable = torch.cat(embedded_data.image_embeds), embedded_data.num_unreadable
    results = {}
    if num_unreadable > 0:
        results["num_unreadable_images"] = num_unreadable
        logger.warning(f"{num_unreadable} images cannot be read and are left out of the evaluation.")
    for kind, embedded in embedded_data.texts.items():
        rows = range(len(embedded["captions"]))
        is_distinct = kind == "short" and distinct_short_captions
        if is_distinct:
            rows = sorted({caption: row for row, caption in reversed(list(enumerate(embedded["captions"])))}.values())
        if len(rows) == 0:
            continue
        images = [embedded["images"][row] for row in rows]
        gallery = sorted(set(images))
        if len(gallery) < len(image_embeds) and not is_distinct:
            missing = len(image_embeds) - len(gallery)
            logger.warning(
                f"{missing} of {len(image_embeds)} images have no {kind} caption and are left out of its gallery."
            )
        position = {image: index for index, image in enumerate(gallery)}
        by_tokens = image_embeds.dim() == 3
        text_embeds = (pad_and_concatenate if by_tokens else torch.cat)(embedded["embeds"])[list(rows)]
        text_to_image = torch.tensor([position[image] for image in images])
        if by_tokens:
            rank = rank_by_tokens
        else:
            rank = rank_by_best_embedding if text_embeds.dim() == 3 else retrieval_ranks
        scores = metrics_of_ranks(*rank(image_embeds[gallery], text_embeds, text_to_image))
        results |= {f"{kind}_{name}": value for name, value in scores.items()}
        results |= {f"{kind}_num_images": len(gallery), f"{kind}_num_captions": len(rows)}
        results[f"{kind}_truncated"] = sum(embedded["truncated"]) / len(embedded["captions"])
    if not {"short_num_images", "long_num_images"} & results.keys():
        raise ValueError("No image has a caption: there is nothing to retrieve.")
    return results


def rank_by_best_embedding(image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_to_image: torch.Tensor):
    """
    [`retrieval_ranks`] where the similarity of a text with an image is that of the most similar of its embeddings.

    Args:
        image_embeds (`torch.Tensor` of shape `(num_images, dim)`):
            Normalised.
        text_embeds (`torch.Tensor` of shape `(num_texts, embeddings, dim)`):
            Normalised.
        text_to_image (`torch.Tensor` of shape `(num_texts,)`):
            The image of each text.
    """

    def blocks():
        for parts in zip(*(similarity_blocks(embeds.contiguous(), image_embeds) for embeds in text_embeds.unbind(1))):
            rows, columns, _ = parts[0]
            yield rows, columns, torch.stack([block for _, _, block in parts]).amax(dim=0)

    own = (text_embeds * image_embeds[text_to_image, None]).sum(dim=-1).amax(dim=1)
    return ranks_of_blocks(blocks(), own, text_to_image, len(image_embeds))


def format_table(results: dict[str, float]) -> str:
    """The recalls of `evaluate_retrieval` as a Markdown table, in per cent."""
    columns = [f"{direction}_recall@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10)]
    lines = [
        "| captions | images | texts | "
        + " | ".join(column.replace("_recall", " R").upper() for column in columns)
        + " |",
        "| --- | --- | --- |" + " --- |" * len(columns),
    ]
    for kind in ("short", "long"):
        if f"{kind}_num_images" in results:
            recalls = " | ".join(f"{results[f'{kind}_{column}']:.1f}" for column in columns)
            lines.append(
                f"| {kind} | {results[f'{kind}_num_images']} | {results[f'{kind}_num_captions']} | {recalls} |"
            )
    return "\n".join(lines)


def evaluate_benchmarks(args: argparse.Namespace, state: PartialState) -> list[dict]:
    """A row of results for every model and benchmark, on the main process."""
    folders = {name: Path(args.data_dir) / (name if len(args.benchmark) > 1 else "") for name in args.benchmark}
    datasets = {
        name: load_benchmark(name, folder, allow_partial=args.allow_partial) for name, folder in folders.items()
    }
    rows = []
    for model_name in dict.fromkeys(args.model_name_or_path):
        model_args = argparse.Namespace(**(vars(args) | {"model_name_or_path": model_name}))
        model, processor = load_model(model_args.model_name_or_path, model_args, takes_tokens=True)
        for name, dataset in datasets.items():
            results = evaluate_retrieval(model, processor, dataset, args, state)
            published = get_benchmark(name).num_images
            rows.append(
                {
                    "benchmark": name,
                    "published_num_images": published,
                    **describe_run(model_args, model, processor),
                    **results,
                }
            )
    return rows


def describe_run(args: argparse.Namespace, model: PreTrainedModel, processor: ProcessorMixin) -> dict:
    """What a result depends on beside the data."""
    return {
        "model": args.model_name_or_path,
        "revision": getattr(model.config, "_commit_hash", None),
        "model_type": model.config.model_type,
        "dtype": args.dtype,
        "max_length": args.max_length or processor.tokenizer.model_max_length,
        "text_embedding": "tokens" if is_token_wise(model) else args.text_embedding,
        "sub_caption_splitter": args.sub_caption_splitter,
    }


def format_benchmarks(rows: list[dict]) -> str:
    """
    The results of `evaluate_benchmarks` in the paper's form: recall at 1 of every model on every benchmark, image to
    text and text to image, and their means. A benchmark that is not complete has its size beside its name.
    """
    benchmarks = {row["benchmark"]: row for row in rows}
    titles = []
    for name, row in benchmarks.items():
        kind = kind_of(row)
        num_images, published = row[f"{kind}_num_images"], row["published_num_images"]
        titles.append(name if num_images == published else f"{name} ({num_images} of {published} images)")
    columns = [f"{title} {direction}" for title in [*titles, "average"] for direction in ("I2T", "T2I")]
    lines = ["| model | " + " | ".join(columns) + " | truncated |", "| --- |" + " --- |" * (len(columns) + 1)]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        recalls = [[row[f"{kind_of(row)}_{direction}_recall@1"] for row in own] for direction in ("i2t", "t2i")]
        values = [value for pair in zip(*recalls) for value in pair] + [sum(way) / len(way) for way in recalls]
        truncated = 100 * sum(row[f"{kind_of(row)}_truncated"] for row in own) / len(own)
        lines.append(f"| {model} | " + " | ".join(f"{value:.2f}" for value in values) + f" | {truncated:.0f}% |")
    return "\n".join(lines)


def kind_of(row: dict) -> str:
    """The kind of captions of a benchmark, which has one only."""
    return "long" if "long_num_images" in row else "short"


def write_csv(path: Path, rows: list[dict]) -> None:
    """Writes rows to a CSV file, whole or not at all; what a row lacks is left empty."""
    with written_whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_evaluation_arguments(parser, are_several_models=True)
    add_data_arguments(parser)
    add_side_file_arguments(parser)
    parser.add_argument(
        "--benchmark",
        nargs="+",
        help="Benchmarks by name, such as `dci iiw`. With several, `--data_dir` has a folder for each.",
    )
    parser.add_argument("--allow_partial", action="store_true", help="Use what there is of a benchmark.")
    parser.add_argument(
        "--text_embedding",
        default="cls",
        choices=["cls", "mean", "max"],
        help="What stands for a text of LoTLIP: `[CLS]`, its mean with the corner tokens, or for each image the most "
        "similar of them.",
    )
    args = parser.parse_args()
    args.distinct_short_captions = args.dataset_name is None and args.benchmark is None
    if args.benchmark is not None and (args.data_dir is None or args.dataset_name is not None):
        parser.error("--benchmark needs --data_dir, the folder of its files, and no --dataset_name.")
    if args.benchmark is not None and args.max_eval_samples is not None:
        parser.error("--max_eval_samples is not for a --benchmark, which is evaluated whole.")
    for name in args.benchmark or ():
        if get_benchmark(name).task != "retrieval":
            parser.error(f"--benchmark {name} has no texts to retrieve: see examples/zero_shot_classification.py.")
    if args.benchmark is not None and args.output_file is not None and args.output_file.suffix in (".csv", ".md"):
        parser.error(f"--output_file {args.output_file} is for JSON, name it .json: the others stand beside it.")
    if args.benchmark is None and len(args.model_name_or_path) > 1:
        parser.error("Several models are compared on --benchmark only: name one.")

    state = PartialState(cpu=args.device == "cpu")
    if args.benchmark is not None:
        rows = evaluate_benchmarks(args, state)
        if state.is_main_process:
            table = format_benchmarks(rows)
            print(table)
            if args.output_file is not None:
                write_json(args.output_file, {"rows": rows})
                write_csv(args.output_file.with_suffix(".csv"), rows)
                args.output_file.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
        state.wait_for_everyone()
        return

    (args.model_name_or_path,) = args.model_name_or_path
    dataset = load_split(args, args.eval_split, args.max_eval_samples)
    model, processor = load_model(args.model_name_or_path, args, takes_tokens=True)
    results = evaluate_retrieval(model, processor, dataset, args, state)
    if state.is_main_process:
        print(format_table(results))
        results = {"dataset": args.dataset_name or "scenes", **describe_run(args, model, processor), **results}
        if args.output_file is not None:
            write_json(args.output_file, results)
    state.wait_for_everyone()


if __name__ == "__main__":
    main()
