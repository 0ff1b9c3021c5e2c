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
"""LoTLIP folders for the Hub: model card, upload."""

from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import CONFIG_NAME

from .saving_lotlip import MODEL_CARD_NAME, SENTENCE_TRANSFORMERS_FILES, write_model_card


# What belongs to a saved model, beside its code
MODEL_FILES = (MODEL_CARD_NAME, "*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer.json")
MODEL_FILES += ("eval_results.json",)


def find_model_files(folder: str | Path) -> list[str]:
    """
    The names of the files in a folder that are of a saved model: weights, configurations, card and code, but no
    checkpoints of a training, no logs and nothing in a subfolder.

    Args:
        folder (`str` or `Path`):
            A folder that a model was saved in.

    Raises:
        `ValueError`: if no model was saved there.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipTextConfig
    >>> from modeling_lotlip.hub import find_model_files

    >>> LotlipTextConfig().save_pretrained("lotlip-text")
    >>> find_model_files("lotlip-text")
    ['config.json', 'configuration_lotlip.py', 'loading_lotlip.py']
    ```"""
    if not (Path(folder) / CONFIG_NAME).is_file():
        raise ValueError(f"`{folder}` has no `{CONFIG_NAME}`: name a folder that a model was saved in.")
    patterns = (*MODEL_FILES, *SENTENCE_TRANSFORMERS_FILES, "*_lotlip.py", "sub_captions.py", "files.py")
    names = [file.name for file in Path(folder).iterdir() if file.is_file()]
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def push_folder(folder: str | Path, repo_id: str, allow_patterns: list[str] | None = None) -> str:
    """
    Creates the repository `repo_id` on the Hub if there is none yet, and uploads the files of a folder in one commit.

    Args:
        folder (`str` or `Path`):
            The folder.
        repo_id (`str`):
            Name of the repository, `"name"` (in the user's own namespace) or `"org/name"`.
        allow_patterns (`list[str]`, *optional*):
            The files to upload, those of `find_model_files` by default.

    Returns:
        `str`: the address of the repository.

    Raises:
        `ValueError`: if the Hub does not know who uploads.
        `HfHubHTTPError`: if the Hub refuses for another reason.

    Example:

    ```python
    >>> from modeling_lotlip.hub import push_folder

    >>> push_folder("lotlip-tiny", "org/lotlip-tiny")  # doctest: +SKIP
    ```"""
    allow_patterns = find_model_files(folder) if allow_patterns is None else allow_patterns
    api = HfApi()
    try:
        repo_url = api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(
            repo_id=repo_url.repo_id,
            folder_path=folder,
            commit_message="Upload LoTLIP",
            allow_patterns=allow_patterns,
        )
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise ValueError(
                f"`{folder}` was not uploaded to `{repo_id}`: the Hub asks who you are. Log in with `hf auth login`, "
                "then repeat the upload with `lotlip push`."
            ) from error
        raise
    return str(repo_url)


def push_metric(repo_id: str) -> str:
    """
    Uploads the metric to a Space on the Hub, where `evaluate.load("org/name")` finds it, by its full name. The Space
    is created if there is none yet, and shows the metric's card.

    Args:
        repo_id (`str`):
            Name of the Space, `"name"` (in the user's own namespace) or `"org/name"`. The metric is called by it.

    Returns:
        `str`: the address of the Space.

    Raises:
        `HfHubHTTPError`: if the Hub refuses, for instance because nobody is logged in (`hf auth login`).

    Example:

    ```python
    >>> from modeling_lotlip.hub import push_metric

    >>> push_metric("org/image_text_retrieval")  # doctest: +SKIP
    ```"""
    folder = Path(__file__).parent / "metrics" / "image_text_retrieval"
    api = HfApi()
    repo_url = api.create_repo(repo_id, repo_type="space", space_sdk="static", exist_ok=True)
    files = {f"{repo_id.split('/')[-1]}.py": "image_text_retrieval.py", MODEL_CARD_NAME: MODEL_CARD_NAME}
    api.create_commit(
        repo_id=repo_url.repo_id,
        repo_type="space",
        operations=[CommitOperationAdd(name, folder / file) for name, file in files.items()],
        commit_message="Upload the metric",
    )
    return str(repo_url)


__all__ = ["find_model_files", "push_folder", "push_metric", "write_model_card"]
