# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Answers to texts in the terminal, from a folder of pictures, which is brought up to date, or of embeddings."""

import logging
import os
import sys
from pathlib import Path, PurePath

from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import IMAGE_EXTENSIONS
from ..embedding.search import format_query, search_folder
from ..embedding.store import check_model, count_embeddings
from ..terminal import progress_bar
from .filters import EVERYTHING, Filter
from .index import Index, describe_effort, find_index, is_index
from .pictures import PictureFolder, describe_others
from .query import Query, check_words, choose_splitter, embed_query, search_index
from .update import Changes, update_index


logger = logging.getLogger(__name__)

# Of files that cannot be read so many are named
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


def search_photos(
    pictures: PictureFolder,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    texts: list[str],
    k: int = 5,
    index_dir: Path | None = None,
    splitter: str | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    those: Filter = EVERYTHING,
    all_copies: bool = False,
) -> dict:
    """
    The pictures of a folder that are most similar to each of several texts. First its index is made, or that of an
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
        k (`int`, *optional*, defaults to 5):
            How many results for each text, at most.
        index_dir (`Path`, *optional*):
            The folder of all indices: see [`find_index`].
        splitter (`str`, *optional*):
            How the sentences of a text are split. Default: see [`choose_splitter`].
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        batch_size (`int`, *optional*, defaults to 64):
            Pictures in a batch.
        those ([`Filter`], *optional*):
            Which pictures are searched.
        all_copies (`bool`, *optional*, defaults to `False`):
            Whether pictures that are nearly the same are results of their own.

    Returns:
        `dict`: `photos`, `num_pictures`, `recall` (the share of the exact results that an approximate search finds, as
        measured; 1 where the search is exact), `unreadable` (by name what is wrong), `notes` on the collection, and
        for each of the `queries` the `query` itself, whether it was `truncated`, its `unknown_words`, and its
        `results`: `rank` from 1, `similarity`, the full `path`, the `name` in the collection, whether it is `weak`
        (see [`Levels`]), and its `copies`, each with `path` and `similarity`.

    Raises:
        `ValueError`: if there is no picture, the filter lets none through, or the model knows no word of a text.
        `OSError`: if there is no picture any more.
    """
    splitter = splitter or choose_splitter()
    queries = [embed_query(model, processor, text, max_length=max_length, splitter=splitter) for text in texts]
    index = find_index(pictures, model, processor, index_dir)
    notes = update_with_progress(index, pictures, model, processor, batch_size)
    notes += check_filter(index, those, k)
    effort = index.effort
    results = {
        "photos": pictures.place,
        "num_pictures": len(index),
        "recall": 1.0 if effort is None else effort.recall,
        "unreadable": index.unreadable,
    }
    place = str(pictures.folder.absolute())
    answers = [answer_query(index, text, query, k, place, those, all_copies) for text, query in zip(texts, queries)]
    return results | {"notes": notes, "queries": answers}


def check_filter(index: Index, those: Filter, k: int) -> list[str]:
    """
    Sentences on how many pictures are searched.

    Raises:
        `ValueError`: if there is none.
    """
    num_pictures = index.count(those)
    if num_pictures == 0 and those != EVERYTHING:
        folders = ", ".join(index.folders[:NUM_NAMED]) or "none"
        raise ValueError(f"There are no pictures {those}. The folders in the collection: {folders}.")
    notes = [] if those == EVERYTHING else [f"Searched are the {num_pictures:,} pictures {those}."]
    if k > num_pictures:
        notes.append(f"--k {k} is more than there are: all {num_pictures} are shown.")
    return notes


def answer_query(
    index: Index,
    text: str,
    query: Query,
    k: int,
    place: str | None,
    those: Filter = EVERYTHING,
    all_copies: bool = False,
) -> dict:
    """What is found for a text, by its path in a folder or an object store, or by its name."""

    def find_path(name: str) -> str:
        return name if place is None else os.path.join(place, name)

    found = []
    for rank, result in enumerate(search_index(index, query, k, those, not all_copies), start=1):
        copies = [{"path": find_path(copy.name), "similarity": copy.similarity} for copy in result.copies]
        named = {"path": find_path(result.name), "name": result.name}
        found.append(
            {"rank": rank, "similarity": result.similarity, **named, "weak": result.is_weak, "copies": copies}
        )
    truncated = any(sentence.unread for sentence in query.sentences)
    return {"query": text, "truncated": truncated, "unknown_words": query.unknown_words, "results": found}


