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

import html
import time
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath

from .index import NUM_REFERENCES, Index
from .query import SATISFIED, SENTENCE_SCORES, Query, Result, Sentence
from .searcher import Searcher
from .zero_shot import Label


# Under a picture so many sentences are seen at once, so many more behind a line to open
NUM_OPEN_SENTENCES, NUM_SENTENCES = 8, 60

CSS = """
.gradio-container { width: 100%; max-width: 74rem !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0; }
.gradio-container { --strong: #2563eb; --quiet: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.dark .gradio-container, .gradio-container.dark { --strong: #60a5fa; }
.gradio-container button.primary { background: #2563eb; color: #fff; }
.gradio-container button[role="tab"][aria-selected="true"] { color: var(--strong); }
.gradio-container ::placeholder { color: var(--quiet) !important; opacity: 1; }
.gradio-container :is(textarea, input):focus-visible { outline: 2px solid var(--strong); outline-offset: 1px; }
#status { min-height: 3.25rem; }
.search-page { line-height: 1.5; overflow-wrap: anywhere; }
.search-page h1 { font-size: 1.35rem; font-weight: 600; margin: 0.75rem 0 0; }
.search-page p { margin: 0; }
.search-page .quiet { color: var(--quiet); font-size: 0.875rem; }
.search-page .explanation { max-width: 46rem; margin-top: 2rem; }
.search-page .message { padding: 1rem 0; }
.search-page .track { height: 4px; border-radius: 2px; background: var(--border-color-primary); overflow: hidden; }
.search-page .track > span { display: block; height: 100%; border-radius: 2px;
    background: var(--quiet); opacity: 0.6; }
.search-page .strong .track > span { background: var(--strong); opacity: 1; }
.search-page .progress { max-width: 24rem; margin: 0.4rem 0; }
.search-page details > summary { cursor: pointer; }
.search-page .query { margin: 0.25rem 0 0.75rem; max-width: 46rem; }
.search-page s { color: var(--quiet); text-decoration-color: var(--error-text-color, #c33); }
.search-page .query details p { max-height: 11rem; margin-top: 0.4rem; overflow-y: auto; }
.search-page .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr));
    gap: 2.25rem 1.75rem; align-items: start; padding-top: 0.75rem; }
.search-page .card { margin: 0; min-width: 0; }
.search-page .frame { aspect-ratio: 4 / 3; display: flex; width: 100%; padding: 0; border: 0; border-radius: 6px;
    overflow: hidden; background: var(--background-fill-secondary); cursor: zoom-in; }
.search-page img { object-fit: contain; margin: 0; }
.search-page .frame img { width: 100%; height: 100%; }
.search-page img[src^="data:image/png"] { image-rendering: pixelated; }
.search-page .note { padding-top: 0.25rem; }
.search-page .note:empty { display: none; }
.search-page .head { display: flex; gap: 1rem; justify-content: space-between; margin-top: 0.5rem; }
.search-page .head > :first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.search-page .head > :last-child, .search-page .value { font-variant-numeric: tabular-nums; flex: none; }
.search-page .foot { display: flex; gap: 1rem; justify-content: space-between; margin-bottom: 0.25rem; }
.search-page .foot span { color: inherit; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.search-page button.similar { flex: none; padding: 0; border: 0; background: none; color: inherit; font: inherit;
    text-decoration: underline; text-underline-offset: 3px; cursor: pointer; }
.search-page button.sentence { display: block; width: 100%; padding: 0.3rem 0.4rem; margin: 0 -0.4rem; border: 0;
    border-radius: 4px; background: none; color: var(--quiet); font: inherit; font-size: 0.8125rem; text-align: left;
    cursor: pointer; box-sizing: content-box; }
.search-page button.sentence.strong { color: var(--body-text-color); }
.search-page button.sentence:hover .text { text-decoration: underline; text-underline-offset: 3px; }
.search-page button.sentence[aria-pressed="true"] { background: var(--background-fill-secondary); }
.search-page button.sentence span { color: inherit; }
.search-page button:focus-visible { outline: 2px solid var(--strong); outline-offset: 2px; }
.search-page .line { display: flex; gap: 0.75rem; justify-content: space-between; margin-bottom: 0.15rem; }
.search-page .sentence .text { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
    overflow: hidden; }
.search-page [aria-pressed="true"] .text { display: inline; }
.search-page .labels { max-width: 36rem; padding-top: 0.5rem; }
.search-page .label { margin-bottom: 0.9rem; }
.search-page dialog { max-width: 96vw; max-height: 96vh; margin: auto; padding: 0; border: 0; background: none;
    cursor: zoom-out; }
.search-page dialog::backdrop { background: rgb(0 0 0 / 0.8); }
.search-page dialog img { display: block; max-width: 92vw; max-height: 86vh; min-width: min(60vw, 30rem); }
.search-page dialog p { padding: 0.5rem 0; color: #fff; text-align: center; }
footer { display: none !important; }
@media (max-width: 640px) {
    #status { flex-basis: 100%; }
    #search, #classify { width: 100%; }
}
"""

