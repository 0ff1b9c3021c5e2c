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
Uploads a folder with a model to the Hub, with its model card and code: what `lotlip convert` or a training wrote.

    lotlip push outputs/LoTLIP-ViT-B-16 me/LoTLIP-ViT-B-16

The repository is created if there is none yet. Checkpoints and logs of a training are left out.
"""

from dataclasses import dataclass

from ..arguments import Arguments, argument


@dataclass
class PushArguments(Arguments):
    """What is uploaded, and where to."""

    folder: str = argument(help="The folder.", positional=True, metavar="DIR")
    name: str = argument(help="The repository: NAME, in your own namespace, or ORG/NAME.", positional=True)


ARGUMENTS = (PushArguments,)


def run(upload: PushArguments) -> None:
    from ..hub import push_folder

    print(push_folder(upload.folder, upload.name))
