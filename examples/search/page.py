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
"""The HTML of the search page: results, labels and messages, with nothing of what does the searching."""

import base64
import html
import io
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath

from PIL import Image

from .index import Index
from .query import NUM_REFERENCES, SATISFIED, SENTENCE_SCORES, Query, Result, Sentence
from .searcher import Searcher
from .zero_shot import Label


# The longer side of a picture on the page, in pixels
PICTURE_SIDE = 480
# Under a picture so many sentences are seen at once, the others behind a line to open
NUM_OPEN_SENTENCES = 8

CSS = """
.gradio-container { width: 100%; max-width: 74rem !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0; }
.search-page { line-height: 1.5; overflow-wrap: anywhere; }
.search-page h1 { font-size: 1.35rem; font-weight: 600; margin: 0.75rem 0 0; }
.search-page p { margin: 0; }
.search-page { --quiet: color-mix(in srgb, var(--body-text-color) 68%, transparent); }
.search-page .quiet { color: var(--quiet); font-size: 0.875rem; }
.search-page .explanation { max-width: 46rem; margin-top: 2.5rem; }
.search-page .message { padding: 1rem 0; }
.search-page .track { height: 4px; border-radius: 2px; background: var(--border-color-primary); overflow: hidden; }
.search-page .track > span { display: block; height: 100%; border-radius: 2px;
    background: var(--quiet); opacity: 0.6; }
.search-page .strong .track > span { background: var(--primary-500); opacity: 1; }
.search-page .progress { max-width: 24rem; margin: 0.4rem 0; }
.search-page details > summary { cursor: pointer; }
.search-page .query { margin: 0.25rem 0 1.5rem; }
.search-page .query s { color: var(--quiet); text-decoration-color: var(--error-text-color, #c33); }
.search-page .query details p { max-height: 11rem; margin-top: 0.4rem; overflow-y: auto; }
.search-page .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr));
    gap: 2.25rem 1.75rem; align-items: start; padding-top: 0.75rem; }
.search-page .card { margin: 0; min-width: 0; }
.search-page .frame { position: relative; aspect-ratio: 1; display: flex; border-radius: 6px; overflow: hidden;
    background: var(--background-fill-secondary); }
.search-page .frame img { width: 100%; height: 100%; object-fit: contain; margin: 0; }
.search-page .frame img.small { image-rendering: pixelated; }
.search-page .note { position: absolute; inset: auto 0 0; padding: 0.4rem 0.6rem; font-size: 0.8125rem;
    color: #fff; background: rgb(0 0 0 / 0.65); }
.search-page .note:empty { display: none; }
.search-page .head { display: flex; gap: 1rem; justify-content: space-between; margin: 0.5rem 0 0.25rem; }
.search-page .head span { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.search-page .head span + span, .search-page .value { font-variant-numeric: tabular-nums; flex: none; }
.search-page button.sentence { display: block; width: 100%; padding: 0.3rem 0; border: 0; background: none;
    color: var(--quiet); font: inherit; font-size: 0.8125rem; text-align: left; cursor: pointer; }
.search-page button.sentence.strong { color: var(--body-text-color); }
.search-page button.sentence:hover, .search-page button.sentence[aria-pressed="true"] { color: var(--primary-500); }
.search-page button.sentence span { color: inherit; }
.search-page button.sentence:focus-visible { outline: 2px solid var(--primary-500); outline-offset: 2px; }
.search-page .line { display: flex; gap: 0.75rem; justify-content: space-between; margin-bottom: 0.15rem; }
.search-page .line > :first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.search-page [aria-pressed="true"] .line > :first-child { white-space: normal; }
.search-page .labels { max-width: 36rem; padding-top: 0.5rem; }
.search-page .label { margin-bottom: 0.9rem; }
.search-page .label .line > :first-child { white-space: normal; }
footer { display: none !important; }
@media (max-width: 640px) { #status { flex-basis: 100%; } }
"""