# A click on a sentence under a picture puts its heat map in the place of the picture, another click the picture back;
# a click on the picture shows it large.
SCRIPT = """
const GONE = {message: 'No answer came: is the page still being served?'};
const ask = async (question, about) => {
    try { return (await server[question](about)) ?? GONE; } catch (error) { return GONE; }
};
const show = (card, message, source) => {
    card.querySelector('.note').textContent = message;
    const image = card.querySelector('img');
    if (image) image.src = source || image.dataset.picture;
};
element.addEventListener('click', async (event) => {
    const button = event.target.closest('button'), card = event.target.closest('.card');
    if (event.target.closest('dialog')) event.target.closest('dialog').close();
    if (!button || !card) return;
    const image = card.querySelector('img'), name = card.dataset.name;
    if (image) image.dataset.picture ||= image.src;
    if (button.matches('.similar')) {
        const answer = await ask('similar', {name});
        if (answer.html) element.querySelector('.search-page').outerHTML = answer.html;
        else show(card, answer.message);
    } else if (button.matches('.frame')) {
        if (!image) return;
        const answer = await ask('enlarge', {name}), dialog = element.querySelector('dialog');
        if (!answer.source) { show(card, answer.message); return; }
        dialog.querySelector('img').src = answer.source;
        dialog.querySelector('p').textContent = name;
        dialog.showModal();
    } else if (button.matches('.sentence')) {
        const pressed = button.getAttribute('aria-pressed') === 'true';
        for (const other of card.querySelectorAll('button.sentence')) other.setAttribute('aria-pressed', 'false');
        show(card, '');
        if (pressed) return;
        button.setAttribute('aria-pressed', 'true');
        show(card, 'Looking ...');
        const answer = await ask('heat_map', {name, sentence: button.querySelector('.text').textContent});
        if (button.getAttribute('aria-pressed') === 'true') show(card, answer.message, answer.source);
    }
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


def format_bar(share: float | None, text: str, value: str, is_read: bool = True) -> str:
    """A line of text with its value, over a bar; struck out where the model does not read it."""
    text = html.escape(text) if is_read else f"<s>{html.escape(text)}</s>"
    return (
        f'<span class="line"><span class="text">{text}</span><span class="value">{value}</span></span>'
        f'<span class="track" style="display: block"><span style="width: {100 * (share or 0):.1f}%"></span></span>'
    )


def format_limit(sentences: list[Sentence]) -> str:
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
        f"<p>The model reads the first {num_words - num_unread} of {num_words} words "
        "and ranks the pictures by these.</p>"
        f"<details{' open' * (num_unread <= 100)}><summary class='quiet'>What is not read, struck out</summary>"
        f"<p>{text}</p></details>"
    )


def format_query(query: Query, num_results: int, num_pictures: int) -> str:
    """How many pictures were found, and what of the query the model does not read or know."""
    lines = []
    if query.unknown_words:
        words = ", ".join(map(html.escape, query.unknown_words[:20])) + ", …" * (len(query.unknown_words) > 20)
        lines.append(f"<p>The model does not know: {words}.</p>")
    lines.append(format_limit(query.sentences))
    found = f"The {num_results} most similar of {count(num_pictures, 'picture')}."
    if query.sentences:
        tenth = f"{100 * (1 - SATISFIED):.0f} in 100"
        found += f" ✓: among the {tenth} that fit the sentence best. Click a sentence to see where it is."
    return f'<div class="query" role="status">{"".join(lines)}<p class="quiet">{found}</p></div>'


def format_sentence(sentence: Sentence, fit: float | None) -> str:
    is_satisfied = fit is not None and fit >= SATISFIED
    value = "" if sentence.read else "not read"
    if fit is not None:
        value = f"{'✓ ' * is_satisfied}{int(100 * fit + 1e-9)}"
    return (
        f'<button type="button" class="sentence{" strong" * is_satisfied}" aria-pressed="false">'
        f"{format_bar(fit, sentence.text, value, bool(sentence.read))}</button>"
    )


def format_card(result: Result, sentences: list[Sentence], thumbnail: str | None) -> str:
    """A picture that was found, with its similarity and a bar for each sentence."""
    name, path = html.escape(result.name), PurePath(result.name)
    bars = [format_sentence(sentence, fit) for sentence, fit in zip(sentences[:NUM_SENTENCES], result.fits)]
    rest = bars[NUM_OPEN_SENTENCES:]
    if rest:
        more = count(len(sentences) - NUM_OPEN_SENTENCES, "more sentence")
        more += f", the first {len(rest)} of them here" if len(sentences) > NUM_SENTENCES else ""
        rest = ["<details><summary class='quiet'>", more, "</summary>", *rest, "</details>"]
    picture = '<span class="quiet" style="margin: auto">cannot be read any more</span>'
    if thumbnail is not None:
        picture = f'<img alt="{name}" src="{thumbnail}">'
    parts = []
    if len(sentences) > 1:
        parts.append(f"{sum(fit is not None and fit >= SATISFIED for fit in result.fits)} of {len(sentences)} ✓")
    if path.parent.parts:
        parts.append(html.escape(str(path.parent)))
    return (
        f'<figure class="card" data-name="{name}"><button type="button" class="frame" aria-label="Show {name} large">'
        f'{picture}</button><p class="note quiet" aria-live="polite"></p>'
        f'<div class="head"><span title="{name}">{html.escape(path.name)}</span>'
        f"<span>{result.similarity:.3f}</span></div>"
        f'<div class="foot quiet"><span>{" · ".join(parts)}</span>'
        '<button type="button" class="similar">more like this</button></div>'
        f"{''.join(bars[:NUM_OPEN_SENTENCES])}{''.join(rest)}</figure>"
    )


def format_results(
    query: Query,
    results: list[Result],
    thumbnail: Callable[[str], str | None],
    score: str,
    num_pictures: int,
) -> str:
    """
    The pictures that were found.

    Args:
        query (`Query`):
            What was searched for.
        results (`list[Result]`):
            What was found.
        thumbnail (`Callable[[str], str | None]`):
            The address of the picture of a name, made smaller, None where it cannot be read any more.
        score (`str`):
            How pictures are scored on a sentence, a key of `SENTENCE_SCORES`.
        num_pictures (`int`):
            The pictures of the collection.
    """
    cards = "".join(format_card(result, query.sentences, thumbnail(result.name)) for result in results)
    explanation = ""
    if query.sentences:
        explanation = EXPLANATION.format(score=SENTENCE_SCORES[score]) + SAMPLED * (num_pictures > NUM_REFERENCES)
        explanation = f'<p class="quiet explanation">{explanation}</p>'
    window = '<dialog aria-label="The picture"><img alt=""><p></p></dialog>'
    # the time tells a second answer from the first one, in whose place the page may have others by now
    about = f'<div data-time="{time.time_ns()}">{format_query(query, len(results), num_pictures)}</div>'
    return wrap(f'{about}<div class="cards">{cards}</div>{explanation}{window}')


def format_labels(labels: list[Label], add_up: bool) -> str:
    """Labels with their probabilities as bars."""
    bars = "".join(
        f'<div class="label{" strong" * (rank == 0)}">'
        f"{format_bar(label.probability, label.name, f'{100 * label.probability:.1f} %')}"
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
    status, index, changes, pictures = searcher.status, searcher.index, searcher.changes, searcher.pictures
    if status.is_updating:
        share = status.done / status.total if status.total else 0
        line = f"Indexing: {status.done:,} of {count(status.total, 'picture')}" if status.total else "Looking ..."
        if index.names:
            line += f" ({count(len(index.names), 'picture')} can be searched)"
        bar = '<div class="track progress strong" role="progressbar" aria-label="Indexing" '
        bar += f'aria-valuenow="{100 * share:.0f}">'
        return wrap(
            f'<p role="status">{line}</p><div class="strong">{bar}<span style="width: {100 * share:.1f}%">'
            "</span></div></div>"
        )
    if status.problem is not None:
        place = html.escape(place_of(searcher))
        parts = [f'<p role="alert">The pictures in {place} could not be indexed: {html.escape(status.problem)}</p>']
        if index.names:
            parts.append(f'<p class="quiet">{count(len(index.names), "picture")} of before can be searched.</p>')
    else:
        parts = [f"<p>{html.escape(describe_collection(index, searcher))}</p>"]
    if any(changes):
        last = [f"{number:,} {name}" for name, number in changes._asdict().items() if number]
        parts.append(f'<p class="quiet">Last look: {", ".join(last)}.</p>')
    if index.unreadable:
        names = "".join(f"<br>{html.escape(name)}" for name in sorted(index.unreadable))
        parts.append(
            f'<details><summary class="quiet">Left out: {count(len(index.unreadable), "file")} that cannot be read as '
            f'a picture</summary><p class="quiet">{names.removeprefix("<br>")}</p></details>'
        )
    if pictures.others:
        parts.append(f'<p class="quiet">Other files, left out: {html.escape(format_files(pictures.others))}.</p>')
    if pictures.closed_folders:
        names = ", ".join(sorted(pictures.closed_folders))
        parts.append(f'<p class="quiet">Folders that may not be read: {html.escape(names)}.</p>')
    return wrap("".join(parts))


def place_of(searcher: Searcher) -> str:
    """Where the pictures are."""
    args = searcher.args
    return str(args.images or args.embeddings_dir or args.dataset_name or "the drawn scenes")


def describe_collection(index: Index, searcher: Searcher) -> str:
    """How many pictures there are, and how they are searched."""
    place, args = place_of(searcher), searcher.args
    if not index.names:
        return f"No pictures in {place}. Put some there, then look for changes."
    how = ""
    if args.index == "faiss":
        how = f", searched approximately ({args.faiss_factory})"
        if index.faiss is None:
            how = f", searched exactly: they are too few for {args.faiss_factory}"
    return f"{count(len(index.names), 'picture')} in {place}{how}."
