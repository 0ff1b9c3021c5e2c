# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The search page, made with Gradio: its parts, and who reaches it."""

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple


# Before Gradio is imported: it calls nobody, and keeps no searches of visitors
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

try:
    import gradio as gr
    from starlette.middleware import Middleware
except ImportError as error:
    raise ImportError('The page needs Gradio: `pip install "lotlip[app]"`.') from error

from ..utils.signals import StopSignal
from .arguments import PageArguments
from .guard import MAX_UPLOAD, Guard, SameOrigin, is_uploaded
from .handlers import HINT, PROBLEMS, Handlers, read_resource, render


logger = logging.getLogger(__name__)

# On a phone what was found is below the window
SHOW_RESULTS = "() => { if (innerWidth <= 640) document.querySelector('#results').scrollIntoView(); }"
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
# Searches that wait; further ones get an error that asks to try again
MAX_WAITING = 200
# Uploads are deleted after an hour, looked for every ten minutes
KEPT_UPLOADS = (600, 3600)
A_LINE = {"max_lines": 1}
# Events that no client calls by name, and that a visitor does not wait for
HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}
# Searches wait for the model, which has a lock
SEVERAL = {"show_progress": "minimal", "concurrency_limit": 4}


class Inputs(NamedTuple):
    """The parts of the page that say what to search for, in the order of the arguments of [`Handlers.search`]."""

    text: gr.Textbox
    image: gr.Image
    folder: gr.Dropdown
    taken_from: gr.Textbox
    taken_to: gr.Textbox


def answering(handler: Callable, show_problem: Callable[[str], Any]) -> Callable:
    """Makes a handler that answers with what goes wrong, too."""

    @wraps(handler)
    def answer(*asked: Any) -> Any:
        try:
            return handler(*asked)
        except PROBLEMS as error:
            return show_problem(str(error) or type(error).__name__)

    return answer


def build_page(handlers: Handlers) -> gr.Blocks:
    """Builds the page of a collection."""
    with gr.Blocks(title="Search images", analytics_enabled=False, delete_cache=KEPT_UPLOADS) as page:
        gr.HTML(render("title"))
        with gr.Row(equal_height=False):
            status = gr.HTML(handlers.status(), elem_id="status", scale=4, min_width=300)
            rescan = gr.Button(
                "Rescan folder",
                size="sm",
                scale=0,
                min_width=160,
                visible=handlers.searcher.folder is not None,
            )
        inputs = add_inputs()
        with gr.Row():
            button = gr.Button("Search", variant="primary", scale=0, min_width=200, elem_id="search")
        answers = [
            answering(handler, lambda text: {"message": text})
            for handler in (handlers.copies, handlers.enlarge, handlers.heat_map)
        ]
        results = gr.HTML(
            render("hint", text=HINT),
            js_on_load=read_resource("page.js"),
            server_functions=answers,
            elem_id="results",
        )
        shown = gr.State(0)  # an `Asked` of the results, or how many images stand there before a search
        connect_search(handlers, inputs, button, results, shown)
        connect_status(handlers, page, rescan, [status, gr.Timer(0.5, active=False), results, shown])
    return page


def add_inputs() -> Inputs:
    """Adds the parts that say what to search for."""
    with gr.Row():
        text = gr.Textbox(
            label="Description",
            placeholder="One sentence, or as many as you like. Shift and Enter searches.",
            lines=6,
            max_lines=14,
            scale=3,
            elem_id="description",
        )
        image = gr.Image(
            sources=["upload", "clipboard"],
            label="Image, alone or with a description",
            height=195,
            scale=2,
            elem_id="query-image",
        )

    def find_upload(payload: gr.FileData | None) -> str | None:
        """Returns the path of what a visitor uploaded, image or not, which no part of Gradio opens."""
        if payload is None:
            return None
        if not is_uploaded(payload.path, Path(image.GRADIO_CACHE)):
            raise gr.Error("Upload the image: no other file is read.")
        return payload.path

    image.preprocess = find_upload  # of this object: for a subclass Gradio writes a .pyi file
    with gr.Accordion("Filters", open=False, elem_id="filters"), gr.Row():
        # a folder that is not listed yet may be written
        folder = gr.Dropdown([""], value="", label="Folder", allow_custom_value=True, elem_id="folder")
        taken_from = gr.Textbox(label="Taken from", placeholder="2024-05-01", elem_id="taken-from", **A_LINE)
        taken_to = gr.Textbox(label="Taken to", placeholder="2024-05-31", elem_id="taken-to", **A_LINE)
    return Inputs(text, image, folder, taken_from, taken_to)


