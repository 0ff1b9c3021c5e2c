# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Answers to texts in the terminal, from a folder of pictures, which is brought up to date, or of embeddings."""

import logging
import sys
from pathlib import Path, PurePath

from transformers import PreTrainedModel, ProcessorMixin

from ..data.images import IMAGE_EXTENSIONS
from ..embedding.search import search_folder
from ..embedding.store import check_model, count_embeddings
from ..terminal import progress_bar
from .index import Index, describe_effort, find_index, is_index
from .pictures import PictureFolder, describe_others
from .query import Query, check_words, choose_splitter, embed_query, search_index
from .update import Changes, update_index


logger = logging.getLogger(__name__)

# Of files that cannot be read so many are named
NUM_NAMED = 20


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
            How many pictures for each text, if there are so many.
        index_dir (`Path`, *optional*):
            The folder of all indices: see [`find_index`].
        splitter (`str`, *optional*):
            How the sentences of a text are split. Default: see [`choose_splitter`].
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        batch_size (`int`, *optional*, defaults to 64):
            Pictures in a batch.

    Returns:
        `dict`: `photos`, `num_pictures`, `recall` (the share of the exact results that an approximate search finds, as
        measured; 1 where the search is exact), `unreadable` (by name what is wrong), `notes` on the collection, and
        for each of the `queries` the `query` itself, whether it was `truncated`, its `unknown_words`, and its
        `results`: `rank` from 1, `similarity` and `path`.

    Raises:
        `ValueError`: if there is no picture, or the model knows no word of a text.
        `OSError`: if there is no picture any more.
    """
    splitter = splitter or choose_splitter()
    queries = [embed_query(model, processor, text, max_length=max_length, splitter=splitter) for text in texts]
    index = find_index(pictures, model, processor, index_dir)
    notes = update_with_progress(index, pictures, model, processor, batch_size)
    num_pictures, effort = len(index), index.effort
    if k > num_pictures:
        notes.append(f"--k {k} is more than there are: all {num_pictures} are shown.")
    results = {
        "photos": pictures.place,
        "num_pictures": num_pictures,
        "recall": 1.0 if effort is None else effort.recall,
        "unreadable": index.unreadable,
    }
    answers = [answer_query(index, text, query, k, pictures.folder) for text, query in zip(texts, queries)]
    return results | {"notes": notes, "queries": answers}


def answer_query(index: Index, text: str, query: Query, k: int, folder: Path | None) -> dict:
    """What is found for a text, by its path in a folder or by its name."""
    found = []
    for rank, result in enumerate(search_index(index, query, k), start=1):
        path = result.name if folder is None else str(folder / result.name)
        found.append({"rank": rank, "similarity": result.similarity, "path": path})
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
            How many results for each text, if there are so many.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.
        model_name_or_path (`str`, *optional*):
            How messages call the model.

    Returns:
        `dict`: what [`search_folder`] returns, `notes`, and for each query its `unknown_words`. Of an index `kind`,
        `k`, `recall`, `notes` and `queries` as [`search_photos`] has them.

    Raises:
        `ValueError`: if the model knows no word of a text, or the folder is none of its embeddings.
    """
    if is_index(folder):
        return search_stored_index(folder, model, processor, texts, kind, k, max_length, model_name_or_path)
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
) -> dict:
    """What [`search_embeddings`] returns of an index."""
    if kind != "image":
        raise ValueError(f"--kind {kind} is of a folder of `lotlip embed`: {folder} is an index, of pictures only.")
    source = check_model(folder, model, model_name_or_path)["source"]
    index, notes = Index.open(folder), []
    num_pictures, effort = len(index), index.effort
    if num_pictures == 0:
        raise ValueError(f"--embeddings_dir {folder} holds no pictures.")
    if k > num_pictures:
        notes.append(f"--k {k} is more than there are: all {num_pictures} are shown.")
    place = Path(source) if isinstance(source, str) else None
    splitter, answers = choose_splitter(), []
    for text in texts:
        query = embed_query(model, processor, text, max_length=max_length, splitter=splitter)
        answers.append(answer_query(index, text, query, k, place))
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
        raise ValueError(" ".join([f"There is no picture in {pictures.place}.", *left_out]))
    done = ", ".join(f"{number:,} {name}" for name, number in changes._asdict().items() if number)
    summary = f"{num_pictures:,} pictures in {pictures.place}" + f" (files: {done})" * bool(done)
    return [f"{summary}{describe_effort(index)}.", *left_out]


def describe_left_out(index: Index, pictures: PictureFolder) -> list[str]:
    """Sentences on what of a folder cannot be searched."""
    lines = []
    names = sorted(index.unreadable)
    if names:
        named = ", ".join(names[:NUM_NAMED]) + ", ..." * (len(names) > NUM_NAMED)
        lines.append(f"Left out, {len(names):,} that cannot be read as a picture: {named}.")
    return lines + describe_others(pictures)


def list_rows(answers: list[dict]) -> list[dict]:
    """All results of all texts, a row each."""
    return [{"query": answer["query"], **result} for answer in answers for result in answer["results"]]
