# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The search page, made with Gradio: what is on it and what its buttons do."""

import logging
import os
import time
from collections.abc import Callable
from functools import wraps
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
from .rendering import count, format_more, format_results, format_status, read_resource, render
from .searcher import PROBLEMS, Searcher
from .update import find_table, open_table


logger = logging.getLogger(__name__)

# On a phone what was found is below the window
SHOW_RESULTS = "() => { if (innerWidth <= 640) document.querySelector('#results').scrollIntoView(); }"
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
# At most so many searches wait; further ones get an error that asks to try again
MAX_WAITING = 200
# Uploads are deleted after an hour, looked for every ten minutes
KEPT_UPLOADS = (600, 3600)
# Searches wait for the model, which has a lock
SEVERAL = {"show_progress": "minimal", "concurrency_limit": 4}
# The fields of the filters, by which messages call them too
TAKEN_FROM, TAKEN_TO = "Taken from", "Taken to"
# What stands where results will be
SEARCH_HINT = (
    "Describe what you look for, in one sentence or many, or choose an image. The most similar images come here."
)
ZERO_SHOT_HINT = "Choose an image and write two or more labels. Their probabilities come here."
HEAT_MAP_NOTE = "Red: where the model finds it, in the part it sees."
# Of copies so many are shown
NUM_COPIES = 100


def image_file(**settings: object) -> gr.Image:
    """An image to be chosen, which handlers get as the path of its file: what is no image is for us to say."""
    image = gr.Image(sources=["upload", "clipboard"], **settings)
    # of this object, since for a subclass Gradio writes a .pyi file into the package
    image.preprocess = take_path
    return image


def take_path(payload: ImageData | None) -> str | None:
    return None if payload is None else payload.path


def answering(handler: Callable, show_problem: Callable[[str], Any]) -> Callable:
    """A handler that answers with what goes wrong, too."""

    @wraps(handler)
    def answer(*asked: Any) -> Any:
        try:
            return handler(*asked)
        except PROBLEMS as error:
            return show_problem(str(error) or type(error).__name__)

    return answer


