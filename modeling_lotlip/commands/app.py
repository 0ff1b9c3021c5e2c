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

    lotlip app my_photos
    lotlip app --model MODEL --dataset_name NAME --eval_split train
    lotlip app --model MODEL --embeddings_dir outputs/embeddings

Open the address that it prints. It is served to this machine only, and needs no network.
"""

from ..embedding.arguments import ModelArguments
from ..search.arguments import PageArguments


ARGUMENTS = (PageArguments, ModelArguments)


def run(page: PageArguments, model: ModelArguments) -> None:
    from ..search.page import check_port, open_searcher, serve

    check_port(page.port)
    serve(open_searcher(page, model), page.k, page.port, page.share)