# A click on a sentence under a picture puts its heat map in the place of the picture, another click the picture back.
SCRIPT = """
element.addEventListener('click', async (event) => {
    const button = event.target.closest('button.sentence');
    if (!button) return;
    const card = button.closest('.card'), image = card.querySelector('img'), note = card.querySelector('.note');
    if (!image) return;
    image.dataset.picture ||= image.src;
    const pressed = button.getAttribute('aria-pressed') === 'true';
    for (const other of card.querySelectorAll('button.sentence')) other.setAttribute('aria-pressed', 'false');
    note.textContent = '';
    if (pressed) { image.src = image.dataset.picture; return; }
    button.setAttribute('aria-pressed', 'true');
    note.textContent = 'Looking ...';
    let answer;
    try { answer = await server.heat_map({name: card.dataset.name, sentence: button.dataset.sentence}); }
    catch (error) { answer = {message: 'The heat map did not come: is the page still being served?'}; }
    if (button.getAttribute('aria-pressed') !== 'true') return;
    note.textContent = answer.message;
    image.src = answer.source || image.dataset.picture;
});
"""

EXPLANATION = (
    "The number beside a picture's name is its cosine similarity with the query. Under the picture, each bar says "
    "{score}, compared with all pictures here: 97 means more than 97 in 100 of the others. Coloured, with a tick: it "
    f"is in the top {100 * (1 - SATISFIED):.0f} in 100. Click a sentence to see where in the picture the model finds "
    "it, and again for the picture."
)
SAMPLED = f" (Of so large a collection, {NUM_REFERENCES:,} pictures drawn at random stand for all.)"
HEAT_MAP_NOTE = "Red: where the model finds it, in the part it sees."


def wrap(content: str) -> str:
    return f'<div class="search-page">{content}</div>'


def format_message(message: str) -> str:
    """What is wrong, in the place of results."""
    return wrap(f'<p class="message" role="alert">{html.escape(message)}</p>')


def is_small(image: Image.Image) -> bool:
    """Whether a picture is shown with its pixels as squares."""
    return max(image.size) < 128


