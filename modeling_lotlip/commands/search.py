# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search of pictures by descriptions: prints rank, similarity and path of the most similar ones.

    lotlip search my_photos "A red boat at a pier. The sea is calm."
    lotlip search my_photos "a red boat" "a house on sand" --k 10 --output_file found.json
    lotlip search my_photos "a red boat" --folder holidays --taken_from 2024-05-01 --taken_to 2024-05-31
    lotlip search --embeddings DIR "a red boat" --kind long

A folder is indexed once and kept up to date: new files are embedded, deleted ones removed. `lotlip app` searches the
same index. Results that are no more similar than those of texts that fit no picture are marked as weak. Pictures that
are nearly the same are one result. With --embeddings the images or captions of `lotlip embed` are searched, and named
by their `id`.
"""

import sys
from pathlib import Path

from ..embedding.arguments import OutputArguments
from ..search.arguments import SearchArguments, SearchModelArguments


ARGUMENTS = (SearchArguments, SearchModelArguments, OutputArguments)


def run(search: SearchArguments, arguments: SearchModelArguments, output: OutputArguments) -> None:
    from ..embedding.models import load_model
    from ..embedding.search import format_hits
    from ..files import write_results
    from ..search.answers import format_answers, list_rows, note_file_names, search_embeddings, search_photos
    from ..search.index import is_index
    from ..search.models import choose_model
    from ..search.pictures import PictureFolder
    from ..terminal import printable

    texts = search.read_texts()
    # a wrong folder raises an error before the model is loaded
    pictures = None if search.photos is None else PictureFolder(Path(search.photos), search.exact_decoding)
    name = choose_model(arguments, search.embeddings_dir)
    for note in note_file_names(search.texts):
        print(printable(note), file=sys.stderr)
    model, processor = load_model(name, arguments, takes_tokens=True)
    options = {"k": search.k, "max_length": arguments.max_length}
    options |= {"those": search.read_filter(), "all_copies": search.all_copies}
    if pictures is not None:
        options |= {"splitter": search.sub_caption_splitter, "index_dir": search.index_dir}
        results = search_photos(pictures, model, processor, texts, batch_size=arguments.batch_size, **options)
    else:
        options |= {"kind": search.kind or "image", "model_name_or_path": name}
        results = search_embeddings(search.embeddings_dir, model, processor, texts, **options)
    for note in results["notes"]:
        print(printable(note), file=sys.stderr)
    if pictures is None and not is_index(search.embeddings_dir):
        table = written = format_hits(results)
    else:
        table, written = format_answers(results), format_answers(results, are_paths_full=True)
    print(printable(table))
    if output.output_file is not None:
        write_results(output.output_file, results, written, list_rows(results["queries"]))
