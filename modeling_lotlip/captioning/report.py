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
The report on captions that models have written: what the rules did to those of each captioner, how long they are, how
much captioners agree, and how similar captions are to their images.
"""

import argparse
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from ..data.images import read_images, undecoded
from ..data.loading import get_columns, load_split
from ..data.rows import read_captions, read_key
from ..data.side_captions import REJECTED_COLUMN, SideCaptions, hash_keys
from ..embedding.batches import embed_corpus, embed_images, embed_texts, tokenize
from ..embedding.models import count_positions, load_model
from ..evaluation.statistics import TextLengths, format_table, load_tokenizer, plot_lengths, summarize
from ..files import write_json, written_whole
from ..sub_captions import join_sub_captions, split_sub_captions
from .files import CAPTIONER_COLUMN, captioner_of, read_rows


logger = logging.getLogger(__name__)

SIMILARITY_RULE = "image_text_similarity"
NUM_EXAMPLES = 5
MAX_EXAMPLE_LENGTH = 300


def shorten(text: str) -> str:
    """The beginning of a text, and its end."""
    half = MAX_EXAMPLE_LENGTH // 2
    return text if len(text) <= MAX_EXAMPLE_LENGTH else f"{text[:half]} [...] {text[-half:]}"


class Outcomes:
    """What became of the captions of each captioner, with examples of what each rule did."""

    def __init__(self):
        self.counts = defaultdict(Counter)  # of a captioner: rows, failed
        self.rejected = defaultdict(Counter)  # of a captioner, by rule
        self.changed = defaultdict(Counter)
        self.examples = defaultdict(list)  # by rule and captioner

    def reject(self, captioner: str, rule: str, caption: str | None) -> None:
        self.rejected[captioner][rule] += 1
        self.show(captioner, rule, {"rejected": shorten(caption or "")})

    def change(self, captioner: str, rules: list[str], before: str, after: str) -> None:
        self.changed[captioner].update(rules)
        for rule in rules:
            self.show(captioner, rule, {"before": shorten(before), "after": shorten(after)})

    def show(self, captioner: str, rule: str, example: dict[str, str]) -> None:
        """Keeps the first examples of each kind."""
        examples = self.examples[rule, captioner]
        if sum(example.keys() == other.keys() for other in examples) < NUM_EXAMPLES:
            examples.append(example)

    def num_kept(self, captioner: str) -> int:
        counts = self.counts[captioner]
        return counts["rows"] - counts["failed"] - self.rejected[captioner].total()

    def is_any_kept(self) -> bool:
        return any(map(self.num_kept, self.counts))

    def to_dict(self) -> dict:
        captioners = {
            name: {
                "num_captions": counts["rows"],
                "num_failed": counts["failed"],
                "num_kept": self.num_kept(name),
                "rejected": dict(self.rejected[name]),
                "changed": dict(self.changed[name]),
            }
            for name, counts in sorted(self.counts.items())
        }
        examples = defaultdict(dict)
        for (rule, captioner), shown in sorted(self.examples.items()):
            examples[rule][captioner] = shown
        return {"captioners": captioners, "examples": dict(examples)}


def read_kept(files: list[Path], args: argparse.Namespace) -> Iterator[list[dict]]:
    """The rows of filtered files whose captions are kept, in batches."""
    columns = [args.caption_column, REJECTED_COLUMN, CAPTIONER_COLUMN, args.side_key_column]
    for file in files:
        for rows in read_rows(file, columns):
            yield [row for row in rows if not row[REJECTED_COLUMN] and row[args.caption_column] is not None]


def measure_captions(files: list[Path], args: argparse.Namespace) -> tuple[dict[str, TextLengths], np.ndarray]:
    """The lengths of the captions of each captioner and of all, and the hashes of the images' keys, sorted."""
    tokenizer = load_tokenizer(args.tokenizer_path)
    lengths = defaultdict(lambda: TextLengths(sub_captions=array("I"), tokens=array("I")))
    hashes, has_keys = defaultdict(list), True
    for rows in read_kept(files, args):
        for captioner in {captioner_of(row) for row in rows}:
            own = [row for row in rows if captioner_of(row) == captioner]
            texts = [row[args.caption_column] for row in own]
            lengths[captioner].add(texts, tokenizer, lambda text: split_sub_captions(text, args.sub_caption_splitter))
            hashes[captioner].append(hash_keys([row.get(args.side_key_column) for row in own]))
        has_keys &= all(row.get(args.side_key_column) is not None for row in rows)
    keys = {captioner: np.unique(np.concatenate(parts)) for captioner, parts in hashes.items()}
    together = TextLengths(sub_captions=array("I"), tokens=array("I"))
    for captioner, measured in lengths.items():
        # without keys each row is an image of its own
        measured.num_images = len(keys[captioner]) if has_keys else len(measured.tokens)
        together.sub_captions.extend(measured.sub_captions)
        together.tokens.extend(measured.tokens)
    of_all = np.unique(np.concatenate(list(keys.values()))) if has_keys else np.empty(0, dtype=np.uint64)
    together.num_images = len(of_all) if has_keys else len(together.tokens)
    lengths = dict(sorted(lengths.items()))
    return lengths if len(lengths) == 1 else lengths | {"all": together}, of_all


