# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files of captions through the rules: captions are mended, or marked with the rule that rejects them."""

import hashlib
import logging
import os
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ..data.arguments import SourceArguments, TrainSplitArguments
from ..data.caption_files import IMAGE_HASH_COLUMN, REJECTED_COLUMN, CaptionFiles, hash_keys
from ..data.images import read_file, read_image, undecoded
from ..data.loading import load_split
from ..data.reader import Item
from ..data.rows import check_fields, find_column, get_columns, read_captions, read_key
from ..encoder.arguments import InferenceArguments
from ..encoder.batches import RowCollator, batch_rows, embed_rows, warn_of_unreadable
from ..encoder.dual_encoder import find_models, load_encoder
from ..encoder.fastest import hint_at_auto
from ..encoder.finite import check_finite_batch
from ..utils.files import are_one_file, is_same_path, write_json
from ..utils.markdown import format_markdown
from ..utils.output_folder import PARTIAL, OutputFolder, atomic_write, clear, warn_of_unfinished
from ..utils.sub_captions import mark_sub_captions
from ..utils.terminal import progress_bar, without_stop
from ..utils.texts import is_invisible
from .arguments import FilterArguments, RuleArguments, SimilarityArguments
from .records import EDITED, RowsHash, check_as_written, hash_caption
from .rules import EDITS, RULES, apply_rules


logger = logging.getLogger(__name__)

BATCHES_PER_GROUP = 16  # of images, among whose texts those of like length share a batch
MAX_IMAGES = 3  # that may have a caption from one captioner
NUM_EXAMPLES = 5  # in the report, for each captioner and rule
SIMILARITY = "image_text_similarity"  # a rule, and the column of what was measured
CUT_OFF_COLUMN = "is_cut_off"
CAPTION_HASH = re.compile(f"(?:{EDITED})?[0-9a-f]{{16}}")  # see `hash_caption`


def find_files(patterns: list[str], output_dir: Path) -> list[Path]:
    """
    Finds the files of captions that patterns name, each once, in the order of their paths.

    Raises:
        `ValueError`: if a pattern names none, they have the same name, or the output folder is theirs or has other
            captions.
    """
    found = set()
    for pattern in patterns:
        # a name may have brackets, as a pattern has
        names = [pattern] if Path(pattern).is_file() else glob(pattern, recursive=True)
        names = [name for name in names if Path(name).is_file()]  # `**` finds folders, too
        if not names:
            raise ValueError(f"`--captions {pattern}` names no file.")
        found.update(map(Path, names))
    files = sorted(found)
    if any(is_same_path(folder, output_dir) for folder in {file.parent for file in files}):
        raise ValueError(f"`--output_dir {output_dir}` is the folder of `--captions`: name another one.")
    name, count = Counter(file.name for file in files).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} files of `--captions` have the name {name}: filter their folders one by one.")
    check_names(sorted(file.name for file in files), output_dir)
    names = {file.name for file in files}
    others = sorted(path.name for path in output_dir.glob("*.parquet") if path.name not in names)
    if others:
        raise ValueError(
            f"`--output_dir {output_dir}` holds other captions, such as {others[0]}: name another folder."
        )
    warn_of_unfinished(files)
    return files


def check_names(names: list[str], output_dir: Path) -> None:
    """Raises a `ValueError` if two names of files are one on the disk of a folder."""
    by_letters = {}
    for name in names:
        same_letters = by_letters.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if same_letters != name and are_one_file(same_letters, name, output_dir):
            raise ValueError(
                f"Files of `--captions` have the names {same_letters} and {name}, which are one file "
                f"on the disk of `--output_dir {output_dir}`: filter them one by one."
            )


def read_table(path: Path) -> pa.Table:
    """Reads a file of captions; raises a `ValueError` if it is damaged."""
    try:
        table = parquet.read_table(path, partitioning=None)
        table.validate(full=True)  # texts too are what they should be
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read, it is damaged or cut off: {without_stop(error)}.") from error
    return table