def search_embeddings(
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    texts: list[str],
    kind: str = "image",
    k: int = 5,
    max_length: int | None = None,
    model_name_or_path: str = "the model",
    those: Filter = EVERYTHING,
    all_copies: bool = False,
) -> dict:
    """
    The images or captions in a folder of `lotlip embed`, or the pictures in that of an index, that are most similar to
    each of several texts. An index is searched as it is.

    Args:
        folder (`Path`):
            The folder.
        model (`PreTrainedModel`):
            The dual encoder that the embeddings are of.
        processor (`ProcessorMixin`):
            Its processor.
        texts (`list[str]`):
            Descriptions of any length.
        kind (`str`, *optional*, defaults to `"image"`):
            What to search for: `"image"`, `"short"` or `"long"`.
        k (`int`, *optional*, defaults to 5):
            How many results for each text, at most.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        model_name_or_path (`str`, *optional*):
            How messages call the model.
        those ([`Filter`], *optional*):
            Which pictures of an index are searched.
        all_copies (`bool`, *optional*, defaults to `False`):
            Whether pictures of an index that are nearly the same are results of their own.

    Returns:
        `dict`: what [`search_folder`] returns, `notes`, and for each query its `unknown_words`. Of an index `kind`,
        `k`, `recall`, `notes` and `queries` as [`search_photos`] has them.

    Raises:
        `ValueError`: if the model knows no word of a text, the folder is none of its embeddings, or a filter is given
        and it is no index.
    """
    if is_index(folder):
        options = (kind, k, max_length, model_name_or_path, those, all_copies)
        return search_stored_index(folder, model, processor, texts, *options)
    if those != EVERYTHING or all_copies:
        raise ValueError(
            f"--folder, --taken_from, --taken_to and --all_copies are of PHOTOS and of indices: {folder} holds "
            "embeddings of `lotlip embed`, which do not note folders and dates, and are all shown."
        )
    unknown = [check_words(processor, text) for text in texts]
    num_embeds, notes = count_embeddings(folder)[kind], []
    if 0 < num_embeds < k:
        notes.append(f"--k {k} is more than there are: all {num_embeds} are shown.")
        k = num_embeds
    results = search_folder(
        folder, model, processor, texts, kind, k, max_length, model_name_or_path=model_name_or_path
    )
    for answer, words in zip(results["queries"], unknown):
        answer["unknown_words"] = words
    return results | {"notes": notes}


def search_stored_index(
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    texts: list[str],
    kind: str,
    k: int,
    max_length: int | None,
    model_name_or_path: str,
    those: Filter,
    all_copies: bool,
) -> dict:
    """What [`search_embeddings`] returns of an index."""
    if kind != "image":
        raise ValueError(f"--kind {kind} is of a folder of `lotlip embed`: {folder} is an index, of pictures only.")
    source = check_model(folder, model, model_name_or_path)["source"]
    index = Index.open(folder)
    effort = index.effort
    if len(index) == 0:
        raise ValueError(f"--embeddings_dir {folder} holds no pictures.")
    notes = check_filter(index, those, k)
    if index.of_tokens:
        notes.append(f"{len(index):,} pictures{describe_effort(index)}.")
    place = source if isinstance(source, str) else None
    splitter, answers = choose_splitter(), []
    for text in texts:
        query = embed_query(model, processor, text, max_length=max_length, splitter=splitter)
        answers.append(answer_query(index, text, query, k, place, those, all_copies))
    recall = 1.0 if effort is None else effort.recall
    return {"kind": kind, "k": k, "recall": recall, "notes": notes, "queries": answers}


def update_with_progress(
    index: Index, pictures: PictureFolder, model: PreTrainedModel, processor: ProcessorMixin, batch_size: int = 64
) -> list[str]:
    """
    Makes an index that of a folder as it is now, with a progress bar on standard error: see [`update_index`]. While
    another program makes it, what that has done so far is there.

    Returns:
        `list[str]`: sentences on the index.

    Raises:
        `ValueError`: if there is no picture in it.
        `OSError`: if there is none any more.
    """
    changes = Changes(0, 0, 0)
    with progress_bar(desc="Indexing", unit=" pictures", delay=1) as progress:

        def report(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        def announce() -> None:
            progress.write(f"Making the search in {len(index):,} pictures fast ...", file=sys.stderr)

        try:
            changes = update_index(index, pictures, model, processor, batch_size, report, announce, num_workers=None)
        except BlockingIOError:
            logger.warning("Another program is indexing the pictures: what it has done so far is searched.")
    num_pictures, left_out = len(index), describe_left_out(index, pictures)
    if num_pictures == 0:
        remedy = "Name a folder with pictures, such as JPEG, PNG or WebP."
        raise ValueError(" ".join([f"There is no picture in {pictures.place}.", *left_out, remedy]))
    done = ", ".join(f"{number:,} {name}" for name, number in changes._asdict().items() if number)
    summary = f"{num_pictures:,} pictures in {pictures.place}" + f" (files: {done})" * bool(done)
    return [f"{summary}{describe_effort(index)}.", *left_out]


def describe_left_out(index: Index, pictures: PictureFolder) -> list[str]:
    """Sentences on the files of a folder that cannot be searched."""
    lines = []
    names = sorted(index.unreadable)
    if names:
        named = ", ".join(names[:NUM_NAMED]) + ", ..." * (len(names) > NUM_NAMED)
        lines.append(f"Left out, {len(names):,} that cannot be read as a picture: {named}.")
    return lines + describe_others(pictures)


def list_rows(answers: list[dict]) -> list[dict]:
    """All results of all texts, a row each."""
    return [{"query": answer["query"], **result} for answer in answers for result in answer["results"]]


def format_answers(results: dict, are_paths_full: bool = False) -> str:
    """
    The results of [`search_photos`], a line each; weak ones stand below a line that says so.

    Args:
        results (`dict`):
            What that returns.
        are_paths_full (`bool`, *optional*, defaults to `False`):
            Write all of a path, also that of each copy, and not the path from where the search was started.
    """
    lines = []
    for answer in results["queries"]:
        lines += format_query(answer)
        is_weak = False
        for hit in answer["results"]:
            if hit["weak"] and not is_weak:
                lines.append(f"      {WEAK}")
                is_weak = True
            path = hit["path"] if are_paths_full or "photos" not in results else Path(results["photos"], hit["name"])
            copies = f"   (+ {len(hit['copies'])} nearly the same)" if hit["copies"] else ""
            lines.append(f"{hit['rank']:5} {hit['similarity']:8.4f}   {path}{copies}")
            if are_paths_full:
                lines += [f"      {copy['similarity']:8.4f}   {copy['path']}" for copy in hit["copies"]]
    return "\n".join(lines)
