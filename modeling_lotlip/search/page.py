# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The search page, made with Gradio: what is on it and what its buttons do."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: it calls nobody

try:
    import gradio as gr
    from gradio.data_classes import ImageData
    from starlette.middleware import Middleware
except ImportError as error:
    raise ImportError('The page needs Gradio: `pip install "lotlip[app]"`.') from error

from ..embedding.models import load_model
from ..signals import StopSignal
from .arguments import PageArguments, SearchModelArguments
from .filters import Filter
from .guard import MAX_UPLOAD, Guard, SameOrigin
from .pictures import PictureFolder, PictureRows, encode_picture
from .query import QueryError, choose_splitter
from .rendering import (
    HEAT_MAP_NOTE,
    format_copies,
    format_hint,
    format_labels,
    format_message,
    format_more,
    format_results,
    format_status,
    format_title,
    read_resource,
)
from .searcher import PROBLEMS, Answer, Searcher
from .update import find_table, open_table


logger = logging.getLogger(__name__)

# On a phone what was found is below the window
SHOW_RESULTS = "() => { if (innerWidth <= 640) document.querySelector('#results').scrollIntoView(); }"
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
# At most so many searches wait; further ones get an error that asks to try again
MAX_WAITING = 200
# Uploads are deleted after an hour, looked for every ten minutes
KEPT_UPLOADS = (600, 3600)
# Whoever asks waits for the model, which has a lock of its own
SEVERAL = {"show_progress": "minimal", "concurrency_limit": 4}
# The fields of the filters, by which messages call them too
TAKEN_FROM, TAKEN_TO = "Taken from", "Taken to"
# What stands where results will be
SEARCH_HINT = (
    "Describe what you look for, in one sentence or many, or choose a picture. The most similar pictures come here."
)
ZERO_SHOT_HINT = "Choose a picture and write two or more labels. Their probabilities come here."
# Of copies so many are shown
NUM_COPIES = 100


def picture_file(**settings: object) -> gr.Image:
    """
    A picture to be chosen, which handlers get as the path of its file, whatever is in it: what is none is for us to
    say.
    """
    picture = gr.Image(sources=["upload", "clipboard"], **settings)
    # of this object, since for a subclass Gradio writes a .pyi file into the package
    picture.preprocess = take_path
    return picture


def take_path(payload: ImageData | None) -> str | None:
    return None if payload is None else payload.path


