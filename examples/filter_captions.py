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
Applies rules to captions that models have written: what can be mended is, and a caption that trains nothing is marked
in the column `rejected_by` with the rule that rejects it, not deleted. Training and evaluation leave it out.

    python examples/filter_captions.py --captions "captions/*.parquet" --output_dir filtered
    python examples/filter_captions.py --captions "captions/*.parquet" --output_dir filtered \
        --rules all too_short=12 --without_rule announcement \
        --report --text_model sentence-transformers/all-MiniLM-L6-v2

Files of the same names are written, and in `OUTPUT_DIR/report` what each rule did to which captioner, with examples.
"""

import argparse
import json
import logging
import shutil
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from glob import glob
from heapq import nsmallest
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from captioning.rules import add_rule_arguments, apply_rules, read_rules
from data.captions import REJECTED_COLUMN, SideCaptions, captions_of, hash_keys, key_of
from data.loading import add_data_arguments, columns_of, load_split, read_images, undecoded
from dataset_statistics import TextLengths, format_table, load_tokenizer, plot_lengths, summarize
from datasets import Dataset, IterableDataset
from embedding import count_positions, embed_corpus, embed_images, embed_texts, load_model, tokenize
from evaluate_retrieval import write_json
from fsspec import open as open_file
from pyarrow import parquet
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions


logger = logging.getLogger(__name__)

CAPTIONER_COLUMN, PROMPT_COLUMN = "captioner", "prompt"
SIMILARITY_RULE = "image_text_similarity"
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
ROWS_PER_BATCH = 10_000
NUM_EXAMPLES = 5
MAX_EXAMPLE_LENGTH = 300


class Outcomes:
    """What became of the captions of each captioner, with examples of what each rule did."""

    def __init__(self):
        self.counts = defaultdict(Counter)  # of a captioner: rows, failed, kept
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

    def to_dict(self) -> dict:
        captioners = {}
        for name, counts in sorted(self.counts.items()):
            rejected = self.rejected[name]
            captioners[name] = {
                "num_captions": counts["rows"],
                "num_failed": counts["failed"],
                "num_kept": counts["rows"] - counts["failed"] - rejected.total(),
                "rejected": dict(rejected),
                "changed": dict(self.changed[name]),
            }
        examples = defaultdict(dict)
        for (rule, captioner), shown in sorted(self.examples.items()):
            examples[rule][captioner] = shown
        return {"captioners": captioners, "examples": dict(examples)}


class Similarity(NamedTuple):
    """How similar a caption is to its image."""

    similarity: float
    key: str
    captioner: str
    caption: str


def shorten(text: str) -> str:
    """The beginning of a text, and its end."""
    half = MAX_EXAMPLE_LENGTH // 2
    return text if len(text) <= MAX_EXAMPLE_LENGTH else f"{text[:half]} [...] {text[-half:]}"


def captioner_of(row: dict) -> str:
    return row.get(CAPTIONER_COLUMN) or "captions"


def find_files(patterns: list[str], output_dir: Path) -> list[Path]:
    """
    The files of captions that patterns name, each once, in the order of their names.

    Raises:
        `ValueError`: if there are none, of another kind, or of the same name, or the output folder is theirs or has
            other captions.
    """
    files = sorted({Path(name) for pattern in patterns for name in glob(pattern)})
    if not files:
        raise ValueError(f"`--captions {' '.join(patterns)}` names no file.")
    for file in files:
        if not file.name.endswith(SUFFIXES):
            raise ValueError(f"`--captions` must be files of the kinds {list(SUFFIXES)}, got {file}.")
        if file.parent.resolve() == output_dir.resolve():
            raise ValueError(f"`--output_dir {output_dir}` is the folder of {file}: name another one.")
    names = Counter(file.name for file in files)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"Several of `--captions` are named {twice[0]}: filter their folders one by one.")
    others = [path.name for path in output_dir.glob("*") if path.name.endswith(SUFFIXES) and path.name not in names]
    if others:
        raise ValueError(
            f"`--output_dir {output_dir}` holds other captions, such as {others[0]}: name another folder."
        )
    return files


def read_rows(path: Path, columns: Iterable[str | None] | None = None) -> Iterator[list[dict]]:
    """
    The rows of a file in batches, of a parquet file those of some columns.

    Raises:
        `ValueError`: if the file cannot be read.
    """
    if path.name.endswith(".parquet"):
        with open_parquet(path) as file:
            names = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=names):
                yield batch.to_pylist()
        return
    rows = []
    with open_file(path, "rt", compression="infer", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"Line {number} of {path} is no JSON, it is damaged or cut off: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(f"Line {number} of {path} must be a JSON object, got {type(row).__name__}.")
            rows.append(row)
            if len(rows) == ROWS_PER_BATCH:
                yield rows
                rows = []
    yield rows


def open_parquet(path: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no parquet file, it is damaged or cut off: {error}") from error


def rewrite(source: Path, target: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """
    Writes a file anew, whole or not at all, with the captions and marks that `edit` sets in batches of its rows.

    Args:
        source (`Path`):
            A parquet file, or one of JSON lines.
        target (`Path`):
            The file to write, of the same kind.
        columns (`list[str]`):
            The columns that `edit` reads, those that are there; the first is that of the captions.
        edit (`Callable`):
            Changes the caption and `rejected_by` of rows, which have both.

    Raises:
        `ValueError`: if there is no such column, or it holds something else than strings.
    """
    partial = target.with_name(target.name + ".partial")
    if source.name.endswith(".parquet"):
        rewrite_parquet(source, partial, columns, edit)
    else:
        compression = "gzip" if source.name.endswith(".gz") else None
        with open_file(partial, "wt", compression=compression, encoding="utf-8") as file:
            for rows in read_rows(source):
                prepare_rows(rows, source, columns[0])
                edit(rows)
                # an empty string, for readers that would take the type of the column from its first values
                rows = ({**row, REJECTED_COLUMN: row[REJECTED_COLUMN] or ""} for row in rows)
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(target)


def rewrite_parquet(source: Path, partial: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """[`rewrite`] of a parquet file, of which the other columns are not looked into."""
    needed = {*columns, REJECTED_COLUMN}
    with open_parquet(source) as file:
        schema = file.schema_arrow
        check_column(source, columns[0], schema.names)
        marks = pa.field(REJECTED_COLUMN, pa.string())
        if REJECTED_COLUMN in schema.names:
            schema = schema.set(schema.get_field_index(REJECTED_COLUMN), marks)
        else:  # what `datasets` notes of the columns would lack this one
            noted = {name: value for name, value in (schema.metadata or {}).items() if name != b"huggingface"}
            schema = schema.append(marks).with_metadata(noted)
        with parquet.ParquetWriter(partial, schema) as writer:
            for batch in file.iter_batches(ROWS_PER_BATCH):
                rows = batch.select([name for name in needed if name in batch.schema.names]).to_pylist()
                prepare_rows(rows, source, columns[0])
                edit(rows)
                values = dict(zip(batch.schema.names, batch.columns))
                for name in (columns[0], REJECTED_COLUMN):
                    values[name] = pa.array([row[name] for row in rows], schema.field(name).type)
                writer.write_batch(pa.RecordBatch.from_arrays([values[name] for name in schema.names], schema=schema))


def check_column(source: Path, name: str, names: Iterable[str]) -> None:
    """Raises a `ValueError` if a file lacks the column of captions."""
    if name not in names:
        raise ValueError(f"`--caption_column {name}` is no column of {source}, which has {list(names)}.")


def prepare_rows(rows: list[dict], source: Path, caption_column: str) -> None:
    """Sees to it that rows have a caption, if none, and a mark."""
    for row in rows:
        check_column(source, caption_column, row)
        if not isinstance(row[caption_column], (str, type(None))):
            raise ValueError(
                f"`--caption_column {caption_column}` of {source} must hold strings, got {row[caption_column]!r}."
            )
        row[REJECTED_COLUMN] = row.get(REJECTED_COLUMN) or None


class Filter:
    """
    Applies the rules to files, in two passes: of each caption by itself, then of all together.

    In memory is a hash of 64 bits of every caption that is kept.

    Args:
        args (`argparse.Namespace`):
            `caption_column`, `side_key_column` and `sub_caption_splitter`.
        rules (`dict[str, int | None]`):
            The rules: see [`read_rules`].
    """

    def __init__(self, args: argparse.Namespace, rules: dict[str, int | None]):
        self.column, self.key_column = args.caption_column, args.side_key_column
        self.columns = [self.column, CAPTIONER_COLUMN, PROMPT_COLUMN, self.key_column, "sha256"]
        self.splitter = args.sub_caption_splitter
        self.rules = rules
        self.outcomes = Outcomes()
        self.hashes = []  # of the captions that are kept, with their captioners; an array for each batch
        self.repeated = np.empty(0, dtype=np.uint64)  # sorted
        self.unlike = set()  # hashes of captions that are unlike their images: see `hash_captions`
        self.images = defaultdict(set)  # the first images that have a repeated caption, at most the rule's number

    def judge(self, rows: list[dict]) -> None:
        """Applies the rules of a caption by itself. What is marked already stays as it is."""
        for row in rows:
            captioner, caption = captioner_of(row), row[self.column]
            self.outcomes.counts[captioner]["rows"] += 1
            if row[REJECTED_COLUMN] is not None:
                self.outcomes.reject(captioner, row[REJECTED_COLUMN], caption)
            elif caption is None:
                self.outcomes.counts[captioner]["failed"] += 1
            else:
                text, rejected_by, changed = apply_rules(caption, row.get(PROMPT_COLUMN), self.rules, self.splitter)
                row |= {self.column: text, REJECTED_COLUMN: rejected_by}
                self.outcomes.change(captioner, changed, caption, text)
                if rejected_by is not None:
                    self.outcomes.reject(captioner, rejected_by, caption)
        if "duplicate" in self.rules:
            self.hashes.append(hash_keys([self.text_of(row) for row in rows if self.is_kept(row)]))

    def is_kept(self, row: dict) -> bool:
        return row[REJECTED_COLUMN] is None and row[self.column] is not None

    def text_of(self, row: dict) -> str:
        return f"{captioner_of(row)}\0{row[self.column]}"

    def find_repeated(self) -> None:
        """Finds the captions that come more often than the rule `duplicate` allows."""
        if "duplicate" in self.rules:
            hashes = np.concatenate([np.empty(0, dtype=np.uint64), *self.hashes])
            number = self.rules["duplicate"]
            self.hashes.clear()
            hashes.sort()
            self.repeated = np.unique(hashes[number:][hashes[number:] == hashes[: len(hashes) - number]])

    def compare(self, rows: list[dict]) -> None:
        """Marks captions that are unlike their images, then those that too many images have."""
        kept = [row for row in rows if self.is_kept(row)]
        if self.unlike:
            hashes = hash_captions([(row.get(self.key_column), row[self.column]) for row in kept])
            for row in (row for row, hashed in zip(kept, hashes) if hashed in self.unlike):
                self.mark(row, SIMILARITY_RULE)
        kept = [row for row in kept if self.is_kept(row)]
        hashes = hash_keys([self.text_of(row) for row in kept])
        is_repeated = np.isin(hashes, self.repeated)
        for row, hashed in ((kept[place], int(hashes[place])) for place in np.flatnonzero(is_repeated)):
            images = self.images[hashed]
            image = row.get("sha256") or row.get(self.key_column) or object()
            if image not in images and len(images) == self.rules["duplicate"]:
                self.mark(row, "duplicate")
            else:
                images.add(image)

    def mark(self, row: dict, rule: str) -> None:
        row[REJECTED_COLUMN] = rule
        self.outcomes.reject(captioner_of(row), rule, row[self.column])


def hash_captions(captions: list[tuple[str, str]]) -> list[int]:
    """Hashes of 64 bits of captions with the keys of their images."""
    return hash_keys([f"{key}\0{caption}" for key, caption in captions]).tolist()


def filter_files(
    files: list[Path], output_dir: Path, caption_filter: Filter, find_unlike: Callable[[list[Path]], set[int]] | None
) -> list[Path]:
    """
    Writes files of the same names with the rules applied.

    Args:
        files (`list[Path]`):
            The files of captions.
        output_dir (`Path`):
            Where the new ones go.
        caption_filter (`Filter`):
            The rules.
        find_unlike (`Callable`, *optional*):
            Gives the hashes of captions that are unlike their images, from files in which the captions are mended.

    Returns:
        `list[Path]`: the new files.
    """
    judged_dir = output_dir / ".judged"
    shutil.rmtree(judged_dir, ignore_errors=True)  # of a run that was killed
    judged_dir.mkdir(parents=True)
    try:
        judged = [judged_dir / file.name for file in files]
        for file, path in zip(tqdm(files, desc="Rules", unit=" files"), judged):
            rewrite(file, path, caption_filter.columns, caption_filter.judge)
        caption_filter.find_repeated()
        if find_unlike is not None:
            caption_filter.unlike = find_unlike(judged)
        for path in tqdm(judged, desc="Writing", unit=" files"):
            if len(caption_filter.repeated) or caption_filter.unlike:
                rewrite(path, output_dir / path.name, caption_filter.columns, caption_filter.compare)
            else:
                path.replace(output_dir / path.name)
    finally:
        shutil.rmtree(judged_dir)
    return [output_dir / file.name for file in files]


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
    if not lengths:
        raise ValueError("No caption is kept: there is nothing to report.")
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


def load_dual_encoder(name: str, args: argparse.Namespace, state: PartialState):
    """A dual encoder and its processor."""
    return load_model(argparse.Namespace(**vars(args), model_name_or_path=name, max_length=None), state)


def prepare_text(text: str, args: argparse.Namespace) -> str:
    """A caption as a dual encoder reads it in evaluations."""
    return join_sub_captions(split_sub_captions(text, args.sub_caption_splitter))


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
    if key_column.split(".")[0] not in columns_of(dataset) and key_column not in columns_of(dataset):
        raise ValueError(
            f"`--key_column {key_column}` is no column of the data set, which has {columns_of(dataset)}: name the one "
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
        keys = [key_of(row, key_column) for row in rows]
        found = [
            (image, str(key), captioner_of(row), row[args.caption_column])
            for image, key in enumerate(keys)
            for row in (captions.rows_of(str(key)) if key is not None else [])
            if captions_of(row, args.caption_column)
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


def format_rows(header: list[str], rows: Iterable[list]) -> list[str]:
    """A Markdown table, as lines."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return [f"| {' | '.join(line)} |" for line in cells]


