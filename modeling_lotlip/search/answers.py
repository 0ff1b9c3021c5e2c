# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Answers to texts in the terminal, from a folder of images, which is brought up to date, or from a table."""

import logging
import os
import sys
from pathlib import Path, PurePath

from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import IMAGE_EXTENSIONS
from ..embedding.store import describe_missing
from ..embedding.table import EmbeddingTable
from ..output_folder import FolderInUseError
from ..terminal import progress_bar
from .filters import EVERYTHING, Filter
from .pictures import PictureFolder, describe_others
from .query import Query, choose_splitter, embed_query, search_table
from .update import Changes, find_table, update_table


logger = logging.getLogger(__name__)

# Of files that cannot be read this many are named
NUM_NAMED = 20
# What stands above results that are no better than chance
WEAK = "Weak results (texts that fit no picture find results as similar):"


def note_file_names(texts: list[str]) -> list[str]:
    """Sentences on texts that look like names of files: they are searched for all the same."""
    notes = []
    for text in map(str.strip, texts):
        ending = PurePath(text).suffix.lower()
        if ending == ".txt" and len(text.split()) == 1:
            notes.append(f"{text!r} is searched for as a text. A file of texts is named by --texts_file.")
        elif ending in IMAGE_EXTENSIONS and len(text.split()) == 1:
            notes.append(f"{text!r} is searched for as a text. `lotlip app` searches with pictures.")
    return notes


def search_folder(
    pictures: PictureFolder,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    texts: list[str],
    index_dir: Path | None = None,
    splitter: str | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    **options: object,
) -> dict:
    """
    The images of a folder that are most similar to each of several texts. First its table is made, or that of an
    earlier search brought up to date.

    Args:
        pictures (`PictureFolder`):
            The folder.
        model (`PreTrainedModel`):
            A dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        texts (`list[str]`):
            Descriptions of any length.
        index_dir (`Path`, *optional*):
            The folder of all tables: see [`find_table`].
        splitter (`str`, *optional*):
            How the sentences of a text are split. Default: see [`choose_splitter`].
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        batch_size (`int`, *optional*, defaults to 64):
            Images in a batch.
        options:
            Of [`answer`].

    Returns:
        `dict`: what [`answer`] returns, with `photos` and `unreadable`, by name what is wrong.

    Raises:
        `ValueError`: if there is no image, the filter lets none through, or the model knows no word of a text.
        `OSError`: if there is no image any more.
    """
    splitter = splitter or choose_splitter()
    queries = [embed_query(model, processor, text, max_length=max_length, splitter=splitter) for text in texts]
    table = find_table(pictures, model, processor, index_dir)
    notes = update_with_progress(table, pictures, model, processor, batch_size)
    results = answer(table, texts, queries, place=str(pictures.folder.absolute()), **options)
    results["notes"] = notes + results["notes"]
    return {"photos": pictures.place, "unreadable": table.unreadable, **results}


def search_embeddings(
    table: EmbeddingTable,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    texts: list[str],
    max_length: int | None = None,
    **options: object,
) -> dict:
    """
    What [`answer`] returns of the embeddings in a table, which is searched as it is. Texts are split as its captions
    were.

    Raises:
        `ValueError`: if the embeddings are of another model, there are none of the kind, or the model knows no word of
        a text.
    """
    table.check_model(model, processor)
    splitter, source = table.settings.get("sub_caption_splitter") or choose_splitter(), table.settings.get("source")
    queries = [embed_query(model, processor, text, max_length=max_length, splitter=splitter) for text in texts]
    return answer(table, texts, queries, place=source if isinstance(source, str) else None, **options)


def answer(
    table: EmbeddingTable,
    texts: list[str],
    queries: list[Query],
    k: int = 5,
    kind: str = "image",
    those: Filter = EVERYTHING,
    all_copies: bool = False,
    place: str | None = None,
) -> dict:
    """
    What a table has for queries.

    Args:
        table (`EmbeddingTable`):
            The table.
        texts (`list[str]`), queries (`list[Query]`):
            What is searched for.
        k (`int`, *optional*, defaults to 5):
            How many results for each query, at most.
        kind (`str`, *optional*, defaults to `"image"`):
            What is searched: `"image"`, `"short"` or `"long"`.
        those ([`Filter`], *optional*):
            Which images are searched.
        all_copies (`bool`, *optional*, defaults to `False`):
            Whether images that are nearly the same are separate results.
        place (`str`, *optional*):
            The folder or the URL of the files.

    Returns:
        `dict`: `kind`, `k`, `num_pictures`, `recall` (the share of the exact results that an approximate search finds,
        as measured; 1 where the search is exact), `notes`, and for each of the `queries` the `query` itself, whether
        it was `truncated`, its `unknown_words`, and its `results`: `rank` from 1, `similarity`, the `key`, its full
        `path` if it is a file, the `position` of a caption, whether it is `weak` (see [`Measurements`]), and its
        `copies`, each with `key`, `path` and `similarity`.

    Raises:
        `ValueError`: if there is nothing to search in.
    """
    notes = describe_missing(table) + check_filter(table, those, k, kind)
    measured = table.measured(kind)

    def name(key: str) -> dict[str, str]:
        return {"key": key} if place is None else {"key": key, "path": os.path.join(place, key)}

    answers = []
    for text, query in zip(texts, queries):
        results = []
        for rank, hit in enumerate(search_table(table, query, k, those, not all_copies, kind), start=1):
            copies = [{**name(copy.name), "similarity": copy.similarity} for copy in hit.copies]
            found = {"rank": rank, "similarity": hit.similarity, **name(hit.name)}
            found |= {} if kind == "image" else {"position": hit.position}
            results.append({**found, "weak": hit.is_weak, "copies": copies})
        truncated = any(sentence.unread for sentence in query.sentences)
        answers.append(
            {"query": text, "truncated": truncated, "unknown_words": query.unknown_words, "results": results}
        )
    return {
        "kind": kind,
        "k": k,
        "num_pictures": len(table),
        "recall": 1.0 if measured is None else measured.recall,
        "notes": notes,
        "queries": answers,
    }


