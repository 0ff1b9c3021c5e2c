# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of captions through the rules: captions are mended, or marked with the rule that rejects them."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.caption_files import REJECTED_COLUMN, CaptionFiles, hash_keys
from ..data.images import read_image, undecoded
from ..data.loading import get_columns, load_split
from ..data.reader import Item
from ..data.rows import find_column, read_captions, read_key
from ..encoder.arguments import InferenceArguments
from ..encoder.batches import RowCollator, batch_rows, embed_rows, warn_of_unreadable
from ..encoder.dual_encoder import load_encoder
from ..utils.files import format_markdown, write_json
from ..utils.output_folder import OutputFolder, atomic_write, clear, warn_of_unfinished
from ..utils.sub_captions import mark_sub_captions
from ..utils.terminal import progress_bar
from .arguments import FilterArguments, RuleArguments, SimilarityArguments
from .rules import apply_rules


BATCHES_PER_GROUP = 16  # of images, among whose texts those of like length share a batch
MAX_IMAGES = 3  # that may have a caption from one captioner
SIMILARITY = "image_text_similarity"  # a rule, and the column of what was measured


def find_files(patterns: list[str], output_dir: Path) -> list[Path]:
    """
    The files of captions that patterns name, each once, in the order of their names.

    Raises:
        `ValueError`: if there are none, or of the same name, or the output folder is theirs or has other captions.
    """
    files = sorted({Path(name) for pattern in patterns for name in glob(pattern)})
    if not files:
        raise ValueError(f"`--captions {' '.join(patterns)}` names no file.")
    names = {file.name for file in files}
    if output_dir.resolve() in {file.parent.resolve() for file in files}:
        raise ValueError(f"`--output_dir {output_dir}` is the folder of `--captions`: name another one.")
    if len(names) < len(files):
        raise ValueError("Several of `--captions` have the same name: filter their folders one by one.")
    others = [path.name for path in output_dir.glob("*.parquet") if path.name not in names]
    if others:
        raise ValueError(
            f"`--output_dir {output_dir}` holds other captions, such as {others[0]}: name another folder."
        )
    warn_of_unfinished(files)
    return files


def rewrite(source: Path, target: Path, columns: list[str], edit: Callable[[list[dict]], None]) -> None:
    """
    Writes a file anew with what `edit` sets in its rows: of `columns`, which it reads, the first one, the captions;
    `rejected_by`; and `image_text_similarity`.

    Raises:
        `ValueError`: if the file is damaged, or has no such column, or it holds something else than strings.
    """
    try:
        table = parquet.read_table(source, partitioning=None)
        table.validate(full=True)  # texts too are what they should be
        rows = table.select([name for name in table.column_names if name in (*columns, REJECTED_COLUMN)]).to_pylist()
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} cannot be read, it is damaged or cut off: {error}.") from error
    if columns[0] not in table.column_names:
        raise ValueError(f"`--caption_column {columns[0]}` is no column of {source}, which has {table.column_names}.")
    kind = table.schema.field(columns[0]).type
    if kind not in (pa.string(), pa.large_string(), pa.null()):
        raise ValueError(f"`--caption_column {columns[0]}` of {source} must hold strings, not {kind}.")
    for row in rows:
        row[REJECTED_COLUMN] = row.get(REJECTED_COLUMN) or None
    edit(rows)
    written = {columns[0]: kind, REJECTED_COLUMN: pa.string()}
    written |= {SIMILARITY: pa.float32()} if any(SIMILARITY in row for row in rows) else {}
    for name, of_column in written.items():
        values = pa.array([row.get(name) for row in rows], of_column)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, values)
        else:  # what `datasets` notes of the columns would lack this one
            noted = {key: value for key, value in (table.schema.metadata or {}).items() if key != b"huggingface"}
            table = table.append_column(name, values).replace_schema_metadata(noted)
    with atomic_write(target) as partial:
        parquet.write_table(table, partial)