def encode_picture(image: Image.Image) -> str:
    """A picture, made smaller, as the address of itself."""
    image = image.copy()
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    kind = "png" if is_small(image) else "jpeg"
    image.save(buffer, format=kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def format_bar(share: float | None, text: str, value: str, is_strong: bool) -> str:
    """A line of text with its value, over a bar."""
    return (
        f'<span class="line"><span>{html.escape(text)}</span><span class="value">{value}</span></span>'
        f'<span class="track" style="display: block"><span style="width: {100 * (share or 0):.1f}%"></span></span>'
    )


def format_query(sentences: list[Sentence]) -> str:
    """The part of a query that is beyond the limit, if there is one, struck out behind the sentence before it."""
    num_unread = sum(len(sentence.unread.split()) for sentence in sentences)
    if num_unread == 0:
        return ""
    num_words = sum(len(sentence.text.split()) for sentence in sentences)
    start = max(0, [bool(sentence.unread) for sentence in sentences].index(True) - 1)
    text = "… " * (start > 0) + " ".join(
        f"{html.escape(sentence.read)}{' ' * bool(sentence.read)}<s>{html.escape(sentence.unread)}.</s>"
        if sentence.unread
        else f"{html.escape(sentence.read)}."
        for sentence in sentences[start:]
    )
    return (
        f'<div class="query"><p role="status">The model reads the first {num_words - num_unread} of {num_words} words '
        "and ranks the pictures by these.</p>"
        f'<details open><summary class="quiet">What is not read, struck out</summary><p>{text}</p>'
        "</details></div>"
    )


def format_sentence(sentence: Sentence, fit: float | None) -> str:
    is_satisfied = fit is not None and fit >= SATISFIED
    value = f"{'✓ ' * is_satisfied}{int(100 * fit)}" if fit is not None else "" if sentence.read else "not read"
    text = html.escape(sentence.text)
    return (
        f'<button type="button" class="sentence{" strong" * is_satisfied}" aria-pressed="false" title="{text}" '
        f'data-sentence="{text}">{format_bar(fit, sentence.text, value, is_satisfied)}</button>'
    )


def format_card(result: Result, sentences: list[Sentence], image: Image.Image | None) -> str:
    """A picture that was found, with its similarity and a bar for each sentence."""
    name = html.escape(result.name)
    bars = [format_sentence(sentence, fit) for sentence, fit in zip(sentences, result.fits)]
    rest = bars[NUM_OPEN_SENTENCES:]
    if rest:
        rest = ["<details><summary class='quiet'>", f"{len(rest)} more sentences</summary>", *rest, "</details>"]
    if image is None:
        picture = '<p class="quiet" style="margin: auto">cannot be read any more</p>'
    else:
        small = ' class="small"' if is_small(image) else ""
        picture = f'<img{small} alt="{name}" src="{encode_picture(image)}">'
    return (
        f'<figure class="card" data-name="{name}"><div class="frame">{picture}'
        '<p class="note" aria-live="polite"></p></div>'
        f'<div class="head"><span title="{name}">{html.escape(PurePath(result.name).name)}</span>'
        f"<span>{result.similarity:.3f}</span></div>"
        f"{''.join(bars[:NUM_OPEN_SENTENCES])}{''.join(rest)}</figure>"
    )


def format_results(
    query: Query,
    results: list[Result],
    read: Callable[[str], Image.Image | None],
    score: str,
    is_sampled: bool = False,
) -> str:
    """
    The pictures that were found.

    Args:
        query (`Query`):
            What was searched for.
        results (`list[Result]`):
            What was found.
        read (`Callable[[str], Image.Image | None]`):
            The picture of a name, None where it cannot be read any more.
        score (`str`):
            How pictures are scored on a sentence, a key of `SENTENCE_SCORES`.
        is_sampled (`bool`, *optional*, defaults to `False`):
            Whether a sample stands for the collection.
    """
    cards = "".join(format_card(result, query.sentences, read(result.name)) for result in results)
    explanation = ""
    if query.sentences:
        explanation = EXPLANATION.format(score=SENTENCE_SCORES[score]) + SAMPLED * is_sampled
        explanation = f'<p class="quiet explanation">{explanation}</p>'
    return wrap(f'{format_query(query.sentences)}<div class="cards">{cards}</div>{explanation}')


def format_labels(labels: list[Label], add_up: bool) -> str:
    """Labels with their probabilities as bars."""
    bars = "".join(
        f'<div class="label{" strong" * (rank == 0)}">'
        f"{format_bar(label.probability, label.name, f'{100 * label.probability:.1f} %', rank == 0)}"
        f'<span class="quiet">similarity {label.similarity:.3f}</span></div>'
        for rank, label in enumerate(labels)
    )
    note = (
        "The probabilities add up to 100 %: the model only chooses between these labels, and one comes first even if "
        "none is right."
        if add_up
        else "Each label has a probability of its own."
    )
    return wrap(f'<div class="labels">{bars}<p class="quiet">{note}</p></div>')


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def format_files(counts: Counter) -> str:
    return ", ".join(f"{number:,} {ending}" for ending, number in counts.most_common())


def format_status(searcher: Searcher) -> str:
    """What is indexed, or how far that is, and what is left out."""
    status, index, changes = searcher.status, searcher.index, searcher.changes
    if status.is_updating:
        share = status.done / status.total if status.total else 0
        line = f"Indexing: {status.done:,} of {count(status.total, 'picture')}" if status.total else "Looking ..."
        bar = f'<div class="track progress strong" role="progressbar" aria-valuenow="{100 * share:.0f}">'
        return wrap(
            f'<p role="status">{line}</p><div class="strong">{bar}<span style="width: {100 * share:.1f}%">'
            "</span></div></div>"
        )
    parts = [f"<p>{html.escape(describe_collection(index, searcher))}</p>"]
    if status.problem is not None:
        parts.append(f'<p role="alert">The pictures could not be indexed: {html.escape(status.problem)}</p>')
    if any(changes):
        last = [f"{number:,} {name}" for name, number in changes._asdict().items() if number]
        parts.append(f'<p class="quiet">Last look: {", ".join(last)}.</p>')
    if index.unreadable:
        names = "".join(f"<br>{html.escape(name)}" for name in sorted(index.unreadable))
        parts.append(
            f'<details><summary class="quiet">Left out: {count(len(index.unreadable), "file")} that cannot be read as '
            f'a picture</summary><p class="quiet">{names.removeprefix("<br>")}</p></details>'
        )
    if searcher.pictures.others:
        others = html.escape(format_files(searcher.pictures.others))
        parts.append(f'<p class="quiet">Files that are no pictures by their names: {others}.</p>')
    return wrap("".join(parts))


def describe_collection(index: Index, searcher: Searcher) -> str:
    """How many pictures there are, and how they are searched."""
    args = searcher.args
    place = args.images or args.embeddings_dir or args.dataset_name or "the drawn scenes"
    if not index.names:
        return f"No pictures in {place}. Put some there, then look for changes."
    how = "" if index.faiss is None else f", searched approximately ({args.faiss_factory})"
    return f"{count(len(index.names), 'picture')} in {place}{how}."
