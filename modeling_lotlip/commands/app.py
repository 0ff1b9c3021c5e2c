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
"""
A page to search your pictures with: by a long description, by a picture, or by both.

    python examples/search_app.py --model_name_or_path outputs/demo --images my_photos
    python examples/search_app.py --model_name_or_path MODEL --dataset_name NAME --eval_split train
    python examples/search_app.py --model_name_or_path MODEL --embeddings_dir outputs/embeddings

Open the address that it prints. It is served to this machine only, and needs no network.
"""

import argparse
import os
import signal
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Event

from ..data.arguments import HelpFormatter


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: it calls nobody

import gradio as gr

from ..data.arguments import add_data_arguments
from ..embedding.arguments import add_model_arguments
from ..embedding.models import load_model
from ..search.page import (
    CSS,
    HEAT_MAP_NOTE,
    SCRIPT,
    format_labels,
    format_message,
    format_results,
    format_status,
    wrap,
)
from ..search.pictures import encode_picture
from ..search.query import SENTENCE_SCORES, Query, Result
from ..search.searcher import PROBLEMS, Searcher


# On a phone what was found is below the window
SHOW_RESULTS = "() => { if (innerWidth <= 640) document.querySelector('#results').scrollIntoView(); }"
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


def picture_file(**settings) -> gr.Image:
    """
    A picture to be chosen, which handlers get as the path of its file, whatever is in it: what is none is for us to
    say.
    """
    picture = gr.Image(sources=["upload", "clipboard"], **settings)
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


