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

Long captions may be in files beside the images: see `--side_files`.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from data.captions import CaptionReader, add_side_file_arguments
from data.loading import add_data_arguments, columns_of, load_split, read_image, share_of, undecoded
from datasets import Dataset, IterableDataset
from embedding import add_evaluation_arguments, embed_images, embed_texts, load_model, tokenize
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from modeling_lotlip.metrics import ImageTextRetrieval
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions


logger = logging.getLogger(__name__)


class RetrievalCollator:
    """Turns rows into pixel values, and the captions of each kind into token ids, in the workers of a data loader."""

    def __init__(self, processor: ProcessorMixin, args: argparse.Namespace, reader: CaptionReader):
        self.processor = processor
        self.image_column = args.image_column
        self.max_length = args.max_length
        self.reader = reader

    def __call__(self, rows: list[dict]) -> dict:
        images = [read_image(row[self.image_column]) for row in rows]
        batch = self.processor.image_processor(images, return_tensors="pt")
        for kind, read in {"short": self.reader.short_captions, "long": self.reader.long_captions}.items():
            captions = [read(row) for row in rows]
            if kind == "long":
                captions = [[join_sub_captions(split_sub_captions(text)) for text in texts] for texts in captions]
                captions = [[text for text in texts if text] for texts in captions]
            texts = [text for texts in captions for text in texts]
            batch[f"{kind}_captions"] = texts
            batch[f"{kind}_tokens"] = tokenize(self.processor, texts, self.max_length) if texts else None
            batch[f"{kind}_images"] = [image for image, texts in enumerate(captions) for _ in texts]
        return batch


def embed_dataset(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    args: argparse.Namespace,
    state: PartialState,
) -> tuple[list[torch.Tensor], dict[str, dict[str, list]]]:
    """
    Embeds this process's share of a data set, once.

    Returns:
        The image embeddings of each batch; and for `"short"` and `"long"` captions the `captions` themselves, the
        `images` they belong to, counted in this share, and the `embeds` of each batch.
    """
    with state.main_process_first():  # which reads new side files
        reader = CaptionReader(args, columns_of(dataset))
    share = share_of(undecoded(dataset, args.image_column), state.process_index, state.num_processes)
    loader = DataLoader(
        share,
        batch_size=args.batch_size,
        collate_fn=RetrievalCollator(processor, args, reader),
        num_workers=args.dataloader_num_workers,
        generator=torch.Generator(),  # leaves the global random state, and with it a training, alone
    )
    image_embeds, num_images = [], 0
    texts = {kind: {"captions": [], "images": [], "embeds": []} for kind in ("short", "long")}
    total = len(share) if isinstance(share, Dataset) else None
    with tqdm(total=total, desc="Embedding", unit=" images", disable=not state.is_local_main_process) as progress:
        for batch in loader:
            for kind, embedded in texts.items():
                embedded["captions"] += batch[f"{kind}_captions"]
                embedded["images"] += [num_images + image for image in batch[f"{kind}_images"]]
                if batch[f"{kind}_tokens"] is not None:
                    embedded["embeds"].append(embed_texts(model, batch[f"{kind}_tokens"]))
            image_embeds.append(embed_images(model, batch["pixel_values"]))
            num_images += len(image_embeds[-1])
            progress.update(len(image_embeds[-1]))
    return image_embeds, texts


def gather_embedded(image_embeds: list[torch.Tensor], texts: dict[str, dict[str, list]]):
    """The shares of all processes as one, with images counted through."""
    shares = gather_object([(torch.cat(image_embeds) if image_embeds else None, texts)])
    image_embeds, gathered = [], {kind: {name: [] for name in texts[kind]} for kind in texts}
    for share_embeds, share_texts in shares:
        num_images = sum(len(embeds) for embeds in image_embeds)
        for kind, embedded in share_texts.items():
            gathered[kind]["captions"] += embedded["captions"]
            gathered[kind]["images"] += [num_images + image for image in embedded["images"]]
            gathered[kind]["embeds"] += embedded["embeds"]
        if share_embeds is not None:
            image_embeds.append(share_embeds)
    return torch.cat(image_embeds), gathered


def evaluate_retrieval(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset | IterableDataset,
    args: argparse.Namespace,
    state: PartialState,
) -> dict[str, float]:
    """
    Recall of short and of long captions, each in a gallery of the images that have such a caption.

    Every process embeds its share; the main one computes the metric, the others get an empty result.

    Args:
        model (`PreTrainedModel`):
            A dual encoder with `get_text_features` and `get_image_features`.
        processor (`ProcessorMixin`):
            Its processor.
        dataset (`Dataset` or `IterableDataset`):
            The images and captions.
        args (`argparse.Namespace`):
            The arguments of data and of side files, `batch_size`, `max_length` and `distinct_short_captions`.
        state (`PartialState`):
            The processes.

    Returns:
        `dict[str, float]`: the results of [`ImageTextRetrieval`] with prefixes `short_` and `long_`, and the numbers
        of images and captions of each.
    """
    was_training = model.training
    model.eval()
    image_embeds, texts = gather_embedded(*embed_dataset(model, processor, dataset, args, state))
    model.train(was_training)
    if not state.is_main_process:
        return {}

    results = {}
    for kind, embedded in texts.items():
        rows = range(len(embedded["captions"]))
        is_distinct = kind == "short" and args.distinct_short_captions
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
        scores = ImageTextRetrieval().compute(
            image_embeds=image_embeds[gallery],
            text_embeds=torch.cat(embedded["embeds"])[list(rows)],
            text_to_image=[position[image] for image in images],
        )
        results |= {f"{kind}_{name}": value for name, value in scores.items()}
        results |= {f"{kind}_num_images": len(gallery), f"{kind}_num_captions": len(rows)}
    if not results:
        raise ValueError("No image has a caption: there is nothing to retrieve.")
    return results


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


def write_json(path: Path, results: dict) -> None:
    """Writes results to a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_evaluation_arguments(parser)
    add_data_arguments(parser)
    add_side_file_arguments(parser)
    args = parser.parse_args()
    args.distinct_short_captions = args.dataset_name is None

    state = PartialState(cpu=args.device == "cpu")
    dataset = load_split(args, args.eval_split, args.max_eval_samples)
    model, processor = load_model(args, state)
    results = evaluate_retrieval(model, processor, dataset, args, state)
    if state.is_main_process:
        print(format_table(results))
        results = {"model": args.model_name_or_path, "dataset": args.dataset_name or "scenes", **results}
        if args.output_file is not None:
            write_json(args.output_file, results)
    state.wait_for_everyone()


if __name__ == "__main__":
    main()
