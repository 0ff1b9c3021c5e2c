# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings of texts and images for other programs, as OpenAI's `/v1/embeddings`.

    lotlip serve --model outputs/demo

OpenAI's client reads them: `OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")`. An image is a data URL,
`data:image/jpeg;base64,...`, among the texts. Only this machine can reach the server. Ctrl-C stops it.
"""

from ..encoder.arguments import ModelArguments
from ..serving.arguments import ServingArguments


ARGUMENTS = (ServingArguments, ModelArguments)


def run(serving: ServingArguments, model: ModelArguments) -> None:
    """Serves embeddings of texts and images, in OpenAI's form."""
    from ..serving.server import serve_encoder
    from ..utils.terminal import announce

    announce("Loading the model")
    serve_encoder(serving, model)