def load_dual_encoder(name: str, args: argparse.Namespace, state: PartialState):
    """A dual encoder and its processor."""
    return load_model(name, argparse.Namespace(**vars(args), max_length=None))


def prepare_text(text: str, args: argparse.Namespace) -> str:
    """A caption as a dual encoder reads it in evaluations."""
    return join_sub_captions(split_sub_captions(text, args.sub_caption_splitter))


@torch.inference_mode()
def embed_with_text_model(texts: list[str], args: argparse.Namespace, state: PartialState) -> torch.Tensor:
    """
    Normalised embeddings (texts, dim) by `--text_model`: a dual encoder, or an encoder whose states are averaged over
    the tokens, as most of sentence-transformers do.
    """
    model = AutoModel.from_pretrained(args.text_model, trust_remote_code=args.trust_remote_code)
    if hasattr(model, "get_text_features"):
        model, processor = load_dual_encoder(args.text_model, args, state)
        return embed_corpus(model, processor, texts)
    model = model.to(args.device or state.device).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.text_model, trust_remote_code=args.trust_remote_code)
    max_length = min(tokenizer.model_max_length, count_positions(model) or tokenizer.model_max_length)
    embeds = []
    for start in range(0, len(texts), args.batch_size):
        part = texts[start : start + args.batch_size]
        tokens = tokenizer(part, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        tokens = tokens.to(model.device)
        states, mask = model(**tokens).last_hidden_state.float(), tokens["attention_mask"][..., None]
        embeds.append(torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=-1).cpu())
    return torch.cat(embeds)


def measure_agreement(
    files: list[Path], keys: np.ndarray, args: argparse.Namespace, state: PartialState
) -> dict[str, dict]:
    """
    How similar the captions of two captioners are of the same images, for each two. Images are drawn by the hashes of
    their keys, the same in every run.

    Args:
        files (`list[Path]`):
            Filtered files.
        keys (`np.ndarray`):
            The hashes of the keys of all images, sorted.
        args (`argparse.Namespace`):
            The arguments.
        state (`PartialState`):
            The device.

    Returns:
        `dict[str, dict]`: for `"a / b"` the number of images, the mean, and the images with the `lowest` similarity.
    """
    if len(keys) == 0:
        raise ValueError(
            f"The captions have no column `--side_key_column {args.side_key_column}`, which `--text_model` needs to "
            "find those of the same image: name theirs."
        )
    last = keys[: args.max_report_images][-1]
    captions = defaultdict(dict)  # the first of each captioner, by image
    for rows in read_kept(files, args):
        is_drawn = hash_keys([row[args.side_key_column] for row in rows]) <= last
        for row in (rows[place] for place in np.flatnonzero(is_drawn)):
            if row[args.caption_column].strip():
                captions[str(row[args.side_key_column])].setdefault(captioner_of(row), row[args.caption_column])
    captions = {key: texts for key, texts in captions.items() if len(texts) > 1}
    places = {(key, captioner): None for key, texts in captions.items() for captioner in texts}
    if not places:
        return {}
    texts = [captions[key][captioner] for key, captioner in places]
    embeds = embed_with_text_model([prepare_text(text, args) or text for text in texts], args, state)
    places = dict(zip(places, embeds))
    results = {}
    for pair in combinations(sorted({captioner for _, captioner in places}), 2):
        both = [key for key, texts in captions.items() if set(pair) <= texts.keys()]
        scores = [float(places[key, pair[0]] @ places[key, pair[1]]) for key in both]
        if both:
            lowest = nsmallest(args.num_lowest, zip(scores, both))
            results[" / ".join(pair)] = {
                "num_images": len(both),
                "mean": sum(scores) / len(scores),
                "lowest": [
                    {"similarity": score, "key": key, **{name: shorten(captions[key][name]) for name in pair}}
                    for score, key in lowest
                ],
            }
    return results


