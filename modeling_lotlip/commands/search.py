# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search of images by descriptions: prints rank, similarity and path of the most similar ones.

    lotlip search my_photos "A red boat at a pier. The sea is calm."
    lotlip search my_photos "a red boat" "a house on sand" --k 10 --output_file found.json
    lotlip search my_photos "a red boat" --folder holidays --taken_from 2024-05-01 --taken_to 2024-05-31
    lotlip search --embeddings DIR "a red boat" --kind long

A folder is indexed once and kept up to date: new files are embedded, deleted ones removed. `lotlip app` searches the
same index. Results that are no more similar than those of texts that fit no image are marked as weak. Images that
are nearly the same are one result. With --embeddings the images or captions of `lotlip embed` are searched.
"""

import logging
import sys
from typing import TYPE_CHECKING

from ..encoder.arguments import OutputArguments
from ..search.arguments import SearchArguments, SearchModelArguments
from ..utils.keys import join_key


if TYPE_CHECKING:
    from ..search.searcher import Result

ARGUMENTS = (SearchArguments, SearchModelArguments, OutputArguments)
logger = logging.getLogger(__name__)

NUM_NAMED = 20  # files that cannot be read
WEAK = "Weak matches: these may not fit your description"


def run(search: SearchArguments, arguments: SearchModelArguments, output: OutputArguments) -> None:
    from ..search.searcher import count, open_searcher
    from ..utils.files import read_lines, write_results
    from ..utils.output_folder import FolderInUseError
    from ..utils.terminal import announce, printable

    def report(num_done: int, num_total: int) -> None:
        if num_done == 0 and num_total > 0:
            announce(f"Embedding {count(num_total, 'image')}")

    texts, chosen = search.texts, search.chosen
    if search.texts_file is not None:
        texts = [*texts, *read_lines(search.texts_file, "texts_file")]
    if not texts:
        raise ValueError(f"--texts_file {search.texts_file} holds no text: write one on each line.")
    announce("Loading the model")
    searcher = open_searcher(search, arguments)
    queries = [searcher.embed(text) for text in texts]
    table = searcher.table
    if searcher.folder is not None:
        announce(f"Looking for new images in {searcher.folder}")
        try:
            searcher.update(report, wait=len(table) == 0)
        except FolderInUseError as error:
            logger.warning(f"What is indexed so far is searched: {error}")
    notes, unreadable = searcher.describe(), table.unreadable
    if unreadable:
        named = ", ".join(sorted(unreadable)[:NUM_NAMED]) + ", ..." * (len(unreadable) > NUM_NAMED)
        notes.append(f"Left out, {len(unreadable):,} that cannot be read as an image: {named}.")
    for note in notes:
        print(printable(note), file=sys.stderr)
    num_searched = searcher.count(chosen, search.kind)
    source, answers = table.settings.get("source"), []
    for text, query in zip(texts, queries):
        found = searcher.search(query, search.k, chosen, kind=search.kind, all_copies=search.all_copies)
        results = [{"rank": rank, **describe(hit, search.kind, source)} for rank, hit in enumerate(found, start=1)]
        answer = {"query": text, "truncated": query.is_truncated, "unknown_words": query.unknown_words}
        answers.append({**answer, "results": results})
    num_shown = len(answers[0]["results"])
    if search.k > num_shown:
        what = count(num_searched, "image" if search.kind == "image" else "caption")
        shown = f"all {what} are" if num_searched > 1 else f"{what} is"
        cause = f"--k {search.k} is more than there are: {shown} shown"
        copies = f" as {num_shown} results, with their copies" if num_shown < num_searched else ""
        print(f"{cause}{copies}.", file=sys.stderr)
    print(format_answers(answers, search.photos))
    if output.output_file is not None:
        measured = table.measured(search.kind)
        results = {"kind": search.kind, "k": search.k, "num_images": len(table), "unreadable": unreadable}
        results |= {"recall": 1.0 if measured is None else measured.recall, "queries": answers}
        rows = [{"query": answer["query"], **result} for answer in answers for result in answer["results"]]
        write_results(output.output_file, results, format_answers(answers), rows)


def describe(result: "Result", kind: str, source: object) -> dict:
    """A result for JSON, with the full path of each file if the table is of files."""

    def name(key: str) -> dict[str, str]:
        return {"key": key, "path": join_key(source, key)} if isinstance(source, str) else {"key": key}

    copies = [{**name(copy.key), "similarity": copy.similarity} for copy in result.copies]
    described = {"similarity": result.similarity, **name(result.key)}
    described |= {} if kind == "image" else {"position": result.position}
    return {**described, "weak": result.is_below_threshold, "copies": copies}


def format_answers(answers: list[dict], folder: str | None = None) -> str:
    """The results of each text, a line each, weak ones last: from a folder, or with full paths, also of each copy."""
    from ..utils.terminal import printable

    lines = []

    def name(hit: dict) -> str:
        return hit.get("path", hit["key"]) if folder is None else join_key(folder, hit["key"])

    for answer in answers:
        lines.append(answer["query"] + (" (truncated)" if answer["truncated"] else ""))
        if answer["unknown_words"]:
            lines.append(f"      The model does not know: {', '.join(answer['unknown_words'])}.")
        num_strong = sum(not hit["weak"] for hit in answer["results"])
        for place, hit in enumerate(answer["results"]):
            lines += [f"      {WEAK}:"] if place == num_strong else []
            caption = f"   caption {hit['position']}" if "position" in hit else ""
            copies = f"   (+ {len(hit['copies'])} nearly the same)" if hit["copies"] else ""
            lines.append(f"{hit['rank']:5} {hit['similarity']:8.4f}   {name(hit)}{caption}{copies}")
            lines += [f"      {copy['similarity']:8.4f}   {name(copy)}" for copy in hit["copies"] if folder is None]
    return "\n".join(map(printable, lines))
