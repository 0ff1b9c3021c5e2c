# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A page to search your images with: by a long description, by an image, or by both.

    lotlip app my_photos
    lotlip app --embeddings_dir outputs/embeddings

It opens in the browser. Only this machine can reach it; the network is needed once, to download the model. To let
others use it: `--host 0.0.0.0 --auth_file FILE`.
"""

from ..search.arguments import PageArguments, SearchModelArguments, read_logins


ARGUMENTS = (PageArguments, SearchModelArguments)


def run(page: PageArguments, model: SearchModelArguments) -> None:
    """Serves the page that searches a folder of images."""
    from ..search.index import open_images
    from ..search.page import Handlers, serve
    from ..search.searcher import open_searcher
    from ..table.storage import EmbeddingTable
    from ..utils.addresses import listen
    from ..utils.terminal import announce

    # impossible arguments raise errors before the model is loaded
    logins = None
    if page.auth_file is not None:
        logins = read_logins(page.auth_file)
    read = None
    if page.embeddings_dir is not None:
        read = open_images(EmbeddingTable(page.embeddings_dir))
    listen(page.host, page.port).close()
    announce("Loading the model")
    searcher = open_searcher(page, model)
    serve(Handlers(searcher, read or open_images(searcher.table), page.k), page, logins)
