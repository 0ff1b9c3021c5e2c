# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search of images by descriptions: prints rank, similarity and path of the most similar ones.

    lotlip search my_photos "A red boat at a pier. The sea is calm."
    lotlip search my_photos "a red boat" "a house on sand" --k 10 --output_file found.json
    lotlip search my_photos "a red boat" --folder holidays --taken_from 2024-05-01 --taken_to 2024-05-31
    lotlip search --embeddings DIR "a red boat" --kind long
    lotlip search --forget my_photos

A folder is indexed once and kept up to date: new files are embedded, deleted ones removed, moved ones known again.
`lotlip app` searches the same index; --forget deletes it, with --model that of one model alone. Results that are no
more similar than those of texts that fit no image are marked as weak. Images that are nearly the same are one result.
With --embeddings the images or captions of `lotlip embed` are searched.
"""

import logging
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from ..encoder.arguments import OutputArguments
from ..search.arguments import SearchArguments, SearchModelArguments
from ..utils.arguments import refuse_given
from ..utils.keys import join_key


if TYPE_CHECKING:
    from ..search.searcher import Result, Searcher

ARGUMENTS = (SearchArguments, SearchModelArguments, OutputArguments)
logger = logging.getLogger(__name__)

NUM_NAMED = 20  # files that cannot be read
WEAK = "Weak matches: these may not fit your description"


def run(search: SearchArguments, arguments: SearchModelArguments, output: OutputArguments) -> None:
    """Searches a folder of images for texts, and prints the results; or deletes its indices."""
    from ..search.searcher import open_searcher
    from ..utils.files import write_results
    from ..utils.terminal import announce

    if search.forget is not None:
        forget(search, arguments, output)
        return
    texts = read_texts(search)
    announce("Loading the model")
    searcher = open_searcher(search, arguments)
    answers = find_answers(searcher, search, texts)
    # the file first: whoever reads the results, such as `head`, may have seen enough
    try:
        if output.output_file is not None:
            rows = []
            for answer in answers:
                rows += [{"query": answer["query"], **result} for result in answer["results"]]
            results = describe_search(searcher, search, answers)
            write_results(output.output_file, results, format_answers(answers), rows)
    finally:
        print(format_answers(answers, search.photos))


def forget(search: SearchArguments, arguments: SearchModelArguments, output: OutputArguments) -> None:
    """
    Deletes the indices of a folder of images, or those of one model, and prints which. Raises a `ValueError` at
    options that have no effect on that.
    """
    from ..search.index import forget_folder
    from ..utils.terminal import printable

    names = {field.name for field in (*fields(arguments), *fields(output))} - {"model_name_or_path"}
    for group in (arguments, output):
        refuse_given(group, names, "with --forget")
    forgotten = forget_folder(search.forget, search.index_dir, arguments.model_name_or_path)
    for path, model in forgotten.items():
        print(printable(f"Deleted the index {path} of the model {model}."))


def read_texts(search: SearchArguments) -> list[str]:
    """Reads the descriptions. Raises a `ValueError` if there is none."""
    from ..utils.files import read_lines

    texts = list(search.texts)
    if search.texts_file is not None:
        texts += read_lines(search.texts_file, "texts_file")
    if not texts:
        raise ValueError(f"--texts_file {search.texts_file} holds no text: write one on each line.")
    return texts


def find_answers(searcher: "Searcher", search: SearchArguments, texts: list[str]) -> list[dict]:
    """
    Brings the index up to date, says on standard error what is searched, and finds the results of each text, for JSON.
    """
    from ..search.searcher import count
    from ..utils.output_folder import FolderInUseError
    from ..utils.terminal import announce

    def report(num_done: int, num_total: int) -> None:
        if num_done == 0 and num_total > 0:
            announce(f"Embedding {count(num_total, 'file')}")

    queries = [searcher.embed(text) for text in texts]
    if searcher.folder is not None:
        announce(f"Looking for new images in {searcher.folder}")
        try:
            searcher.update(report, wait=len(searcher.table) == 0)
        except FolderInUseError as error:
            logger.warning(f"What is indexed so far is searched: {error}")
    say_what_is_searched(searcher, search)
    num_searched = searcher.count(search.chosen, search.kind)
    source = searcher.table.settings.get("source")
    answers = []
    for text, query in zip(texts, queries):
        found = searcher.search(query, search.k, search.chosen, kind=search.kind, all_copies=search.all_copies)
        results = []
        for rank, hit in enumerate(found, start=1):
            results.append({"rank": rank, **describe_result(hit, search.kind, source)})
        answers.append(
            {
                "query": text,
                "truncated": query.is_truncated,
                "unknown_words": query.unknown_words,
                "results": results,
            }
        )
    say_if_all_are_shown(search, num_searched, num_shown=len(answers[0]["results"]))
    return answers


def say_what_is_searched(searcher: "Searcher", search: SearchArguments) -> None:
    """Prints what is searched, how well, and what is left out."""
    from ..utils.terminal import printable

    notes = searcher.describe(search.chosen, search.kind)
    unreadable = searcher.table.unreadable
    if unreadable:
        by_cause = {}
        for key in sorted(unreadable)[:NUM_NAMED]:
            by_cause.setdefault(unreadable[key], []).append(key)
        named = [f"{', '.join(keys)} ({cause})" for cause, keys in by_cause.items()]
        if len(unreadable) > NUM_NAMED:
            named.append("...")
        notes.append(f"Left out, {len(unreadable):,} that cannot be read as an image: {'; '.join(named)}.")
    for note in notes:
        print(printable(note), file=sys.stderr)


def say_if_all_are_shown(search: SearchArguments, num_searched: int, num_shown: int) -> None:
    """Prints why there are fewer results than were asked for."""
    from ..search.searcher import count

    if search.k <= num_shown:
        return
    what = count(num_searched, "image" if search.kind == "image" else "caption")
    shown = f"all {what} are shown"
    if num_searched == 1:
        shown = f"{what} is shown"
    if num_shown < num_searched:
        shown += f" as {num_shown} results, with their copies"
    print(f"--k {search.k} is more than there are: {shown}.", file=sys.stderr)


def describe_search(searcher: "Searcher", search: SearchArguments, answers: list[dict]) -> dict:
    """Collects what was asked and found, for JSON; the recall is that of what was asked."""
    from ..table.vector_index import plan_search

    return {
        "kind": search.kind,
        "k": search.k,
        "num_images": len(searcher.table),
        "folder": search.chosen.folder,
        "taken_from": search.taken_from,
        "taken_to": search.taken_to,
        "num_searched": searcher.count(search.chosen, search.kind),
        "num_undated": searcher.count_undated(search.chosen, search.kind),
        "unreadable": searcher.table.unreadable,
        "recall": plan_search(searcher.table, search.kind, search.chosen.condition).recall,
        "queries": answers,
    }


def describe_result(result: "Result", kind: str, source: object) -> dict:
    """Describes a result for JSON, with the full path of each file if the table is of files."""

    def describe(hit: "Result") -> dict[str, object]:
        described = {"similarity": hit.similarity, "key": hit.key}
        if isinstance(source, str):
            described["path"] = join_key(source, hit.key)
        if kind != "image":
            described["position"] = hit.position
        return described

    copies = [describe(copy) for copy in result.copies]
    return {**describe(result), "weak": result.is_below_threshold, "copies": copies}


def format_answers(answers: list[dict], folder: str | None = None) -> str:
    """
    Writes the results of each text, a line each, weak ones last: from a folder, or with full paths, also of each copy.
    """
    from ..utils.terminal import printable

    lines = []

    def describe(hit: dict) -> str:
        name = hit.get("path", hit["key"])
        if folder is not None:
            name = join_key(folder, hit["key"])
        line = f"{hit['similarity']:8.4f}   {name}"
        if "position" in hit:
            line += f"   caption {hit['position']}"
        return line

    for answer in answers:
        lines.append(answer["query"])
        if answer["truncated"]:
            lines[-1] += " (truncated)"
        if answer["unknown_words"]:
            lines.append(f"      The model does not know: {', '.join(answer['unknown_words'])}.")
        num_strong = sum(not hit["weak"] for hit in answer["results"])
        for index, hit in enumerate(answer["results"]):
            if index == num_strong:
                lines.append(f"      {WEAK}:")
            line = f"{hit['rank']:5} {describe(hit)}"
            if hit["copies"]:
                line += f"   (+ {len(hit['copies'])} nearly the same)"
            lines.append(line)
            if folder is None:
                lines += [f"      {describe(copy)}" for copy in hit["copies"]]
    return "\n".join(map(printable, lines))
