# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The HTML of the search page: fills `page.html` with results, labels and messages."""

import time
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined

from .pictures import describe_others
from .query import Sentence
from .searcher import Answer, Searcher


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
    """Such as "1 image" or "1,200 images"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def describe_limit(sentences: list[Sentence]) -> dict[str, int] | None:
    """
    How many words of a query the model reads, of how many, and the sentence before the first that it does not read
    entirely; None if it reads all.
    """
    num_unread = sum(len(sentence.unread.split()) for sentence in sentences)
    if num_unread == 0:
        return None
    num_words = sum(len(sentence.text.split()) for sentence in sentences)
    start = max(0, [bool(sentence.unread) for sentence in sentences].index(True) - 1)
    return {"num_read": num_words - num_unread, "num_words": num_words, "start": start}


def format_results(found: Answer, searcher: Searcher) -> str:
    """The images that were found."""
    num_images = count(searcher.table.count(where=found.those.condition), "image")
    limit = describe_limit(found.query.sentences)
    thumbnail = searcher.thumbnail
    return render("results", found=found, num_images=num_images, limit=limit, thumbnail=thumbnail, time=time.time_ns())


def format_more(found: Answer, searcher: Searcher) -> dict[str, str | bool]:
    """The next images: `cards` and `weak_cards`, and whether it `has_more`."""
    options = {"sentences": found.query.sentences, "thumbnail": searcher.thumbnail}
    cards, weak_cards = (
        render("cards", results=[result for result in found.results if result.is_weak == is_weak], **options)
        for is_weak in (False, True)
    )
    return {"cards": cards, "weak_cards": weak_cards, "has_more": found.has_more}


def format_status(searcher: Searcher) -> str:
    """What is indexed, or how far that is, and what is left out."""
    status, images = searcher.status, count(len(searcher.table), "image")
    if status.is_updating and status.is_speeding_up:
        return render("progress", line=f"Making the search in {images} fast. They can be searched meanwhile.", share=1)
    if status.is_updating:
        line = f"Indexing: {status.done:,} of {count(status.total, 'image')}" if status.total else "Looking ..."
        if len(searcher.table):
            line += f" ({images} can be searched)"
        return render("progress", line=line, share=status.done / status.total if status.total else 0)
    place, alert, line, notes = searcher.pictures.place, "", "", []
    if status.problem is not None:
        alert = f"The images in {place} could not be indexed: {status.problem}"
        notes += [f"{images} of before can be searched."] if len(searcher.table) else []
    elif len(searcher.table):
        line = f"{images} in {place}{searcher.table.describe_search()}."
    else:
        line = f"No images in {place}. Put some there, then look for changes."
    if any(searcher.changes):
        last = [f"{number:,} {name}" for name, number in searcher.changes._asdict().items() if number]
        notes.append(f"Last look: {', '.join(last)}.")
    notes += describe_others(searcher.pictures)
    unreadable = sorted(searcher.table.unreadable)
    num_unreadable = count(len(unreadable), "file")
    return render("status", alert=alert, line=line, notes=notes, unreadable=unreadable, num_unreadable=num_unreadable)
