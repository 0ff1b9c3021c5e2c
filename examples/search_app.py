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
from pathlib import Path
from threading import Event

from data.arguments import HelpFormatter


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: it calls nobody

import gradio as gr
from accelerate import PartialState
from data.loading import UnreadableImageError, add_data_arguments
from inference.embedding import add_model_arguments, load_model
from PIL import Image
from search.page import (
    CSS,
    HEAT_MAP_NOTE,
    SCRIPT,
    encode_picture,
    format_labels,
    format_message,
    format_results,
    format_status,
    wrap,
)
from search.query import NUM_REFERENCES, SENTENCE_SCORES, QueryError
from search.searcher import Searcher


FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


def picture_file(**settings) -> gr.Image:
    """
    A picture to be chosen, which handlers get as the path of its file, whatever is in it: what is none is for us to
    say.
    """
    picture = gr.Image(sources=["upload", "clipboard"], **settings)
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


def build_page(searcher: Searcher) -> gr.Blocks:
    """The page of a collection."""

    def read(name: str) -> Image.Image | None:
        try:
            return searcher.pictures.read(name)
        except UnreadableImageError:
            return None

    def search(text: str, image_path: str | None) -> str:
        try:
            query, results = searcher.search(text, image_path, searcher.args.k)
        except QueryError as error:
            return format_message(str(error))
        is_sampled = len(searcher.index.names) > NUM_REFERENCES
        return format_results(query, results, read, searcher.args.sentence_score, is_sampled)

    def classify(image_path: str | None, labels: str, template: str) -> str:
        try:
            found = searcher.classify(image_path, labels, template)
        except QueryError as error:
            return format_message(str(error))
        return format_labels(found, add_up=not hasattr(searcher.model, "logit_bias"))

    def heat_map(asked: dict) -> dict[str, str]:
        try:
            return {
                "source": encode_picture(searcher.heat_map(asked["name"], asked["sentence"])),
                "message": HEAT_MAP_NOTE,
            }
        except ValueError as error:
            return {"message": str(error)}

    def update() -> tuple[str, gr.Timer]:
        searcher.start_update()
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
                    lines=7,
                    max_lines=14,
                    scale=3,
                    elem_id="description",
                )
                image = picture_file(
                    label="Picture (with a description: the mean of both)",
                    height=210,
                    scale=2,
                    elem_id="query-picture",
                )
            with gr.Row():
                button = gr.Button("Search", variant="primary", scale=0, min_width=200, elem_id="search")
            results = gr.HTML(js_on_load=SCRIPT, server_functions=[heat_map], elem_id="results")
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

        page.load(update, outputs=[status, timer], show_progress="hidden")
        refresh.click(update, outputs=[status, timer], show_progress="hidden")
        timer.tick(show_status, outputs=[status, timer], show_progress="hidden")
        gr.on([button.click, text.submit], search, [text, image], results, show_progress="minimal")
        classify_button.click(classify, [picture, labels, template], bars, show_progress="minimal")
    return page


def serve(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    model, processor = load_model(args, PartialState(cpu=args.device == "cpu"))
    searcher = Searcher(model, processor, args)
    searcher.start_update()
    page = build_page(searcher)
    is_interrupted = Event()
    signal.signal(signal.SIGINT, lambda number, frame: is_interrupted.set())  # a second Ctrl-C does no more
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
    args = parser.parse_args()
    if args.images is not None and args.embeddings_dir is not None:
        parser.error("name either --images or --embeddings_dir.")
    for name in ("batch_size", "k"):
        if getattr(args, name) < 1:
            parser.error(f"`--{name} {getattr(args, name)}` must be at least 1.")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", args.port)) == 0:
            parser.error(f"`--port {args.port}` is taken by another program: name another one.")

    try:
        serve(args)
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
