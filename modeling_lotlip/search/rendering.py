# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The HTML of the search page: fills `page.html` with results, labels and messages."""

import json
import time
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import PurePath

from jinja2 import Environment, StrictUndefined

from .pictures import describe_others
from .query import Result, Sentence
from .searcher import Answer, Searcher
from .zero_shot import Label


# Under a picture so many sentences are seen at once, so many more behind a line to open
NUM_OPEN_SENTENCES, NUM_SENTENCES = 8, 60
# Of words that the model does not know so many are named
NUM_UNKNOWN_WORDS = 20
# A longer part of a query that is not read is behind a line to open
NUM_OPEN_WORDS = 100

EXPLANATION = (
    "The number beside a picture's name is its cosine similarity with the query, that beside a sentence its "
    "similarity with this sentence alone. It does not say whether the sentence is true of the picture. Click a "
    "sentence to see where in the picture the model finds it, and again for the picture."
)
HEAT_MAP_NOTE = "Red: where the model finds it, in the part it sees."


def read_resource(name: str) -> str:
    """A file beside this one, such as `page.css`."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def load_macros() -> object:
    """The macros of `page.html`, which escape whatever is filled in."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(read_resource("page.html")).module


def render(macro: str, **values: object) -> str:
    """The HTML of a macro of `page.html`."""
    return str(getattr(load_macros(), macro)(**values))


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def describe_limit(sentences: list[Sentence]) -> dict | None:
    """The part of a query that is beyond the limit, and the sentence before it; None if there is no such part."""
    num_unread = sum(len(sentence.unread.split()) for sentence in sentences)
    if num_unread == 0:
        return None
    num_words = sum(len(sentence.text.split()) for sentence in sentences)
    start = max(0, [bool(sentence.unread) for sentence in sentences].index(True) - 1)
    return {
        "num_read": num_words - num_unread,
        "num_words": num_words,
        "is_open": num_unread <= NUM_OPEN_WORDS,
        "has_more_before": start > 0,
        "sentences": sentences[start:],
    }


def describe_query(found: Answer, num_pictures: int) -> dict:
    """How many pictures were found, and what of the query the model does not read or know, for `query`."""
    query, results = found.query, found.results
    return {
        "unknown_words": query.unknown_words[:NUM_UNKNOWN_WORDS],
        "are_more_unknown": len(query.unknown_words) > NUM_UNKNOWN_WORDS,
        "limit": describe_limit(query.sentences),
        "num_results": len(results),
        "pictures": f"{count(num_pictures, 'picture')} {found.those}".strip(),
        "is_nothing_near": bool(results) and results[0].is_weak,
        "has_sentences": any(result.sentence_similarities for result in results),
    }


def describe_card(result: Result, sentences: list[Sentence], thumbnail: str | None) -> dict:
    """A picture that was found, for `card`."""
    path = PurePath(result.name)
    lines = [
        {"text": sentence.text, "is_read": bool(sentence.read), "similarity": f"{similarity:.3f}"}
        for sentence, similarity in zip(sentences, result.sentence_similarities)
    ]
    num_more = len(sentences) - NUM_OPEN_SENTENCES
    more = count(num_more, "more sentence")
    if len(sentences) > NUM_SENTENCES:
        more += f", the first {NUM_SENTENCES - NUM_OPEN_SENTENCES} of them here"
    return {
        "name": result.name,
        "file": path.name,
        "thumbnail": thumbnail,
        "similarity": f"{result.similarity:.3f}",
        "copies": json.dumps([copy.name for copy in result.copies]),
        "num_copies": len(result.copies),
        "folder": str(path.parent) if path.parent.parts else "",
        "sentences": lines[:NUM_OPEN_SENTENCES],
        "more": more,
        "more_sentences": lines[NUM_OPEN_SENTENCES:NUM_SENTENCES],
    }


def format_title() -> str:
    return render("title")


def format_hint(hint: str) -> str:
    """What to do, where there are no results yet."""
    return render("hint", text=hint)


def format_message(message: str) -> str:
    """What is wrong, instead of results."""
    return render("message", text=message)


def describe_cards(found: Answer, thumbnail: Callable[[str], str | None]) -> dict[str, list[dict]]:
    """The pictures that were found, and those of them that are weak."""
    cards = {"cards": [], "weak_cards": []}
    for result in found.results:
        card = describe_card(result, found.query.sentences, thumbnail(result.name))
        cards["weak_cards" if result.is_weak else "cards"].append(card)
    return cards


def format_results(
    found: Answer,
    thumbnail: Callable[[str], str | None],
    num_pictures: int,
) -> str:
    """
    The pictures that were found.

    Args:
        found (`Answer`):
            What was found, and by what.
        thumbnail (`Callable[[str], str | None]`):
            The address of the picture of a name, made smaller, None where it cannot be read any more.
        num_pictures (`int`):
            The pictures that were searched.
    """
    about = describe_query(found, num_pictures)
    return render(
        "results",
        about=about,
        time=time.time_ns(),
        key=found.key,
        has_more=found.has_more,
        explanation=EXPLANATION if about["has_sentences"] else "",
        **describe_cards(found, thumbnail),
    )


def format_more(found: Answer, thumbnail: Callable[[str], str | None]) -> dict[str, str | bool]:
    """The next pictures: `cards` and `weak_cards`, and whether it `has_more`."""
    cards = describe_cards(found, thumbnail)
    return {name: render("cards", pictures=pictures) for name, pictures in cards.items()} | {
        "has_more": found.has_more
    }


def format_copies(names: list[str], num_more: int, thumbnail: Callable[[str], str | None]) -> str:
    """Pictures that are nearly the same as one that was found, and how many more of them there are."""
    pictures = [{"name": name, "thumbnail": thumbnail(name)} for name in names]
    return render("copies", pictures=pictures, more=f"and {num_more:,} more" if num_more else "")


def format_labels(labels: list[Label], add_up: bool) -> str:
    """Labels with their probabilities as bars; `add_up` says whether these are of a choice between the labels."""
    return render("labels", found=labels, add_up=add_up)


def format_status(searcher: Searcher) -> str:
    """What is indexed, or how far that is, and what is left out."""
    status, table, changes, pictures = searcher.status, searcher.table, searcher.changes, searcher.pictures
    num_pictures = len(table)
    if status.is_updating and status.is_speeding_up:
        line = f"Making the search in {count(num_pictures, 'picture')} fast. They can be searched meanwhile."
        return render("progress", line=line, share=1)
    if status.is_updating:
        line = f"Indexing: {status.done:,} of {count(status.total, 'picture')}" if status.total else "Looking ..."
        if num_pictures:
            line += f" ({count(num_pictures, 'picture')} can be searched)"
        return render("progress", line=line, share=status.done / status.total if status.total else 0)
    alert, line, notes = "", "", []
    if status.problem is not None:
        alert = f"The pictures in {pictures.place} could not be indexed: {status.problem}"
        if num_pictures:
            notes.append(f"{count(num_pictures, 'picture')} of before can be searched.")
    elif num_pictures:
        line = f"{count(num_pictures, 'picture')} in {pictures.place}{table.describe_search()}."
    else:
        line = f"No pictures in {pictures.place}. Put some there, then look for changes."
    if any(changes):
        last = [f"{number:,} {name}" for name, number in changes._asdict().items() if number]
        notes.append(f"Last look: {', '.join(last)}.")
    notes += describe_others(pictures)
    unreadable = sorted(table.unreadable)
    num_unreadable = count(len(unreadable), "file")
    return render("status", alert=alert, line=line, notes=notes, unreadable=unreadable, num_unreadable=num_unreadable)
