# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A page to search your pictures with: by a long description, by a picture, or by both.

    lotlip app my_photos
    lotlip app --model MODEL --dataset_name NAME --eval_split train
    lotlip app --model MODEL --embeddings_dir outputs/embeddings

Open the address that it prints. Only this machine can reach it, and it needs no network. To let others use it:
`--host 0.0.0.0 --auth_file FILE`.
"""

from ..search.arguments import PageArguments, SearchModelArguments


ARGUMENTS = (PageArguments, SearchModelArguments)


def run(page: PageArguments, model: SearchModelArguments) -> None:
    from ..network import listen
    from ..search.logins import read_logins
    from ..search.pictures import open_pictures

    # a wrong folder raises an error before a missing extra does
    pictures = open_pictures(page)

    from ..search.page import open_searcher, serve

    # impossible arguments raise errors before the model is loaded
    logins = None if page.auth_file is None else read_logins(page.auth_file)
    listen(page.host, page.port).close()
    serve(open_searcher(page, model, pictures), page, logins)