class Similarity(NamedTuple):
    """How similar a caption is to its image."""

    similarity: float
    key: str
    captioner: str
    caption: str


def has_captioner(file: Path) -> bool:
    """Whether a file has a column of captioners."""
    rows = next(read_rows(file, [CAPTIONER_COLUMN]), [])
    return bool(rows) and CAPTIONER_COLUMN in rows[0]


def batched(rows: Dataset | IterableDataset, size: int) -> Iterator[list[dict]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def measure_images(files: list[Path], args: argparse.Namespace, state: PartialState) -> Iterator[Similarity]:
    """
    The similarity of every caption with its image, of the images of the data arguments.

    Args:
        files (`list[Path]`):
            Files of captions.
        args (`argparse.Namespace`):
            The arguments.
        state (`PartialState`):
            The device.

    Raises:
        `ValueError`: if no image has a caption.
    """
    max_samples = args.max_eval_samples
    if args.min_image_text_similarity is None:
        max_samples = min(args.max_report_images, max_samples or args.max_report_images)
    dataset = undecoded(load_split(args, args.eval_split, max_samples), args.image_column)
    key_column = args.key_column or args.side_key_column
    columns = get_columns(dataset)
    if key_column.split(".")[0] not in columns and key_column not in columns:
        raise ValueError(
            f"`--key_column {key_column}` is no column of the data set, which has {columns}: name the one "
            "whose values stand in `--side_key_column` of `--captions`."
        )
    columns = [args.caption_column] + [CAPTIONER_COLUMN] * any(map(has_captioner, files))
    captions = SideCaptions([str(file) for file in files], args.side_key_column, columns, str(files[0].parent))
    model, processor = load_dual_encoder(args.dual_encoder, args, state)
    num_found = num_seen = 0
    for rows in tqdm(batched(dataset, args.batch_size), desc="Images", unit=" batches"):
        num_seen += len(rows)
        rows, images, wrong = read_images(rows, args.image_column)
        for message in wrong:
            logger.warning(message)
        keys = [read_key(row, key_column) for row in rows]
        found = [
            (image, str(key), captioner_of(row), row[args.caption_column])
            for image, key in enumerate(keys)
            for row in (captions.find_rows(str(key)) if key is not None else [])
            if read_captions(row, args.caption_column)
        ]
        num_found += len(found)
        if found:
            image_embeds = embed_images(model, dict(processor.image_processor(images, return_tensors="pt")))
            texts = [prepare_text(caption, args) or caption for *_, caption in found]
            text_embeds = embed_texts(model, dict(tokenize(processor, texts)))
            scores = (image_embeds[[image for image, *_ in found]] * text_embeds).sum(dim=1)
            yield from (Similarity(score, *rest) for score, (_, *rest) in zip(scores.tolist(), found))
    if num_found == 0:
        raise ValueError(
            f"None of {num_seen} images has a caption in `--captions`: name the right `--key_column` and "
            "`--side_key_column`."
        )


def hash_captions(captions: list[tuple[str, str]]) -> list[int]:
    """Hashes of 64 bits of captions with the keys of their images."""
    return hash_keys([f"{key}\0{caption}" for key, caption in captions]).tolist()


def summarize_similarities(similarities: Iterable[Similarity], args: argparse.Namespace) -> tuple[dict, set[int]]:
    """
    The mean similarity of the captions of each captioner with their images, and the lowest ones; and the hashes of the
    captions below `--min_image_text_similarity`.
    """
    sums, counts, lowest, unlike = Counter(), Counter(), [], set()
    for entry in similarities:
        sums[entry.captioner] += entry.similarity
        counts[entry.captioner] += 1
        lowest = nsmallest(args.num_lowest, [*lowest, entry])
        if args.min_image_text_similarity is not None and entry.similarity < args.min_image_text_similarity:
            unlike.update(hash_captions([(entry.key, entry.caption)]))
    captioners = {name: {"num_captions": count, "mean": sums[name] / count} for name, count in sorted(counts.items())}
    shown = [entry._replace(caption=shorten(entry.caption))._asdict() for entry in lowest]
    return {"model": args.dual_encoder, "captioners": captioners, "lowest": shown}, unlike


def measure_kept(files: list[Path], folder: Path, args: argparse.Namespace, state: PartialState) -> dict:
    """The part of the report on the captions that are kept in filtered files; histograms go into `folder`."""
    lengths, keys = measure_captions(files, args)
    plot_lengths(lengths, "captions that are kept", folder / "lengths.png")
    report = {"statistics": {name: summarize(measured) for name, measured in lengths.items()}}
    if args.text_model is not None:
        report |= {"text_model": args.text_model, "agreement": measure_agreement(files, keys, args, state)}
    return report


def format_rows(header: list[str], rows: Iterable[list]) -> list[str]:
    """A Markdown table, as lines."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return [f"| {' | '.join(line)} |" for line in cells]


def format_outcomes(report: dict) -> list[str]:
    """What became of the captions, and what each rule did, with examples, as lines of Markdown."""
    captioners = report["captioners"]
    rows = ([name, of["num_captions"], of["num_failed"], of["num_kept"]] for name, of in captioners.items())
    lines = ["# Captions", "", *format_rows(["captioner", "captions", "failed", "kept"], rows)]
    lines += ["", "## Rules", "", "Captions that each rule rejected, and those that it changed.", ""]
    marks = dict.fromkeys([*report["rules"], *(rule for of in captioners.values() for rule in of["rejected"])])
    rows = (
        [rule, report["rules"].get(rule) or ""]
        + [of[what].get(rule, 0) for of in captioners.values() for what in ("rejected", "changed")]
        for rule in marks
    )
    header = [f"{name} {what}" for name in captioners for what in ("rejected", "changed")]
    lines += format_rows(["rule", "number", *header], rows)
    for rule, examples in report["examples"].items():
        rows = (
            [name, example.get("rejected") or example.get("before", ""), example.get("after", "rejected")]
            for name, shown in examples.items()
            for example in shown
        )
        lines += ["", f"### {rule}", "", *format_rows(["captioner", "caption", "became"], rows)]
    return lines


def format_agreement(text_model: str, agreement: dict[str, dict]) -> list[str]:
    """What [`measure_agreement`] gives, as lines of Markdown."""
    rows = ([pair, of["num_images"], f"{of['mean']:.3f}"] for pair, of in agreement.items())
    lines = ["", f"## Agreement, by {text_model}", "", *format_rows(["captioners", "images", "mean similarity"], rows)]
    for pair, of in agreement.items():
        names = pair.split(" / ")
        rows = ([f"{low['similarity']:.3f}", low["key"], *(low[name] for name in names)] for low in of["lowest"])
        lines += ["", f"The least alike of {pair}:", "", *format_rows(["similarity", "key", *names], rows)]
    return lines


def format_similarities(similarities: dict) -> list[str]:
    """What [`summarize_similarities`] gives, as lines of Markdown."""
    rows = ([name, of["num_captions"], f"{of['mean']:.3f}"] for name, of in similarities["captioners"].items())
    lines = ["", f"## Image and text, by {similarities['model']}", ""]
    lines += [*format_rows(["captioner", "captions", "mean similarity"], rows), "", "The least similar:", ""]
    lowest = similarities["lowest"]
    rows = ([f"{low['similarity']:.3f}", low["key"], low["captioner"], low["caption"]] for low in lowest)
    return lines + format_rows(["similarity", "key", "captioner", "caption"], rows)


def write_report(report: dict, folder: Path) -> list[str]:
    """Writes a report as `report.json` and as `report.md`; returns the lines on what became of the captions."""
    outcomes = format_outcomes(report)
    lines = [*outcomes]
    if "statistics" in report:
        lines += ["", "## Lengths", "", format_table("kept", report["statistics"]), "", "![lengths](lengths.png)"]
    if "agreement" in report:
        lines += format_agreement(report["text_model"], report["agreement"])
    if SIMILARITY_RULE in report:
        lines += format_similarities(report[SIMILARITY_RULE])
    write_json(folder / "report.json", report)
    with written_whole(folder / "report.md") as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return outcomes
