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
Embeddings of texts and pictures for other programs, as OpenAI's `/v1/embeddings`.

    lotlip serve --model outputs/demo

OpenAI's client reads them: `OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")`. A picture is a data URL,
`data:image/jpeg;base64,...`, among the texts. It is served to this machine only. Ctrl-C ends it.
"""

from ..embedding.arguments import ModelArguments
from ..serving.arguments import ServingArguments


ARGUMENTS = (ServingArguments, ModelArguments)


def run(serving: ServingArguments, model: ModelArguments) -> None:
    from ..serving.server import serve

    serve(serving, model)