class CaptionFilter:
    """
    Applies the rules to rows, in two passes: to each caption by itself, then to all together. In memory are two hashes
    of 64 bits of every caption that is kept.
    """

    def __init__(self, columns: FilterArguments, rules: RuleArguments, similarity: SimilarityArguments):
        self.column, self.key_column = columns.caption_column, columns.file_key_column
        self.columns = [self.column, "captioner", self.key_column, "sha256"]
        self.rules, self.similarity = rules, similarity
        self.numbers = defaultdict(Counter)  # by captioner
        self.rejected, self.changed = defaultdict(Counter), defaultdict(Counter)  # by captioner and rule
        self.hashes = []  # of captions with their captioners, and of their images
        self.repeated = np.empty(0, dtype=np.uint64)
        self.similarities = None  # by the image's key and the caption

    def apply_rules(self, rows: list[dict]) -> None:
        """Applies the rules for a caption by itself. What is marked already stays as it is."""
        rules = self.rules
        for row in rows:
            captioner, caption = get_captioner(row), row[self.column]
            self.numbers[captioner]["captions"] += 1
            if row[REJECTED_COLUMN] is not None:
                self.reject(row, row[REJECTED_COLUMN])
            elif caption is None:
                self.numbers[captioner]["failed"] += 1
            else:
                text, rejected_by, changed = apply_rules(caption, rules.rules, rules.min_words, rules.max_words)
                row[self.column] = text
                self.changed[captioner].update(changed)
                if rejected_by is not None:
                    self.reject(row, rejected_by)
        if "duplicate" in rules.rules:
            kept, part = self.list_kept(rows), len(self.hashes)
            names = (f"row {part} {place}" for place in range(len(kept)))
            images = [row.get("sha256") or row.get(self.key_column) or name for row, name in zip(kept, names)]
            self.hashes.append(pd.DataFrame({"caption": self.hash_captions(kept), "image": hash_keys(images)}))

    def find_repeated(self) -> None:
        """Finds the captions of more images than the rule `duplicate` allows."""
        if self.hashes:
            counts = pd.concat(self.hashes).drop_duplicates()["caption"].value_counts()
            self.hashes, self.repeated = [], counts.index[counts > MAX_IMAGES].to_numpy()

    def compare(self, rows: list[dict]) -> None:
        """Marks captions that too many images have, then those that are unlike their images."""
        kept = self.list_kept(rows)
        for place in np.flatnonzero(np.isin(self.hash_captions(kept), self.repeated)):
            self.reject(kept[place], "duplicate")
        for row in self.list_kept(rows) if self.similarities is not None else ():
            score = self.similarities.get((str(row.get(self.key_column)), row[self.column]), float("nan"))
            is_measured, threshold = score == score, self.similarity.min_image_text_similarity
            self.numbers[get_captioner(row)]["measured" if is_measured else "unmeasured"] += 1
            row[SIMILARITY] = score if is_measured else None
            if is_measured and threshold is not None and score < threshold:
                self.reject(row, SIMILARITY)
            elif not is_measured and self.similarity.reject_unmeasured:
                self.reject(row, SIMILARITY)

    def list_kept(self, rows: list[dict]) -> list[dict]:
        """The rows with a caption that no rule rejects."""
        return [row for row in rows if row[REJECTED_COLUMN] is None and row[self.column] is not None]

    def hash_captions(self, rows: list[dict]) -> np.ndarray:
        """Hashes of captions with their captioners."""
        return hash_keys([f"{get_captioner(row)}\0{row[self.column]}" for row in rows])

    def reject(self, row: dict, rule: str) -> None:
        """Marks a row with the rule that rejects it."""
        row[REJECTED_COLUMN] = rule
        self.rejected[get_captioner(row)][rule] += 1

    def summarize(self) -> dict:
        """The report: by captioner the numbers of captions, and by rule of those that it rejected and changed."""
        report = {}
        for name, numbers in sorted(self.numbers.items()):
            num_kept = numbers["captions"] - numbers["failed"] - self.rejected[name].total()
            report[name] = {f"num_{what}": numbers[what] for what in ("captions", "failed", "unmeasured")}
            report[name] |= {"num_kept": num_kept, "rejected": dict(self.rejected[name])}
            report[name] |= {"changed": dict(self.changed[name])}
        return report


def get_captioner(row: dict) -> str:
    """The captioner of a row; where the file does not say, all are one."""
    return row.get("captioner") or "captions"