def check_filter(table: EmbeddingTable, those: Filter, k: int, kind: str) -> list[str]:
    """
    Sentences on how many embeddings are searched.

    Raises:
        `ValueError`: if there is none.
    """
    num, what = table.count(kind, those.condition), "pictures" if kind == "image" else f"{kind} captions"
    if num == 0 and those != EVERYTHING:
        folders = ", ".join(table.folders[:NUM_NAMED]) or "none"
        raise ValueError(f"There are no {what} {those}. The folders in the collection: {folders}.")
    if num == 0:
        raise ValueError(f"{table.folder} holds no embeddings of {what}: search for another --kind.")
    notes = [] if those == EVERYTHING else [f"Searched are the {num:,} {what} {those}."]
    if k > num:
        notes.append(f"--k {k} is more than there are: all {num} are shown.")
    return notes


def update_with_progress(
    table: EmbeddingTable,
    pictures: PictureFolder,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch_size: int = 64,
) -> list[str]:
    """
    Makes a table that of a folder as it is now, with a progress bar on standard error: see [`update_table`]. While
    another program does that, what is there is searched; if nothing is, it is waited for.

    Returns:
        `list[str]`: sentences on the table.

    Raises:
        `ValueError`: if there is no image in it.
        `OSError`: if there is none any more.
    """
    changes = Changes(0, 0, 0)
    with progress_bar(desc="Indexing", unit=" pictures", delay=1) as progress:

        def report(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        def announce() -> None:
            progress.write(f"Making the search in {len(table):,} pictures fast ...", file=sys.stderr)

        try:
            options = {"num_workers": None, "wait": len(table) == 0}
            changes = update_table(table, pictures, model, processor, batch_size, report, announce, **options)
        except FolderInUseError as error:
            logger.warning(f"What is indexed so far is searched: {error}")
    num_pictures, left_out = len(table), describe_left_out(table, pictures)
    if num_pictures == 0:
        remedy = "Name a folder with pictures, such as JPEG, PNG or WebP."
        raise ValueError(" ".join([f"There is no picture in {pictures.place}.", *left_out, remedy]))
    done = ", ".join(f"{number:,} {name}" for name, number in changes._asdict().items() if number)
    summary = f"{num_pictures:,} pictures in {pictures.place}" + f" (files: {done})" * bool(done)
    return [f"{summary}{table.describe_search()}.", *left_out]


def describe_left_out(table: EmbeddingTable, pictures: PictureFolder) -> list[str]:
    """Sentences on the files of a folder that cannot be searched."""
    lines = []
    names = sorted(table.unreadable)
    if names:
        named = ", ".join(names[:NUM_NAMED]) + ", ..." * (len(names) > NUM_NAMED)
        lines.append(f"Left out, {len(names):,} that cannot be read as a picture: {named}.")
    return lines + describe_others(pictures)


def list_rows(answers: list[dict]) -> list[dict]:
    """All results of all texts, a row each."""
    return [{"query": answer["query"], **result} for answer in answers for result in answer["results"]]


def format_answers(results: dict, are_paths_full: bool = False) -> str:
    """
    The results of [`answer`], a line each; weak ones stand below a line that says so.

    Args:
        results (`dict`):
            What that returns.
        are_paths_full (`bool`, *optional*, defaults to `False`):
            Write all of a path, also that of each copy, and not the path from where the search was started.
    """
    lines = []

    def name(hit: dict) -> str:
        if "photos" in results and not are_paths_full:
            return str(Path(results["photos"], hit["key"]))
        return hit.get("path", hit["key"])

    for answer in results["queries"]:
        lines.append(answer["query"] + (" (truncated)" if answer["truncated"] else ""))
        if answer["unknown_words"]:
            lines.append(f"      The model does not know: {', '.join(answer['unknown_words'])}.")
        is_weak = False
        for hit in answer["results"]:
            if hit["weak"] and not is_weak:
                lines.append(f"      {WEAK}")
                is_weak = True
            caption = f"   caption {hit['position']}" if "position" in hit else ""
            copies = f"   (+ {len(hit['copies'])} nearly the same)" if hit["copies"] else ""
            lines.append(f"{hit['rank']:5} {hit['similarity']:8.4f}   {name(hit)}{caption}{copies}")
            if are_paths_full:
                lines += [f"      {copy['similarity']:8.4f}   {name(copy)}" for copy in hit["copies"]]
    return "\n".join(lines)