def answer(compute: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What was asked for, or what is wrong with it."""
    try:
        return compute()
    except PROBLEMS as error:
        return {"message": str(error) or type(error).__name__}


def read_field(asked: object, name: str, kind: type = str) -> Any:
    """A field of what `page.js` asks for. Raises a `QueryError` if it is not there: something else has asked."""
    value = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(value, kind):
        raise QueryError(f"The question has no {name}.")
    return value


class Handlers:
    """
    What the page asks a searcher for: HTML for its parts.

    Args:
        searcher (`Searcher`):
            The collection.
        k (`int`):
            How many pictures to show.
    """

    def __init__(self, searcher: Searcher, k: int):
        self.searcher, self.k = searcher, k

    def format_found(self, found: Answer) -> dict[str, str]:
        searcher = self.searcher
        num_pictures = searcher.table.count(where=found.those.condition)
        return {"html": format_results(found, searcher.thumbnail, num_pictures)}

    def search(self, text: str, image_path: str | None, folder: str | None, taken_from: str, taken_to: str) -> str:
        def find() -> dict[str, str]:
            those = Filter.read(folder, taken_from, taken_to, (TAKEN_FROM, TAKEN_TO))
            return self.format_found(self.searcher.search(text, image_path, self.k, those))

        found = answer(find)
        return found["html"] if "html" in found else format_message(found["message"])

    def classify(self, image_path: str | None, labels: str, template: str) -> str:
        add_up = getattr(self.searcher.model, "logit_bias", None) is None
        found = answer(lambda: {"html": format_labels(self.searcher.classify(image_path, labels, template), add_up)})
        return found["html"] if "html" in found else format_message(found["message"])

    def server_functions(self) -> list[Callable[[dict], dict[str, str]]]:
        """What `page.js` asks for by itself, by the names of the functions; a problem is the answer's message."""

        def similar(asked: dict) -> dict[str, str]:
            return answer(lambda: self.format_found(self.searcher.similar(read_field(asked, "name"), self.k)))

        def more(asked: dict) -> dict[str, str]:
            def find() -> dict[str, str]:
                key, shown = read_field(asked, "key"), read_field(asked, "shown", int)
                return format_more(self.searcher.more(key, shown, self.k), self.searcher.thumbnail)

            return answer(find)

        def copies(asked: dict) -> dict[str, str]:
            def find() -> dict[str, str]:
                asked_for = read_field(asked, "names", list)
                names = [name for name in map(str, asked_for[:NUM_COPIES]) if name in self.searcher.table]
                num_more = max(0, len(asked_for) - NUM_COPIES)
                return {"html": format_copies(names, num_more, self.searcher.thumbnail)}

            return answer(find)

        def enlarge(asked: dict) -> dict[str, str]:
            return answer(lambda: {"source": self.searcher.enlarge(read_field(asked, "name"))})

        def heat_map(asked: dict) -> dict[str, str]:
            def draw() -> dict[str, str]:
                picture = self.searcher.heat_map(read_field(asked, "name"), read_field(asked, "sentence"))
                return {"source": encode_picture(picture), "message": HEAT_MAP_NOTE}

            return answer(draw)

        return [similar, more, copies, enlarge, heat_map]

    def show_status(self) -> tuple[str, gr.Timer]:
        return format_status(self.searcher), gr.Timer(active=self.searcher.status.is_updating)

    def update(self) -> tuple[str, gr.Timer]:
        self.searcher.start_update()
        return self.show_status()

    def open(self) -> tuple[str, gr.Timer]:
        self.searcher.start_update(min_seconds_ago=60)
        return self.show_status()

    def list_folders(self) -> gr.Dropdown:
        return gr.Dropdown(choices=["", *self.searcher.table.folders])


def build_page(searcher: Searcher, k: int) -> gr.Blocks:
    """The page of a collection, which shows `k` pictures at a time."""
    handlers = Handlers(searcher, k)
    with gr.Blocks(title="Search pictures", analytics_enabled=False, delete_cache=KEPT_UPLOADS) as page:
        gr.HTML(format_title())
        with gr.Row(equal_height=False):
            status = gr.HTML(format_status(searcher), elem_id="status", scale=4, min_width=300)
            refresh = gr.Button("Look for changes", size="sm", scale=0, min_width=160, visible=searcher.is_kept)
        timer = gr.Timer(0.5, active=False)
        with gr.Tab("Search"):
            build_search(handlers)
        with gr.Tab("Zero-shot"):
            build_zero_shot(handlers)
        page.load(handlers.open, outputs=[status, timer], show_progress="hidden")
        refresh.click(handlers.update, outputs=[status, timer], show_progress="hidden")
        timer.tick(handlers.show_status, outputs=[status, timer], show_progress="hidden")
    return page


def build_search(handlers: Handlers) -> None:
    """The tab where pictures are searched."""
    with gr.Row():
        text = gr.Textbox(
            label="Description",
            placeholder="One sentence, or as many as you like. Shift and Enter searches.",
            lines=6,
            max_lines=14,
            scale=3,
            elem_id="description",
        )
        image = picture_file(
            label="Picture, alone or beside a description",
            height=195,
            scale=2,
            elem_id="query-picture",
        )
    with gr.Accordion("Only some of the pictures", open=False, elem_id="filters"), gr.Row():
        # a folder that is not listed yet may be written
        folder = gr.Dropdown([""], value="", label="Folder", allow_custom_value=True, elem_id="folder")
        taken_from = gr.Textbox(label=TAKEN_FROM, placeholder="2024-05-01", max_lines=1, elem_id="taken-from")
        taken_to = gr.Textbox(label=TAKEN_TO, placeholder="2024-05-31", max_lines=1, elem_id="taken-to")
        folder.focus(handlers.list_folders, outputs=folder, show_progress="hidden")
    with gr.Row():
        button = gr.Button("Search", variant="primary", scale=0, min_width=200, elem_id="search")
    script = read_resource("page.js")
    results = gr.HTML(
        format_hint(SEARCH_HINT), js_on_load=script, server_functions=handlers.server_functions(), elem_id="results"
    )
    asked = [button.click, text.submit, taken_from.submit, taken_to.submit]
    found = gr.on(asked, handlers.search, [text, image, folder, taken_from, taken_to], results, **SEVERAL)
    found.then(None, js=SHOW_RESULTS)


def build_zero_shot(handlers: Handlers) -> None:
    """The tab where a picture is classified."""
    with gr.Row():
        picture = picture_file(label="Picture", height=300, scale=2, elem_id="picture")
        with gr.Column(scale=3):
            labels = gr.Textbox(label="Labels, one on each line", lines=6, max_lines=14, elem_id="labels")
            template = gr.Textbox("a photo of a {}", label="Template: {} is the label", elem_id="template")
    with gr.Row():
        button = gr.Button("Classify", variant="primary", scale=0, min_width=200, elem_id="classify")
    bars = gr.HTML(format_hint(ZERO_SHOT_HINT), elem_id="bars")
    asked = [button.click, labels.submit, template.submit]
    gr.on(asked, handlers.classify, [picture, labels, template], bars, **SEVERAL)


def open_searcher(
    page: PageArguments, model_arguments: SearchModelArguments, pictures: PictureFolder | PictureRows
) -> Searcher:
    """
    The searcher of the page: its pictures, its model, and the index of both.

    Raises:
        `ValueError`: if the collection is of another model.
    """
    table = open_table(page.embeddings_dir, model_arguments)
    model, processor = load_model(model_arguments.model_name_or_path, model_arguments)
    splitter = page.sub_caption_splitter or choose_splitter()
    if table is None:
        table = find_table(pictures, model, processor, page.index_dir)
    else:  # queries are split as the captions were
        table.check_model(model, processor)
        splitter = table.settings.get("sub_caption_splitter") or splitter
    options = {"max_length": model_arguments.max_length, "batch_size": model_arguments.batch_size}
    is_kept = page.embeddings_dir is None
    return Searcher(model, processor, pictures, table, is_kept=is_kept, splitter=splitter, **options)


def launch(
    page: gr.Blocks, arguments: PageArguments, uploads: Path, logins: list[tuple[str, str]] | None = None
) -> str:
    """Serves a page in threads of its own, to everyone or to users with passwords. Returns where it is."""
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # else all programs on this machine share one
    page.queue(max_size=MAX_WAITING, api_open=False)
    middleware = [Middleware(SameOrigin, not arguments.is_shared), Middleware(Guard, uploads)]
    page.launch(
        server_name=arguments.host,
        server_port=arguments.port,
        share=arguments.share,
        auth=logins,
        max_file_size=MAX_UPLOAD,
        app_kwargs={"middleware": middleware},
        inbrowser=not arguments.no_browser,
        ssr_mode=False,  # whose server would stand before the guard
        theme=gr.themes.Base(**FONTS),
        css=read_resource("page.css"),
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    return f"{page.local_url} and {page.share_url}" if arguments.share else page.local_url


def serve(searcher: Searcher, arguments: PageArguments, logins: list[tuple[str, str]] | None = None) -> None:
    """Serves the page of a collection until Ctrl-C or SIGTERM, to everyone or to users with passwords."""
    # the folder is deleted at the end, with what was uploaded
    with TemporaryDirectory(prefix="lotlip-uploads-", ignore_cleanup_errors=True) as uploads, StopSignal("") as stop:
        page = build_page(searcher, arguments.k)
        searcher.start_update()
        try:
            address = launch(page, arguments, Path(uploads), logins)
            if arguments.is_shared and logins is None:
                logger.warning("There is no password: whoever finds the page can search, and see, the images.")
            print(f"Search your images at {address} (Ctrl-C ends it).", flush=True)
            while not stop.is_received():
                time.sleep(0.1)
        finally:
            searcher.stop()
            page.close(verbose=False)