def filter_captions(
    columns: FilterArguments,
    rules: RuleArguments,
    similarity: SimilarityArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    inference: InferenceArguments,
) -> dict:
    """
    Writes files of captions anew with the rules applied, and a report, which it returns. Captions are compared with
    the images of a data set if there is a `similarity.dual_encoder`.

    Raises:
        `ValueError`: if a file is damaged, has no rows or no column of captions; if the folder holds other captions,
            or another run writes to it.
    """
    files = find_files(columns.captions, columns.output_dir)
    caption_filter = CaptionFilter(columns, rules, similarity)
    mended = columns.output_dir / f"mended.{os.getpid()}.partial"
    with OutputFolder(columns.output_dir, content="filtered captions"):
        try:
            mended.mkdir()
            for file in progress_bar(files, desc="Rules", unit=" files"):
                rewrite(file, mended / file.name, caption_filter.columns, caption_filter.apply_rules)
            if not caption_filter.numbers:
                raise ValueError(f"`--captions {' '.join(columns.captions)}` have no rows.")
            caption_filter.find_repeated()
            if similarity.dual_encoder is not None and has_kept(caption_filter.summarize()):
                paths = [mended / file.name for file in files]
                measured = measure_similarities(paths, columns, similarity, source, split, inference)
                caption_filter.similarities = dict(measured)
            for file in progress_bar(files, desc="Writing", unit=" files"):
                path = mended / file.name
                rewrite(path, columns.output_dir / file.name, caption_filter.columns, caption_filter.compare)
        finally:
            clear(mended)
        report = caption_filter.summarize()
        write_json(columns.output_dir / "report.json", report)
    return report


def has_kept(report: dict) -> bool:
    """Whether any caption is kept."""
    return any(of["num_kept"] for of in report.values())


def format_report(report: dict) -> str:
    """What became of the captions, in Markdown."""
    titles = ["captions", "failed", "unmeasured", "kept"]
    numbers = [[name, *(str(of[f"num_{title}"]) for title in titles)] for name, of in report.items()]
    columns = [(name, what) for name in report for what in ("rejected", "changed")]
    rules = dict.fromkeys(rule for name, what in columns for rule in report[name][what])
    rows = [[rule, *(str(report[name][what].get(rule, 0)) for name, what in columns)] for rule in rules]
    names = [f"{name} {what}" for name, what in columns]
    return f"{format_markdown(['captioner', *titles], numbers)}\n\n{format_markdown(['rule', *names], rows)}"


def measure_similarities(
    files: list[Path],
    columns: FilterArguments,
    similarity: SimilarityArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    inference: InferenceArguments,
) -> Iterator[tuple[tuple[str, str], float]]:
    """
    Of every caption in files whose image is in a data set: the image's key with the caption, and their cosine
    similarity by `similarity.dual_encoder`.

    Raises:
        `ValueError`: if there is no such column of keys, or no image has a caption.
    """
    key_column = similarity.key_column or columns.file_key_column
    dataset = load_split(source, split.train_split, split.max_train_samples, key_column=key_column)
    dataset, names = undecoded(dataset, source.image_column), get_columns(dataset)
    if find_column(names, key_column) is None:
        raise ValueError(
            f"`--key_column {key_column}` is no column of the data set, which has {names}: name the one whose values "
            "stand in `--file_key_column` of `--captions`."
        )
    column, counts = columns.caption_column, Counter()
    captions = CaptionFiles([str(file) for file in files], columns.file_key_column, [column])

    def read_row(number: int, row: dict) -> Iterator[Item]:
        counts["rows"] += 1
        key = read_key(row, key_column)
        rows = [] if key is None else captions.find_rows(key)
        texts = dict.fromkeys(text for found in rows for text in read_captions(found, column))
        if texts:  # else the image is not read
            yield Item((number, key, None), "image", read_image(row[source.image_column]))
        for text in texts:
            yield Item((number, key, text), "caption", mark_sub_captions(text) or text)

    encoder = load_encoder(similarity.dual_encoder, inference, argument="dual_encoder")
    encoder.check_single_embeddings()
    rows = progress_bar(batch_rows(dataset, inference.batch_size), desc="Images", unit=" batches")
    prepared = map(RowCollator(encoder.preprocessing, read_row), rows)
    group_size = BATCHES_PER_GROUP * inference.batch_size
    images, group = {}, None
    for embedded in embed_rows(encoder, prepared, group=lambda number: number // group_size):
        warn_of_unreadable(embedded.unreadable)
        if embedded.group != group:
            group, images = embedded.group, {}
        for item, embed in zip(embedded.entries, [] if embedded.embeds is None else embedded.embeds):
            number, key, text = item.row
            if item.kind == "image":
                images[number] = embed
            else:
                counts["captions"] += 1
                yield (key, text), float(images[number] @ embed)
    if not counts["captions"]:
        raise ValueError(
            f"None of {counts['rows']} images has a caption in `--captions`: name the right `--key_column` and "
            "`--file_key_column`."
        )