def format_report(report: dict) -> str:
    """The report in Markdown."""
    captioners = report["captioners"]
    lines = ["# Captions", ""]
    rows = ([name, of["num_captions"], of["num_failed"], of["num_kept"]] for name, of in captioners.items())
    lines += format_rows(["captioner", "captions", "failed", "kept"], rows)
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
        lines += ["", f"### {rule}", ""]
        rows = (
            [name, example.get("rejected") or example.get("before", ""), example.get("after", "rejected")]
            for name, shown in examples.items()
            for example in shown
        )
        lines += format_rows(["captioner", "caption", "became"], rows)
    if "statistics" in report:
        lines += ["", "## Lengths", "", format_table("kept", report["statistics"]), "", "![lengths](lengths.png)"]
    if "agreement" in report:
        lines += ["", f"## Agreement, by {report['text_model']}", ""]
        rows = ([pair, of["num_images"], f"{of['mean']:.3f}"] for pair, of in report["agreement"].items())
        lines += format_rows(["captioners", "images", "mean similarity"], rows)
        for pair, of in report["agreement"].items():
            names = pair.split(" / ")
            lines += ["", f"The least alike of {pair}:", ""]
            rows = ([f"{low['similarity']:.3f}", low["key"], *(low[name] for name in names)] for low in of["lowest"])
            lines += format_rows(["similarity", "key", *names], rows)
    if SIMILARITY_RULE in report:
        of_images = report[SIMILARITY_RULE]
        lines += ["", f"## Image and text, by {of_images['model']}", ""]
        rows = ([name, of["num_captions"], f"{of['mean']:.3f}"] for name, of in of_images["captioners"].items())
        lines += format_rows(["captioner", "captions", "mean similarity"], rows)
        lines += ["", "The least similar:", ""]
        rows = (
            [f"{low['similarity']:.3f}", low["key"], low["captioner"], low["caption"]] for low in of_images["lowest"]
        )
        lines += format_rows(["similarity", "key", "captioner", "caption"], rows)
    return "\n".join(lines) + "\n"