def connect_search(
    handlers: Handlers,
    inputs: Inputs,
    button: gr.Button,
    results: gr.HTML,
    shown: gr.State,
) -> None:
    """
    Connects a search, and what is clicked among its results, with the handlers.

    Args:
        handlers (`Handlers`):
            The answers.
        inputs (`Inputs`):
            The fields of the description, the image and the filters.
        button (`gr.Button`):
            Starts the search.
        results (`gr.HTML`):
            Shows the results.
        shown (`gr.State`):
            Which results are shown: what [`Handlers.more`] needs.
    """

    def show_problem(text: str) -> tuple[str, Any]:
        return render("message", text=text), gr.skip()

    search = answering(handlers.search, show_problem)
    more = answering(handlers.more, show_problem)
    find_similar = answering(handlers.similar, show_problem)

    def similar(event: gr.EventData) -> tuple[str, Any]:
        return find_similar(event.name)

    def list_folders() -> gr.Dropdown:
        return gr.Dropdown(choices=["", *handlers.searcher.table.folders])

    inputs.folder.focus(list_folders, outputs=inputs.folder, **HIDDEN)
    events = [button.click, inputs.text.submit, inputs.taken_from.submit, inputs.taken_to.submit]
    found = gr.on(events, search, list(inputs), [results, shown], **SEVERAL)
    found.then(None, js=SHOW_RESULTS)
    # `page.js` triggers these two: "more like this" at a result, and "Show more" below all of them
    results.select(similar, None, [results, shown], api_visibility="private", **SEVERAL)
    results.submit(more, shown, [results, shown], api_visibility="private", **SEVERAL)


def connect_status(
    handlers: Handlers,
    page: gr.Blocks,
    rescan_button: gr.Button,
    outputs: list,
) -> None:
    """
    Connects the update of the index with the handlers.

    Args:
        handlers (`Handlers`):
            The answers.
        page (`gr.Blocks`):
            The page. An update begins when a visitor opens it.
        rescan_button (`gr.Button`):
            Starts an update as well.
        outputs (`list`):
            Where the status is shown, the timer that asks for it, the results, and what they are of.
    """
    _, timer, _, shown = outputs
    updater = handlers.updater

    def tick(shown: object) -> tuple[str, gr.Timer, Any, Any]:
        """Shows the status and, before the first search, the first images."""
        status, is_running = handlers.follow()
        is_start_due = isinstance(shown, int) and shown < min(handlers.k, len(handlers.searcher.table))
        start = (gr.skip(), gr.skip())
        if is_start_due:
            start = handlers.start()
        return status, gr.Timer(active=is_running), *start

    def rescan(shown: object) -> tuple[str, gr.Timer, Any, Any]:
        updater.start()
        return tick(shown)

    page.load(rescan, shown, outputs, **HIDDEN)
    rescan_button.click(rescan, shown, outputs, **HIDDEN)
    timer.tick(tick, shown, outputs, **HIDDEN)


def launch(
    page: gr.Blocks,
    arguments: PageArguments,
    uploads: Path,
    logins: list[tuple[str, str]] | None = None,
) -> str:
    """
    Serves a page in a thread.

    Args:
        page (`gr.Blocks`):
            The page.
        arguments (`PageArguments`):
            Where it is served.
        uploads (`Path`):
            The folder of uploads, which is Gradio's folder of temporary files.
        logins (`list[tuple[str, str]]`, *optional*):
            The users that are let in, and their passwords. Default: everyone is.

    Returns:
        `str`: its addresses.
    """
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
    if arguments.share:
        return f"{page.local_url} and {page.share_url}"
    return page.local_url


def serve(
    handlers: Handlers,
    arguments: PageArguments,
    logins: list[tuple[str, str]] | None = None,
) -> None:
    """Serves the page of a collection until Ctrl-C or SIGTERM, to everyone or to users with passwords."""
    # the folder is deleted at the end, with what was uploaded
    uploads_folder = TemporaryDirectory(prefix="lotlip-uploads-", ignore_cleanup_errors=True)
    with uploads_folder as uploads, StopSignal("") as stop:
        # else all programs on this machine have the same folder of uploads
        os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(uploads)
        page = build_page(handlers)
        handlers.updater.start()
        try:
            address = launch(page, arguments, Path(uploads), logins)
            if arguments.is_shared and logins is None:
                logger.warning("There is no password: all who find the page can search, and see, the images.")
            print(f"Search your images at {address} (Ctrl-C ends it).", flush=True)
            while not stop.is_received():
                time.sleep(0.1)
        finally:
            handlers.updater.stop()
            page.close(verbose=False)
        if stop.number == signal.SIGINT:
            raise KeyboardInterrupt
