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
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from accelerate import PartialState
from tqdm.auto import tqdm

from ..captioning.files import CAPTIONER_COLUMN, PROMPT_COLUMN, captioner_of, find_files, rewrite
from ..captioning.report import (
    SIMILARITY_RULE,
    Outcomes,
    hash_captions,
    measure_images,
    measure_kept,
    summarize_similarities,
    write_report,
)
from ..captioning.rules import add_rule_arguments, apply_rules, read_rules
from ..data.arguments import HelpFormatter, add_data_arguments
from ..data.side_captions import REJECTED_COLUMN, hash_keys
from ..sub_captions import split_sub_captions


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
        if find_unlike is not None and caption_filter.outcomes.is_any_kept():
            caption_filter.unlike = find_unlike(judged)
        for path in tqdm(judged, desc="Writing", unit=" files"):
            if len(caption_filter.repeated) or caption_filter.unlike:
                rewrite(path, output_dir / path.name, caption_filter.columns, caption_filter.compare)
            else:
                path.replace(output_dir / path.name)
    finally:
        shutil.rmtree(judged_dir)
    return [output_dir / file.name for file in files]


def parse_args() -> argparse.Namespace:
    # the data arguments name captions of the images, which are not read here
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter, conflict_handler="resolve")
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
    group.add_argument("--batch_size", type=int, default=64, help="Images or texts in a batch.")
    group.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="What the model computes in."
    )
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
    report = {}

    def find_unlike(judged: list[Path]) -> set[int]:
        report[SIMILARITY_RULE], unlike = summarize_similarities(measure_images(judged, args, state), args)
        return unlike

    caption_filter = Filter(args, rules)
    filtered = filter_files(files, args.output_dir, caption_filter, find_unlike if args.dual_encoder else None)
    if not caption_filter.outcomes.counts:
        raise ValueError(f"`--captions {' '.join(args.captions)}` have no rows.")
    report = {"rules": rules, **caption_filter.outcomes.to_dict(), **report}
    folder = args.output_dir / "report"
    is_any_kept = caption_filter.outcomes.is_any_kept()
    if args.report and is_any_kept:
        report |= measure_kept(filtered, folder, args, state)
    outcomes = write_report(report, folder)
    print("\n".join(outcomes).split("\n### ")[0])
    if not is_any_kept:
        print("No caption is kept: there is nothing to measure, nor to train on.")


if __name__ == "__main__":
    main()