def parse_args() -> argparse.Namespace:
    # the data arguments name captions of the images, which are not read here
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, conflict_handler="resolve"
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--captions", nargs="+", required=True, help="Parquet files or JSON lines of captions, or patterns of such."
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder of the filtered files.")
    parser.add_argument("--caption_column", default="caption", help="The column of captions in --captions.")
    parser.add_argument("--side_key_column", default="key", help="Their column of the images' keys.")
    add_rule_arguments(parser)

    group = parser.add_argument_group("report")
    group.add_argument("--report", action="store_true", help="Measure the captions that are kept, too.")
    group.add_argument(
        "--tokenizer_path", default="google-bert/bert-base-uncased", help="Counts their tokens, as in the data table."
    )
    group.add_argument("--text_model", help="Compares captioners: a BERT of sentences, or a dual encoder.")
    group.add_argument("--dual_encoder", help="Compares captions with the images of the data arguments.")
    group.add_argument(
        "--key_column",
        help="The column of the images' keys. The image column itself: the SHA-256 of the image file. Default: the "
        "name of --side_key_column.",
    )
    group.add_argument(
        "--min_image_text_similarity",
        type=float,
        help=f"Reject captions that are less similar to their image, by a rule of its own, `{SIMILARITY_RULE}`.",
    )
    group.add_argument("--max_report_images", type=int, default=10_000, help="Compare captions of so many images.")
    group.add_argument("--num_lowest", type=int, default=20, help="List so many captions of lowest similarity.")
    group.add_argument("--batch_size", type=int, default=64)
    group.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    group.add_argument("--device", help="Such as `cpu` or `cuda:0`; by default an accelerator if there is one.")
    group.add_argument("--trust_remote_code", action="store_true", help="Run the code that comes with a model.")
    args = parser.parse_args()
    if args.text_model is not None and not args.report:
        parser.error("--text_model is for the --report.")
    if args.dual_encoder is not None and not args.report and args.min_image_text_similarity is None:
        parser.error("--dual_encoder is for the --report, or for --min_image_text_similarity.")
    if args.min_image_text_similarity is not None and args.dual_encoder is None:
        parser.error("--min_image_text_similarity needs a --dual_encoder.")
    for name in ("max_report_images", "num_lowest", "batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} must be at least 1.")
    return args


