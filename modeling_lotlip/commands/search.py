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
are nearly the same are one result. With --embeddings the images or captions of `lotlip embed` are searched.
"""

import sys
from pathlib import Path

from ..embedding.arguments import OutputArguments
from ..search.arguments import USED_AS_IT_IS, SearchArguments, SearchModelArguments


ARGUMENTS = (SearchArguments, SearchModelArguments, OutputArguments)


def run(search: SearchArguments, arguments: SearchModelArguments, output: OutputArguments) -> None:
    from ..arguments import refuse_given
    from ..embedding.models import load_model
    from ..files import write_results
    from ..search.answers import format_answers, list_rows, note_file_names, search_embeddings, search_folder
    from ..search.pictures import PictureFolder
    from ..search.update import open_table
    from ..terminal import printable

    texts, pictures = search.read_texts(), None
    # a wrong folder raises an error before the model is loaded
    if search.photos is None:
        refuse_given(arguments, ("batch_size",), USED_AS_IT_IS)
    else:
        pictures = PictureFolder(Path(search.photos), search.exact_decoding)
    table = open_table(search.embeddings_dir, arguments)
    for note in note_file_names(search.texts):
        print(printable(note), file=sys.stderr)
    model, processor = load_model(arguments.model_name_or_path, arguments)
    options = {"k": search.k, "max_length": arguments.max_length}
    options |= {"those": search.read_filter(), "all_copies": search.all_copies}
    if table is None:
        options |= {"splitter": search.sub_caption_splitter, "index_dir": search.index_dir}
        results = search_folder(pictures, model, processor, texts, batch_size=arguments.batch_size, **options)
    else:
        results = search_embeddings(table, model, processor, texts, kind=search.kind or "image", **options)
    for note in results["notes"]:
        print(printable(note), file=sys.stderr)
    print(printable(format_answers(results)))
    if output.output_file is not None:
        written = format_answers(results, are_paths_full=True)
        write_results(output.output_file, results, written, list_rows(results["queries"]))