def show_problem(text: str) -> str:
    """What is wrong, instead of results."""
    return render("message", text=text)


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
            How many images to show.
    """

    def __init__(self, searcher: Searcher, k: int):
        self.searcher, self.k = searcher, k

    def search(self, text: str, image_path: str | None, folder: str | None, taken_from: str, taken_to: str) -> str:
        those = Filter.read(folder, taken_from, taken_to, (TAKEN_FROM, TAKEN_TO))
        return format_results(self.searcher.search(text, image_path, self.k, those), self.searcher)

    def classify(self, image_path: str | None, labels: str, template: str) -> str:
        found = self.searcher.classify(image_path, labels, template)
        add_up = getattr(self.searcher.model, "logit_bias", None) is None
        return render("labels", found=found, add_up=add_up)

    def similar(self, asked: dict) -> dict[str, str]:
        found = self.searcher.similar(read_field(asked, "name"), self.k)
        return {"html": format_results(found, self.searcher)}

    def more(self, asked: dict) -> dict[str, str]:
        found = self.searcher.more(read_field(asked, "key"), read_field(asked, "shown", int), self.k)
        return format_more(found, self.searcher)

    def copies(self, asked: dict) -> dict[str, str]:
        asked_for = read_field(asked, "names", list)
        names = [name for name in map(str, asked_for[:NUM_COPIES]) if name in self.searcher.table]
        num_more = max(0, len(asked_for) - NUM_COPIES)
        return {"html": render("copies", names=names, num_more=num_more, thumbnail=self.searcher.thumbnail)}

    def enlarge(self, asked: dict) -> dict[str, str]:
        return {"source": self.searcher.enlarge(read_field(asked, "name"))}

    def heat_map(self, asked: dict) -> dict[str, str]:
        image = self.searcher.heat_map(read_field(asked, "name"), read_field(asked, "sentence"))
        return {"source": encode_picture(image), "message": HEAT_MAP_NOTE}

    def show_start(self) -> str:
        """What stands where results will be, before a search: some images."""
        names = self.searcher.browse(self.k)
        num_images, thumbnail = count(len(self.searcher.table), "image"), self.searcher.thumbnail
        return render("start", names=names, num_images=num_images, hint=SEARCH_HINT, thumbnail=thumbnail)

    def show_status(self) -> tuple[str, gr.Timer]:
        return format_status(self.searcher), gr.Timer(active=self.searcher.status.is_updating)

    def tick(self, results: str) -> tuple[str, gr.Timer, Any]:
        """The status, and some images where nothing is shown yet."""
        is_blank = results == render("hint", text=SEARCH_HINT) or results is None
        return *self.show_status(), self.show_start() if is_blank and len(self.searcher.table) else gr.skip()

    def update(self) -> tuple[str, gr.Timer]:
        self.searcher.start_update()
        return self.show_status()

    def open(self) -> tuple[str, gr.Timer, Any]:
        self.searcher.start_update(min_seconds_ago=60)
        return *self.show_status(), self.show_start() if len(self.searcher.table) else gr.skip()

    def list_folders(self) -> gr.Dropdown:
        return gr.Dropdown(choices=["", *self.searcher.table.folders])


def build_page(searcher: Searcher, k: int) -> gr.Blocks:
    """The page of a collection, which shows `k` images at a time."""
    handlers = Handlers(searcher, k)
    with gr.Blocks(title="Search images", analytics_enabled=False, delete_cache=KEPT_UPLOADS) as page:
        gr.HTML(render("title"))
        with gr.Row(equal_height=False):
            status = gr.HTML(format_status(searcher), elem_id="status", scale=4, min_width=300)
            refresh = gr.Button("Look for changes", size="sm", scale=0, min_width=160, visible=searcher.is_kept)
        timer = gr.Timer(0.5, active=False)
        with gr.Tab("Search"):
            results = build_search(handlers)
        with gr.Tab("Zero-shot"):
            build_zero_shot(handlers)
        page.load(handlers.open, outputs=[status, timer, results], show_progress="hidden")
        refresh.click(handlers.update, outputs=[status, timer], show_progress="hidden")
        timer.tick(handlers.tick, results, [status, timer, results], show_progress="hidden")
    return page


def build_search(handlers: Handlers) -> gr.HTML:
    """The tab where images are searched. Returns the part that shows results."""
    with gr.Row():
        text = gr.Textbox(
            label="Description",
            placeholder="One sentence, or as many as you like. Shift and Enter searches.",
            lines=6,
            max_lines=14,
            scale=3,
            elem_id="description",
        )
        image = image_file(label="Image, alone or beside a description", height=195, scale=2, elem_id="query-image")
    with gr.Accordion("Only some of the images", open=False, elem_id="filters"), gr.Row():
        # a folder that is not listed yet may be written
        folder = gr.Dropdown([""], value="", label="Folder", allow_custom_value=True, elem_id="folder")
        taken_from = gr.Textbox(label=TAKEN_FROM, placeholder="2024-05-01", max_lines=1, elem_id="taken-from")
        taken_to = gr.Textbox(label=TAKEN_TO, placeholder="2024-05-31", max_lines=1, elem_id="taken-to")
        folder.focus(handlers.list_folders, outputs=folder, show_progress="hidden")
    with gr.Row():
        button = gr.Button("Search", variant="primary", scale=0, min_width=200, elem_id="search")
    functions = (handlers.similar, handlers.more, handlers.copies, handlers.enlarge, handlers.heat_map)
    results = gr.HTML(
        render("hint", text=SEARCH_HINT),
        js_on_load=read_resource("page.js"),
        server_functions=[answering(function, lambda text: {"message": text}) for function in functions],
        elem_id="results",
    )
    asked = [button.click, text.submit, taken_from.submit, taken_to.submit]
    found = gr.on(
        asked,
        answering(handlers.search, show_problem),
        [text, image, folder, taken_from, taken_to],
        results,
        **SEVERAL,
    )
    found.then(None, js=SHOW_RESULTS)
    return results


def build_zero_shot(handlers: Handlers) -> None:
    """The tab where an image is classified."""
    with gr.Row():
        image = image_file(label="Image", height=300, scale=2, elem_id="image")
        with gr.Column(scale=3):
            labels = gr.Textbox(label="Labels, one on each line", lines=6, max_lines=14, elem_id="labels")
            template = gr.Textbox("a photo of a {}", label="Template: {} is the label", elem_id="template")
    with gr.Row():
        button = gr.Button("Classify", variant="primary", scale=0, min_width=200, elem_id="classify")
    bars = gr.HTML(render("hint", text=ZERO_SHOT_HINT), elem_id="bars")
    asked = [button.click, labels.submit, template.submit]
    gr.on(asked, answering(handlers.classify, show_problem), [image, labels, template], bars, **SEVERAL)


def open_searcher(
    page: PageArguments, model_arguments: SearchModelArguments, pictures: PictureFolder | PictureRows
) -> Searcher:
    """
    The searcher of the page: its images, its model, and the table of both.

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
