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
import os
import sys
from typing import TYPE_CHECKING

from ..encoder.arguments import OutputArguments
from ..search.arguments import SearchArguments, SearchModelArguments


if TYPE_CHECKING:
    from ..search.searcher import Result, Searcher

ARGUMENTS = (SearchArguments, SearchModelArguments, OutputArguments)
logger = logging.getLogger(__name__)

NUM_NAMED = 20  # files that cannot be read
WEAK = "Weak matches: these may not fit your description"


def run(search: SearchArguments, arguments: SearchModelArguments, output: OutputArguments) -> None:
    from ..search.searcher import open_searcher
    from ..utils.files import write_results
    from ..utils.terminal import announce, printable

    texts = read_texts(search)
    announce("Loading the model")
    searcher = open_searcher(search, arguments)
    queries = [searcher.embed(text) for text in texts]
    if searcher.folder is not None:
        update(searcher)
    table = searcher.table
    unreadable = table.unreadable
    for note in [*searcher.describe(), *describe_unreadable(unreadable)]:
        print(printable(note), file=sys.stderr)
    num_searched = searcher.count(search.chosen, search.kind)
    answers = []
    for text, query in zip(texts, queries):
        found = searcher.search(query, search.k, search.chosen, kind=search.kind, all_copies=search.all_copies)
        answers.append(
            {
                "query": text,
                "truncated": query.is_truncated,
                "unknown_words": query.unknown_words,
                "results": describe_results(found, search.kind, table.settings.get("source")),
            }
        )
    num_shown = len(answers[0]["results"])
    if search.k > num_shown:
        print(describe_shortage(search, num_shown, num_searched), file=sys.stderr)
    print(format_answers(answers, search.photos))
    if output.output_file is not None:
        recall = 1.0
        measured = table.measured(search.kind)
        if measured is not None:
            recall = measured.recall
        results = {
            "kind": search.kind,
            "k": search.k,
            "num_images": len(table),
            "unreadable": unreadable,
            "recall": recall,
            "queries": answers,
        }
        rows = []
        for answer in answers:
            rows += [{"query": answer["query"], **result} for result in answer["results"]]
        write_results(output.output_file, results, format_answers(answers), rows)


def read_texts(search: SearchArguments) -> list[str]:
    """Lists the descriptions of a command line and of its file. Raises a `ValueError` if there is none."""
    from ..utils.files import read_lines

    if search.texts_file is None:
        return search.texts
    texts = [*search.texts, *read_lines(search.texts_file, "texts_file")]
    if not texts:
        raise ValueError(f"--texts_file {search.texts_file} holds no text: write one on each line.")
    return texts


def update(searcher: "Searcher") -> None:
    """Updates the index of a folder, and says so. While another program does, what it has so far is searched."""
    from ..search.searcher import count
    from ..utils.output_folder import FolderInUseError
    from ..utils.terminal import announce

    def report(num_done: int, num_total: int) -> None:
        if num_done == 0 and num_total > 0:
            announce(f"Embedding {count(num_total, 'image')}")

    announce(f"Looking for new images in {searcher.folder}")
    try:
        searcher.update(report, wait=len(searcher.table) == 0)
    except FolderInUseError as error:
        logger.warning(f"What is indexed so far is searched: {error}")


def describe_unreadable(unreadable: dict[str, str]) -> list[str]:
    """Makes a sentence on files that cannot be read, which names the first, if there are any."""
    if not unreadable:
        return []
    named = ", ".join(sorted(unreadable)[:NUM_NAMED])
    if len(unreadable) > NUM_NAMED:
        named += ", ..."
    return [f"Left out, {len(unreadable):,} that cannot be read as an image: {named}."]


def describe_shortage(search: SearchArguments, num_shown: int, num_searched: int) -> str:
    """Makes a sentence on a `--k` that is more than there are."""
    from ..search.searcher import count

    name = "caption"
    if search.kind == "image":
        name = "image"
    searched = f"{count(num_searched, name)} is"
    if num_searched > 1:
        searched = f"all {count(num_searched, name)} are"
    if num_shown < num_searched:
        return f"--k {search.k} is more than there are: {searched} shown as {num_shown} results, with their copies."
    return f"--k {search.k} is more than there are: {searched} shown."


def describe_key(key: str, source: object) -> dict[str, str]:
    """Names an image for JSON, with the full path of its file if the table is of files."""
    if isinstance(source, str):
        return {"key": key, "path": os.path.join(source, key)}
    return {"key": key}


def describe_results(results: list["Result"], kind: str, source: object) -> list[dict]:
    """Describes results for JSON, the first with rank 1; `source` is the folder of a table of files."""
    described = []
    for rank, result in enumerate(results, start=1):
        fields = {"rank": rank, "similarity": result.similarity, **describe_key(result.key, source)}
        if kind != "image":
            fields["position"] = result.position
        fields["weak"] = result.is_below_threshold
        fields["copies"] = [
            {**describe_key(copy.key, source), "similarity": copy.similarity} for copy in result.copies
        ]
        described.append(fields)
    return described


def format_answers(answers: list[dict], folder: str | None = None) -> str:
    """
    Formats the results of each text, a line each, weak ones last: with names in a folder, or with full paths, also of
    each copy.
    """
    from ..utils.terminal import printable

    lines = []
    for answer in answers:
        title = answer["query"]
        if answer["truncated"]:
            title += " (truncated)"
        lines.append(title)
        if answer["unknown_words"]:
            lines.append(f"      The model does not know: {', '.join(answer['unknown_words'])}.")
        was_weak = False
        for result in answer["results"]:
            if result["weak"] and not was_weak:
                lines.append(f"      {WEAK}:")
            was_weak = result["weak"]
            lines += format_result(result, folder)
    return "\n".join(map(printable, lines))


def format_result(result: dict, folder: str | None) -> list[str]:
    """Formats a result as a line, and without a folder each of its copies as another."""
    line = f"{result['rank']:5} {result['similarity']:8.4f}   {name_result(result, folder)}"
    if "position" in result:
        line += f"   caption {result['position']}"
    copies = result["copies"]
    if copies:
        line += f"   (+ {len(copies)} nearly the same)"
    if folder is not None:
        return [line]
    return [line, *(f"      {copy['similarity']:8.4f}   {name_result(copy, folder)}" for copy in copies)]


def name_result(result: dict, folder: str | None) -> str:
    """Names the file of a result or a copy, as the folder was named, or by its full path; else its key."""
    if folder is not None:
        return os.path.join(folder, result["key"])
    return result.get("path", result["key"])