def cast_column(table: pa.Table, name: str, wanted: pa.DataType, path: Path) -> pa.Table:
    """
    Gives a column the type that it must have, where other programs write the same values otherwise:
    without any value as numbers, texts as categories, booleans with gaps as 1.0 and 0.0.

    Args:
        table (`pyarrow.Table`): The table.
        name (`str`): The name of the column, which it may lack.
        wanted (`pyarrow.DataType`): The type: strings, booleans or float32.
        path (`Path`): The file, for messages.

    Returns:
        `pyarrow.Table`: the table with the column as it must be, or as it was if that is no other type.

    Raises:
        `ValueError`: if the column holds something else.
    """
    if name not in table.column_names:
        return table
    column = table[name]
    found = column.type
    if found == wanted or (wanted == pa.string() and found == pa.large_string()):
        return table
    if pa.types.is_floating(found):
        column = pc.if_else(pc.is_nan(column), None, column)
    if column.null_count == len(column):
        return set_column(table, name, pa.nulls(len(column), wanted))
    is_text = pa.types.is_dictionary(found) and found.value_type in (pa.string(), pa.large_string())
    is_number = pa.types.is_floating(found) or pa.types.is_integer(found)
    are_booleans = is_number and {*column.unique().to_pylist()} <= {0, 1, None}
    names = {pa.string(): "strings", pa.bool_(): "booleans", pa.float32(): "numbers"}
    can_cast = {pa.string(): is_text, pa.bool_(): are_booleans, pa.float32(): is_number}
    if not can_cast[wanted]:
        raise ValueError(f"The column {name!r} of {path} must hold {names[wanted]}, not {found}.")
    return set_column(table, name, column.cast(wanted))


def set_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Replaces a column of a table, or adds it."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    # what `datasets` notes of the columns would lack this one
    metadata = dict(table.schema.metadata or {})
    metadata.pop(b"huggingface", None)
    return table.append_column(name, values).replace_schema_metadata(metadata)


class Examples:
    """
    Keeps some examples for each captioner and rule, chosen at random among all, the same ones in every run.
    """

    def __init__(self):
        self.examples = defaultdict(list)
        self.counts = Counter()
        self.random = random.Random(0)

    def add(self, captioner: str, rule: str, example: dict) -> None:
        """Offers an example: each one that was offered is kept with the same probability."""
        name = (captioner, rule)
        self.counts[name] += 1
        if len(self.examples[name]) < NUM_EXAMPLES:
            self.examples[name].append(example)
            return
        position = self.random.randrange(self.counts[name])
        if position < NUM_EXAMPLES:
            self.examples[name][position] = example

    def list(self, captioner: str) -> dict[str, list[dict]]:
        """Lists the examples of a captioner by rule."""
        return {rule: examples for (name, rule), examples in self.examples.items() if name == captioner}


