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
"""Names of models: checkpoints in the original's layout are loaded by the name of their repository or folder."""

from importlib import import_module
from importlib.util import find_spec
from os import PathLike


HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


def find_pretrained(name_or_path: str | PathLike | None, **hub_options) -> str | PathLike | None:
    """
    What the Auto classes load in place of a name: of a repository or a folder in the original's layout (`model.pt`,
    with or without `open_clip_config.json`) the folder in the Hub's cache that it was converted to, once; any other
    name is returned as it is.

    Args:
        name_or_path (`str` or `PathLike`):
            A Hub id or a folder.
        hub_options:
            `cache_dir`, `force_download` (converts again, too), `local_files_only`, `revision` and `token`, as in
            `from_pretrained`.

    Raises:
        `OSError`: if the Hub has no such repository or cannot be reached, or the conversion cannot be written.
        `ValueError`: if the checkpoint is damaged or of another architecture, or there is no vocabulary.

    Example:

    ```python
    >>> from transformers import AutoModel
    >>> from modeling_lotlip.loading_lotlip import find_pretrained

    >>> model = AutoModel.from_pretrained(find_pretrained("weiwu-ww/LoTLIP-ViT-B-16-100M"))  # doctest: +SKIP
    ```"""
    # by name, since the files of a model on the Hub come without it
    module = f"{__package__}.original_layout"
    if find_spec(module) is None:
        return name_or_path
    return import_module(module).find_pretrained(name_or_path, **hub_options)


class LotlipLoadingMixin:
    """A `from_pretrained` that takes checkpoints in the original's layout, too."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike | None, *args, **kwargs):
        """
        As in transformers; the repository or the folder may also be in the original's layout: `model.pt`, with or
        without `open_clip_config.json`. Such a checkpoint is converted once, into the Hub's cache, and found there
        again.

        Raises:
            `OSError`: if there is no such model, or its conversion cannot be written.
            `ValueError`: if the checkpoint is damaged or of another architecture, or there is no vocabulary.
        """
        name = pretrained_model_name_or_path
        path = find_pretrained(name, **{option: kwargs[option] for option in HUB_OPTIONS if option in kwargs})
        loaded = super().from_pretrained(path, *args, **kwargs)
        if path != name:
            # what was asked for, not the place in the cache: adapters and the like are saved with it
            part = loaded[0] if isinstance(loaded, tuple) else loaded
            for named in (part, getattr(part, "config", None)):
                if getattr(named, "name_or_path", None) == path:
                    named.name_or_path = str(name)
        return loaded