def main() -> None:
    args = parse_args()
    rules = read_rules(args.rules, args.without_rule)
    split_sub_captions("", args.sub_caption_splitter)  # says at once what is not installed
    files = find_files(args.captions, args.output_dir)
    state = PartialState(cpu=args.device == "cpu")
    report = {"rules": rules}

    def find_unlike(judged: list[Path]) -> set[int]:
        report[SIMILARITY_RULE], unlike = summarize_similarities(measure_images(judged, args, state), args)
        return unlike

    caption_filter = Filter(args, rules)
    filtered = filter_files(files, args.output_dir, caption_filter, find_unlike if args.dual_encoder else None)
    if not caption_filter.outcomes.counts:
        raise ValueError(f"`--captions {' '.join(args.captions)}` have no rows.")
    report = {"rules": rules, **caption_filter.outcomes.to_dict(), **report}
    folder = args.output_dir / "report"
    if args.report:
        lengths, keys = measure_captions(filtered, args)
        report["statistics"] = {name: summarize(measured) for name, measured in lengths.items()}
        folder.mkdir(exist_ok=True)
        plot_lengths(lengths, "captions that are kept", folder / "lengths.png")
        if args.text_model is not None:
            report |= {"text_model": args.text_model}
            report["agreement"] = measure_agreement(filtered, keys, args, state)
    write_json(folder / "report.json", report)
    text = format_report(report)
    partial = folder / "report.md.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / "report.md")
    print(text.split("\n### ")[0])


if __name__ == "__main__":
    main()