class CaptionFilter:
    """
    Applies the rules to rows, in two passes: to each caption by itself, then to all together. In
    memory are two hashes of 64 bits of every caption that is kept.

    Captions are judged anew: a mark that a rule left in an earlier run counts for nothing, and where
    a rule has cut a caption, the caption as it came is judged. Marks of other names stay, since
    nothing here can say whether they still hold; so does that of the similarity where no similarity
    is measured, unless all rules are left out.

    A caption that somebody has edited has another hash than an earlier run noted beside it, or was
    noted as edited there. It may be rejected, but no rule changes it, in this run and in later ones.
    Its similarity was that of another text, and goes.

    Args:
        columns (`FilterArguments`):
            The names of the columns.
        rules (`RuleArguments`):
            Which rules apply.
        similarity (`SimilarityArguments`):
            How captions are compared with their images.
    """

    def __init__(self, columns: FilterArguments, rules: RuleArguments, similarity: SimilarityArguments):
        self.column = columns.caption_column
        self.before_column = f"{self.column}_before_rules"
        self.hash_column = f"{self.column}_hash"
        self.output_dir = columns.output_dir
        self.key_column = columns.file_key_column
        self.rules = rules
        self.similarity = similarity
        # by captioner
        self.counts = defaultdict(Counter)
        # by captioner and rule
        self.rejected = defaultdict(Counter)
        self.changed = defaultdict(Counter)
        self.marked_before = defaultdict(Counter)
        self.left_marked = defaultdict(Counter)
        self.rejected_examples = Examples()
        self.changed_examples = Examples()
        self.hashes = []  # of captions with their captioners, and of their images
        self.repeated = np.empty(0, dtype=np.uint64)
        self.similarities = None  # by the image's key and the caption

    def rewrite(self, source: Path, target: Path, edit: Callable[[list[dict]], None]) -> None:
        """
        Writes a file with what `edit` sets in its rows: the caption with its hash, the caption before
        the rules, the rule that rejects it, and its similarity to the image.

        Args:
            source (`Path`):
                The file that is read.
            target (`Path`):
                The file that is written.
            edit (`Callable[[list[dict]], None]`):
                Is given the rows, with the columns that the rules need, and changes them.

        Raises:
            `ValueError`: if the file is damaged, or has no such column, or it holds something else than strings.
        """
        table = read_table(source)
        if self.column not in table.column_names:
            raise ValueError(
                f"`--caption_column {self.column}` is no column of {source}, which has {table.column_names}."
            )
        self.check_key_column(table, source)
        table = self.cast_columns(table, source)
        written = {
            self.column: table.schema.field(self.column).type,
            self.before_column: pa.string(),
            self.hash_column: pa.string(),
            REJECTED_COLUMN: pa.string(),
        }
        if self.similarities is not None or SIMILARITY in table.column_names:
            written[SIMILARITY] = pa.float32()
        needed = {*written, "captioner", self.key_column, "sha256", CUT_OFF_COLUMN}
        rows = table.select([name for name in table.column_names if name in needed]).to_pylist()
        for row in rows:
            row[REJECTED_COLUMN] = row.get(REJECTED_COLUMN) or None
            self.check_hash(row, source)
        edit(rows)
        for name, column_type in written.items():
            table = set_column(table, name, pa.array([row.get(name) for row in rows], column_type))
        rows_hash = RowsHash(self.output_dir)
        rows_hash.update(table)
        with atomic_write(target) as partial, parquet.ParquetWriter(partial, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(rows_hash.to_metadata())

    def check_key_column(self, table: pa.Table, path: Path) -> None:
        """Raises a `ValueError` if a named column of keys is not there; warns where no row is known by an image."""
        if self.key_column in table.column_names:
            return
        if self.key_column != FilterArguments.file_key_column:
            raise ValueError(
                f"`--file_key_column {self.key_column}` is no column of {path}, which has {table.column_names}."
            )
        if "sha256" not in table.column_names and "duplicate" in self.rules.rules:
            logger.warning_once(
                f"`--captions` have neither a column {self.key_column!r} nor 'sha256': the rule 'duplicate' takes "
                "each row for an image of its own. Name their column of keys with `--file_key_column`."
            )

    def cast_columns(self, table: pa.Table, path: Path) -> pa.Table:
        """
        Gives columns the types that they must have: see [`cast_column`]. Raises a `ValueError` if one holds
        something else, or the marks are those of another column.
        """
        for name in (self.column, self.before_column, self.hash_column, REJECTED_COLUMN, "captioner"):
            table = cast_column(table, name, pa.string(), path)
        table = cast_column(table, CUT_OFF_COLUMN, pa.bool_(), path)
        table = cast_column(table, SIMILARITY, pa.float32(), path)
        for name in table.column_names:
            other = name.removesuffix("_before_rules")
            if name.endswith("_before_rules") and other != self.column and f"{other}_hash" in table.column_names:
                raise ValueError(
                    f"{path} was filtered by `--caption_column {other}`, whose marks are in "
                    f"{REJECTED_COLUMN!r}: write {self.column!r} to a file of its own, and filter "
                    "that."
                )
        return table

    def check_hash(self, row: dict, path: Path) -> None:
        """Raises a `ValueError` if the hash of a caption is something else, or was left out."""
        recorded = row.get(self.hash_column)
        if recorded is not None and CAPTION_HASH.fullmatch(recorded) is None:
            raise ValueError(
                f"{path} has {recorded!r} in its column {self.hash_column!r}, where the hash of the "
                "caption as rules left it belongs: give the column another name."
            )
        if row.get(self.before_column) is not None and recorded is None:
            raise ValueError(
                f"{path} has captions in {self.before_column!r} without a hash in "
                f"{self.hash_column!r}, which tells whether one was edited: leave out the former "
                "column, and captions are judged as they are."
            )

    def judge(self, rows: list[dict]) -> None:
        """Applies the rules for a caption by itself."""
        for row in rows:
            captioner = get_captioner(row)
            mark = row[REJECTED_COLUMN]
            self.counts[captioner]["captions"] += 1
            if mark is not None:
                self.marked_before[captioner][mark] += 1
            is_edited = self.is_edited(row)
            if self.is_another(row):
                row[SIMILARITY] = None
                if mark == SIMILARITY:
                    mark = None
            if mark is not None and not self.can_judge(mark):
                self.left_marked[captioner][mark] += 1
            elif not self.has_caption(row):
                row[REJECTED_COLUMN] = None
                self.counts[captioner]["failed"] += 1
            else:
                self.judge_row(row, captioner, is_edited)
            row[self.hash_column] = hash_caption(row[self.column], is_edited)
            self.counts[captioner]["edited"] += is_edited
        if "duplicate" in self.rules.rules:
            self.hash_rows(self.list_kept(rows))

    def can_judge(self, mark: str) -> bool:
        """Says whether this run can say anew whether a rule rejects a caption."""
        if mark == SIMILARITY:
            return self.similarity.dual_encoder is not None or not self.rules.rules
        return mark in RULES

    def is_another(self, row: dict) -> bool:
        """Says whether a caption is another one than an earlier run left."""
        recorded = row.get(self.hash_column)
        return recorded is not None and recorded.removeprefix(EDITED) != hash_caption(row[self.column])

    def is_edited(self, row: dict) -> bool:
        """Says whether somebody has edited a caption after an earlier run, or before it."""
        recorded = row.get(self.hash_column)
        return self.is_another(row) or (recorded is not None and recorded.startswith(EDITED))

    def judge_row(self, row: dict, captioner: str, is_edited: bool) -> None:
        """Applies the rules to the caption of a row, as it came. An edited one stays as it is written."""
        original = row[self.column]
        if not is_edited:
            original = row.get(self.before_column) or original
        is_cut_off = bool(row.get(CUT_OFF_COLUMN)) or row[REJECTED_COLUMN] == "cut_off"
        rules = self.rules
        names = rules.rules
        if is_edited:
            is_cut_off = False
            names = [name for name in names if name not in EDITS]
        text, rejected_by, changed = apply_rules(original, names, rules.min_words, rules.max_words, is_cut_off)
        if text != row[self.column] and SIMILARITY in row:
            row[SIMILARITY] = None  # it was that of another text
        if changed:
            row[self.before_column] = original
        elif not is_edited:
            row[self.before_column] = None
        row[self.column] = text
        row[REJECTED_COLUMN] = None
        for rule in changed:
            self.changed[captioner][rule] += 1
            example = {"key": self.get_key(row), "before": original, "after": text}
            self.changed_examples.add(captioner, rule, example)
        if rejected_by is not None:
            self.reject(row, rejected_by)

    def hash_rows(self, kept: list[dict]) -> None:
        """Notes hashes of captions and their images. A row without an image's key or hash counts as an image."""
        images = []
        for index, row in enumerate(kept):
            image = row.get("sha256") or self.get_key(row)
            if image is None:
                image = f"row {len(self.hashes)} {index}"
            images.append(image)
        hashes = {"caption": self.hash_captions(kept), "image": hash_keys(images)}
        self.hashes.append(pd.DataFrame(hashes))

    def find_repeated(self) -> None:
        """Finds the captions of more images than the rule `duplicate` allows."""
        if self.hashes:
            counts = pd.concat(self.hashes).drop_duplicates()["caption"].value_counts()
            self.repeated = counts.index[counts > MAX_IMAGES].to_numpy()
            self.hashes = []

    def compare(self, rows: list[dict]) -> None:
        """Marks captions that too many images have, then those that are unlike their images."""
        kept = self.list_kept(rows)
        for index in np.flatnonzero(np.isin(self.hash_captions(kept), self.repeated)):
            self.reject(kept[index], "duplicate")
        if self.similarities is not None:
            for row in rows:
                row[SIMILARITY] = None  # it may be that of another model
            for row in self.list_kept(rows):
                self.compare_with_image(row)

    def compare_with_image(self, row: dict) -> None:
        """Notes how similar a caption is to its image, and rejects it if that is too little or not known."""
        pair = (str(row.get(self.key_column)), row[self.column])
        similarity = self.similarities.get(pair, float("nan"))
        threshold = self.similarity.min_image_text_similarity
        if np.isnan(similarity):
            self.counts[get_captioner(row)]["unmeasured"] += 1
            is_rejected = self.similarity.reject_unmeasured
        else:
            row[SIMILARITY] = similarity
            is_rejected = threshold is not None and similarity < threshold
        if is_rejected:
            self.reject(row, SIMILARITY)

    def list_kept(self, rows: list[dict]) -> list[dict]:
        """Lists the rows with a caption that no rule rejects."""
        return [row for row in rows if row[REJECTED_COLUMN] is None and self.has_caption(row)]

    def has_caption(self, row: dict) -> bool:
        """Says whether a row has a caption, which is not blank."""
        return not is_invisible(row[self.column] or "")

    def hash_captions(self, rows: list[dict]) -> np.ndarray:
        """Hashes captions with their captioners, to an array of shape `(rows,)` of 64-bit integers."""
        return hash_keys([f"{get_captioner(row)}\0{row[self.column]}" for row in rows])

    def get_key(self, row: dict) -> str | None:
        """Gets the key of the image of a row, else the hash of its file."""
        for name in (self.key_column, "sha256"):
            key = row.get(name)
            if key is not None and key != "":
                return str(key)
        return None

    def reject(self, row: dict, rule: str) -> None:
        """Marks a row with the rule that rejects it."""
        row[REJECTED_COLUMN] = rule
        captioner = get_captioner(row)
        self.rejected[captioner][rule] += 1
        example = {"key": self.get_key(row), "caption": row[self.column]}
        self.rejected_examples.add(captioner, rule, example)

    def summarize(self) -> dict:
        """
        Makes the report: by captioner the counts of captions, and by rule of those that it rejected
        and changed, with examples. What was marked before is counted apart: `marked_before` by rule,
        and in `left_marked` those marks that no rule here could judge, which stay.
        """
        report = {}
        for name, counts in sorted(self.counts.items()):
            num_marked = self.rejected[name].total() + self.left_marked[name].total()
            report[name] = {
                "num_captions": counts["captions"],
                "num_failed": counts["failed"],
                "num_unmeasured": counts["unmeasured"],
                "num_edited": counts["edited"],
                "num_kept": counts["captions"] - counts["failed"] - num_marked,
                "rejected": dict(self.rejected[name]),
                "changed": dict(self.changed[name]),
                "marked_before": dict(self.marked_before[name]),
                "left_marked": dict(self.left_marked[name]),
                "examples": {
                    "rejected": self.rejected_examples.list(name),
                    "changed": self.changed_examples.list(name),
                },
            }
        return report


def get_captioner(row: dict) -> str:
    """Gets the captioner of a row; where the file does not say, all are one."""
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
    Writes files of captions anew with the rules applied, and a report, which it returns.

    Args:
        columns (`FilterArguments`):
            The files, the names of their columns, and the folder of the filtered ones.
        rules (`RuleArguments`):
            Which rules apply.
        similarity (`SimilarityArguments`):
            How captions are compared with the images of a dataset: only if it has a `dual_encoder`.
        source (`SourceArguments`):
            The dataset of the images.
        split (`TrainSplitArguments`):
            The rows of it that are read.
        inference (`InferenceArguments`):
            How the dual encoder runs.

    Returns:
        `dict`: the report: see [`CaptionFilter.summarize`].

    Raises:
        `ValueError`: if a file is damaged, has no rows or no column of captions; if the folder holds other captions,
            or such that somebody has changed, or another run writes to it.
    """
    files = find_files(columns.captions, columns.output_dir)
    for file in files:
        check_as_written(columns.output_dir / file.name)
    if similarity.dual_encoder is not None:
        find_models([similarity.dual_encoder], argument="dual_encoder")
    caption_filter = CaptionFilter(columns, rules, similarity)
    mended = columns.output_dir / f"mended.{os.getpid()}{PARTIAL}"
    with OutputFolder(columns.output_dir, content="filtered captions"):
        try:
            mended.mkdir()
            for file in progress_bar(files, desc="Rules", unit=" files"):
                caption_filter.rewrite(file, mended / file.name, caption_filter.judge)
            if not caption_filter.counts:
                raise ValueError(f"`--captions {' '.join(columns.captions)}` have no rows.")
            num_edited = sum(counts["edited"] for counts in caption_filter.counts.values())
            if num_edited > 0:
                logger.warning(
                    f"{num_edited} captions have been edited since rules were applied to them: rules "
                    "may reject them, but do not change them."
                )
            caption_filter.find_repeated()
            if similarity.dual_encoder is not None and has_kept(caption_filter.summarize()):
                paths = [mended / file.name for file in files]
                measured = measure_similarities(paths, columns, similarity, source, split, inference)
                caption_filter.similarities = dict(measured)
            for file in progress_bar(files, desc="Writing", unit=" files"):
                target = columns.output_dir / file.name
                caption_filter.rewrite(mended / file.name, target, caption_filter.compare)
        finally:
            clear(mended)
        report = caption_filter.summarize()
        write_json(columns.output_dir / "report.json", report)
    return report


def has_kept(report: dict) -> bool:
    """Says whether any caption is kept."""
    return any(counts["num_kept"] for counts in report.values())


def format_report(report: dict) -> str:
    """Makes two Markdown tables of a report: what became of the captions, and by which rules."""
    rows = []
    rules = {}
    for name, counts in report.items():
        row = [name]
        for title in ("captions", "failed", "unmeasured", "kept"):
            row.append(str(counts[f"num_{title}"]))
        row.append(str(sum(counts["marked_before"].values())))
        rows.append(row)
        for outcome in ("rejected", "left_marked", "changed"):
            rules.update(dict.fromkeys(counts[outcome]))
    captions = format_markdown(["captioner", "captions", "failed", "unmeasured", "kept", "marked before"], rows)

    titles = ["rule"]
    rows = [[rule] for rule in rules]
    for name, counts in report.items():
        titles += [f"{name} rejected", f"{name} changed"]
        for row in rows:
            num_rejected = counts["rejected"].get(row[0], 0) + counts["left_marked"].get(row[0], 0)
            row += [str(num_rejected), str(counts["changed"].get(row[0], 0))]
    return f"{captions}\n\n{format_markdown(titles, rows)}"


def find_captions(captions: CaptionFiles, key: str | None, column: str) -> list[str]:
    """Finds the captions of an image in files, each once; none if it has no key."""
    texts = []
    if key is not None:
        for row in captions.find_rows(key):
            texts += read_captions(row, column)
    return list(dict.fromkeys(texts))


def warn_of_truncated(counts: Counter, max_length: int) -> None:
    """Warns of captions of which the dual encoder reads only the beginning."""
    if counts["truncated"] > 0:
        logger.warning(
            f"{counts['truncated']} of {counts['captions']} captions have more than the {max_length} "
            "tokens that the dual encoder reads: their similarities are those of the beginning."
        )


def warn_of_exchanged_images(counts: Counter) -> None:
    """Warns of images that are not those that the captions with their keys were made of."""
    if counts["others"] > 0:
        logger.warning(
            f"{counts['others']} of {counts['images']} images are not those that the captions with their keys were "
            f"made of, by the hashes in {IMAGE_HASH_COLUMN!r}. That is right if their files were written anew since; "
            "else captions are compared with other images."
        )


class PairReader:
    """
    Reads the image of a row and the captions that files have for its key, and counts them.

    Args:
        captions ([`CaptionFiles`]): The files.
        key_column (`str`): The column of keys of the rows.
        image_column (`str`): The column of images, undecoded.
    """

    def __init__(self, captions: CaptionFiles, key_column: str, image_column: str):
        self.captions = captions
        self.key_column = key_column
        self.image_column = image_column
        self.counts = Counter()
        self.hashes = {}  # of image files, by their keys

    def __call__(self, row_index: int, row: dict) -> Iterator[Item]:
        """
        Reads a row. Without captions its image is not read. Raises a `ValueError` if an earlier row has the same key
        and another image.
        """
        self.counts["rows"] += 1
        key = read_key(row, self.key_column)
        (column,) = self.captions.caption_columns
        texts = find_captions(self.captions, key, column)
        if not texts:
            return
        content = read_file(row[self.image_column])
        sha256 = hashlib.sha256(content).hexdigest()
        if self.hashes.setdefault(key, sha256) != sha256:
            raise ValueError(
                f"Two different images have the key {key!r}, the second in row {row_index}: it "
                "would not be known which caption is whose. Name a column of unique keys with "
                "`--key_column`, and its values in `--captions` with `--file_key_column`."
            )
        self.counts["images"] += 1
        if self.captions.knows_images and self.captions.is_of_other_image(key, sha256):
            self.counts["others"] += 1
        yield Item((row_index, key, None), "image", read_image({"bytes": content, "path": None}))
        for text in texts:
            yield Item((row_index, key, text), "long", mark_sub_captions(text) or text)


def measure_similarities(
    files: list[Path],
    columns: FilterArguments,
    similarity: SimilarityArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    inference: InferenceArguments,
) -> Iterator[tuple[tuple[str, str], float]]:
    """
    Measures the cosine similarity of every caption in files with its image, if that is in a dataset.

    Args:
        files (`list[Path]`):
            The files of captions.
        columns ([`FilterArguments`]):
            Their columns of captions and keys.
        similarity ([`SimilarityArguments`]):
            The dual encoder, and the column of keys of the dataset.
        source ([`SourceArguments`]):
            The dataset of the images.
        split ([`TrainSplitArguments`]):
            The rows of it that are read.
        inference ([`InferenceArguments`]):
            How the dual encoder runs.

    Yields:
        `tuple[tuple[str, str], float]`: the image's key with the caption, and their similarity.

    Raises:
        `ValueError`: if there is no such column of keys, or no image has a caption.
    """
    key_column = similarity.key_column or columns.file_key_column
    dataset = load_split(source, split.train_split, split.max_train_samples, key_column=key_column)
    dataset = undecoded(dataset, source.image_column)
    names = get_columns(dataset)
    if find_column(names, key_column) is None:
        raise ValueError(
            f"`--key_column {key_column}` is not a column of the dataset, which has {names}: name "
            "the one whose values stand in `--file_key_column` of `--captions`."
        )
    check_fields(dataset, key_column=key_column)
    captions = CaptionFiles([str(file) for file in files], columns.file_key_column, [columns.caption_column])
    read_row = PairReader(captions, key_column, source.image_column)
    counts = read_row.counts
    encoder = load_encoder(similarity.dual_encoder, inference, argument="dual_encoder")
    encoder.check_single_embeddings()
    hint_at_auto(inference, encoder.model, encoder.processor, encoder.computation)
    rows = progress_bar(batch_rows(dataset, inference.batch_size), desc="Images", unit=" batches")
    prepared = map(RowCollator(encoder.preprocessing, read_row), rows)
    group_size = BATCHES_PER_GROUP * inference.batch_size
    images = {}
    group = None
    for embedded in embed_rows(encoder, prepared, group=lambda row_index: row_index // group_size):
        warn_of_unreadable(embedded.unreadable)
        check_finite_batch(embedded, encoder.model, lambda item: f"{item.row_key[1]} ({item.kind})")
        if embedded.group != group:
            group = embedded.group
            images = {}
        counts["truncated"] += sum(item.truncated for item in embedded.entries)
        if embedded.embeds is None:  # no row of the batch has a caption
            continue
        for item, embedding in zip(embedded.entries, embedded.embeds):
            row_index, key, text = item.row_key
            if item.kind == "image":
                images[row_index] = embedding
            else:
                counts["captions"] += 1
                yield (key, text), float(images[row_index] @ embedding)
    warn_of_truncated(counts, encoder.max_length)
    warn_of_exchanged_images(counts)
    if not counts["captions"]:
        raise ValueError(
            f"None of {counts['rows']} images has a caption in `--captions`: name the right "
            "`--key_column` and `--file_key_column`."
        )