def answer(compute: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What was asked for, or what is wrong with it."""
    try:
        return compute()
    except PROBLEMS as error:
        return {"message": str(error) or type(error).__name__}


def build_page(searcher: Searcher) -> gr.Blocks:
    """The page of a collection."""

    def format_found(query: Query, results: list[Result]) -> str:
        num_pictures = len(searcher.index.names)
        return format_results(query, results, searcher.thumbnail, searcher.args.sentence_score, num_pictures)

    def search(text: str, image_path: str | None) -> str:
        found = answer(lambda: {"html": format_found(*searcher.search(text, image_path, searcher.args.k))})
        return found["html"] if "html" in found else format_message(found["message"])

    # what the page asks for by itself, see SCRIPT: a problem is its answer
    def similar(asked: dict) -> dict[str, str]:
        return answer(lambda: {"html": format_found(*searcher.similar(asked["name"], searcher.args.k))})

    def enlarge(asked: dict) -> dict[str, str]:
        return answer(lambda: {"source": searcher.enlarge(asked["name"])})

    def heat_map(asked: dict) -> dict[str, str]:
        return answer(
            lambda: {
                "source": encode_picture(searcher.heat_map(asked["name"], asked["sentence"])),
                "message": HEAT_MAP_NOTE,
            }
        )

    def classify(image_path: str | None, labels: str, template: str) -> str:
        add_up = not hasattr(searcher.model, "logit_bias")
        found = answer(lambda: {"html": format_labels(searcher.classify(image_path, labels, template), add_up)})
        return found["html"] if "html" in found else format_message(found["message"])

    def update() -> tuple[str, gr.Timer]:
        searcher.start_update()
        return show_status()

    def open_page() -> tuple[str, gr.Timer]:
        searcher.start_update(min_seconds_ago=60)
        return show_status()

    def show_status() -> tuple[str, gr.Timer]:
        return format_status(searcher), gr.Timer(active=searcher.status.is_updating)

    with gr.Blocks(title="Search pictures", analytics_enabled=False) as page:
        gr.HTML(wrap("<h1>Search pictures</h1>"))
        with gr.Row(equal_height=False):
            status = gr.HTML(format_status(searcher), elem_id="status", scale=4, min_width=300)
            is_fixed = searcher.args.embeddings_dir is not None
            refresh = gr.Button("Look for changes", size="sm", scale=0, min_width=160, visible=not is_fixed)
        timer = gr.Timer(0.5, active=False)
        with gr.Tab("Search"):
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
            with gr.Row():
                button = gr.Button("Search", variant="primary", scale=0, min_width=200, elem_id="search")
            results = gr.HTML(js_on_load=SCRIPT, server_functions=[heat_map, enlarge, similar], elem_id="results")
        with gr.Tab("Zero-shot"):
            with gr.Row():
                picture = picture_file(
                    label="Picture",
                    height=300,
                    scale=2,
                    elem_id="picture",
                )
                with gr.Column(scale=3):
                    labels = gr.Textbox(label="Labels, one on each line", lines=6, max_lines=14, elem_id="labels")
                    template = gr.Textbox("a photo of a {}", label="Template: {} is the label", elem_id="template")
            with gr.Row():
                classify_button = gr.Button("Classify", variant="primary", scale=0, min_width=200, elem_id="classify")
            bars = gr.HTML(elem_id="bars")

        page.load(open_page, outputs=[status, timer], show_progress="hidden")
        refresh.click(update, outputs=[status, timer], show_progress="hidden")
        timer.tick(show_status, outputs=[status, timer], show_progress="hidden")
        several = {"show_progress": "minimal", "concurrency_limit": 4}  # the model has a lock of its own
        found = gr.on([button.click, text.submit], search, [text, image], results, **several)
        found.then(None, js=SHOW_RESULTS)
        classifying = [classify_button.click, labels.submit, template.submit]
        gr.on(classifying, classify, [picture, labels, template], bars, **several)
    return page


def serve(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    model, processor = load_model(args.model_name_or_path, args)
    searcher = Searcher(model, processor, args)
    searcher.start_update()
    page = build_page(searcher)
    is_interrupted, num_interrupts = Event(), count(1)

    def interrupt(*_: object) -> None:
        is_interrupted.set()
        if next(num_interrupts) > 2:  # the second one is of one who is in a hurry, the third of one who waits
            os._exit(130)

    signal.signal(signal.SIGINT, interrupt)
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=args.port,
            share=args.share,
            theme=gr.themes.Base(**FONTS),
            css=CSS,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
        address = f"{page.local_url} and {page.share_url}" if args.share else page.local_url
        print(f"Search your pictures at {address} (Ctrl-C ends it).", flush=True)
        is_interrupted.wait()
        print()
    finally:
        searcher.stop()
        page.close(verbose=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--images", type=Path, help="A folder of pictures, with all folders in it.")
    parser.add_argument("--embeddings_dir", type=Path, help="Embeddings of images, by embed_dataset.py, as they are.")
    parser.add_argument("--index_dir", type=Path, default=Path("outputs/search"), help="Where indices are kept.")
    parser.add_argument("--k", type=int, default=12, help="How many pictures to show.")
    parser.add_argument("--index", default="exact", choices=["exact", "faiss"], help="How to search.")
    parser.add_argument("--faiss_factory", default="HNSW32", help="The faiss index, in the words of its factory.")
    parser.add_argument(
        "--sentence_score",
        default="alone",
        choices=SENTENCE_SCORES,
        help="The bars: similarity with each sentence alone, or what similarity with the text loses without it.",
    )
    parser.add_argument("--port", type=int, default=7860, help="The port on 127.0.0.1.")
    parser.add_argument("--share", action="store_true", help="Also make a public address, through Gradio's servers.")
    parser.set_defaults(sub_caption_splitter="sentences", eval_split=None)
    args = parser.parse_args()
    sources = [name for name in ("images", "embeddings_dir", "dataset_name") if getattr(args, name) is not None]
    if len(sources) > 1:
        parser.error(f"name one collection, not both --{sources[0]} and --{sources[1]}.")
    if args.eval_split is None:  # a folder of one's own has no other; the drawn scenes have a small one
        args.eval_split = "test" if args.dataset_name is None else "train"
    for name in ("batch_size", "k"):
        if getattr(args, name) < 1:
            parser.error(f"`--{name} {getattr(args, name)}` must be at least 1.")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", args.port)) == 0:
            parser.error(f"`--port {args.port}` is taken by another program: name another one.")

    try:
        serve(args)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
