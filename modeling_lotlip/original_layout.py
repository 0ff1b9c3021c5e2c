# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints in the layout that the original is published in, a repository or a folder with `model.pt` and perhaps
`open_clip_config.json`: found, and converted once into the Hub's cache. Beside them there may be the `config.json` and
the weights that transformers' own LoTLIP reads.
"""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

from huggingface_hub import _CACHED_NO_EXIST, constants, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, validate_repo_id
from safetensors import SafetensorError
from transformers.utils import CONFIG_NAME, cached_file, logging

from .convert_lotlip_to_hf import convert_checkpoint


logger = logging.get_logger(__name__)

CHECKPOINT_NAME = "model.pt"
OPEN_CLIP_CONFIG_NAME = "open_clip_config.json"

# One more when a conversion gives other files than before: what lies in the cache is then not used any more
FORMAT = 1


def find_original(
    name_or_path: str | os.PathLike,
    cache_dir: str | os.PathLike | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
) -> tuple[Path, Path | None] | None:
    """
    The checkpoint of a repository or a folder in the original's layout, and its `open_clip_config.json` if there is
    one. What is on the Hub is downloaded to its cache.

    Args:
        name_or_path (`str` or `PathLike`):
            A Hub id or a folder. The other arguments are those of `from_pretrained`.

    Returns:
        The two files; `None` if this is no such repository or folder, or (offline) it is not in the cache.

    Raises:
        `OSError`: if the Hub has no such repository or cannot be reached.

    Example:

    ```python
    >>> from modeling_lotlip.original_layout import find_original

    >>> checkpoint, config = find_original("weiwu-ww/LoTLIP-ViT-B-16-100M")  # doctest: +SKIP
    ```"""
    if os.path.isdir(name_or_path):
        checkpoint, config = Path(name_or_path, CHECKPOINT_NAME), Path(name_or_path, OPEN_CLIP_CONFIG_NAME)
        if not checkpoint.is_file() or _is_ours(Path(name_or_path, CONFIG_NAME)):
            return None
        return checkpoint, config if config.is_file() else None
    name = str(name_or_path)
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None

    def find_cached(file: str, commit: str | None = revision):
        return try_to_load_from_cache(name, file, cache_dir=cache_dir, revision=commit)

    checkpoint = find_cached(CHECKPOINT_NAME)
    if _is_ours(find_cached(CONFIG_NAME)):
        return None  # without asking the Hub
    if local_files_only or is_offline_mode():
        config = find_cached(OPEN_CLIP_CONFIG_NAME)
        if not isinstance(checkpoint, str):
            return None
        return Path(checkpoint), Path(config) if isinstance(config, str) else None

    options = {"cache_dir": cache_dir, "token": token}
    if not isinstance(checkpoint, str):
        try:
            if _is_ours(cached_file(name, CONFIG_NAME, revision=revision, **options)):
                return None
        except OSError:
            if not _repository_folder(name, cache_dir).is_dir():
                raise
            return None  # another file of it may be all that is asked for
    options["force_download"] = force_download
    checkpoint = cached_file(
        name, CHECKPOINT_NAME, revision=revision, _raise_exceptions_for_missing_entries=False, **options
    )
    if checkpoint is None:
        return None
    commit = Path(checkpoint).parent.name
    try:
        config = cached_file(name, OPEN_CLIP_CONFIG_NAME, revision=commit, **options)
    except OSError:
        # without its configuration a checkpoint might be converted wrongly
        if find_cached(OPEN_CLIP_CONFIG_NAME, commit) is not _CACHED_NO_EXIST:
            raise
        config = None
    return Path(checkpoint), None if config is None else Path(config)


def _is_ours(config_file: object) -> bool:
    """
    Whether this is the `config.json` of a model in our layout, or of another model: any but one that transformers' own
    LoTLIP reads, which names no code, and has weights with the original's names beside it.
    """
    if not isinstance(config_file, (str, Path)) or not os.path.isfile(config_file):
        return False
    try:
        config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    except ValueError:  # which transformers tells better
        return True
    return not isinstance(config, dict) or config.get("model_type") != "lotlip" or "auto_map" in config


def find_pretrained(
    name_or_path: str | os.PathLike | None,
    cache_dir: str | os.PathLike | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str | os.PathLike | None:
    """
    The folder that a checkpoint in the original's layout is converted to, as
    [`modeling_lotlip.loading_lotlip.find_pretrained`] says.

    Example:

    ```python
    >>> from modeling_lotlip.original_layout import find_pretrained

    >>> folder = find_pretrained("weiwu-ww/LoTLIP-ViT-B-16-100M")  # doctest: +SKIP
    ```"""
    if name_or_path is None:
        return None
    options = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    original = find_original(name_or_path, force_download=force_download, revision=revision, **options)
    if original is None:
        return name_or_path

    checkpoint, config = original
    if os.path.isdir(name_or_path):
        name = Path(name_or_path).resolve().name
        base = _repository_folder(f"converted/{name}", cache_dir)
        # a file by this name may become another one
        stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in original if file]
        key = sha256(repr((FORMAT, stamps)).encode()).hexdigest()
    else:
        name = str(name_or_path).split("/")[-1]
        base = _repository_folder(name_or_path, cache_dir) / "converted" / f"v{FORMAT}"
        key = checkpoint.parent.name  # the commit
    # the layout of the Hub's cache, whose tools look for `snapshots`
    folder = base / "snapshots" / key
    if folder.is_dir() and not force_download:
        return str(folder)
    try:
        _convert_whole(folder, checkpoint, config, name, again=force_download, **options)
    except ValueError as error:
        raise ValueError(f"`{name_or_path}` is in the original's layout and cannot be converted: {error}") from error
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"`{name_or_path}` is in the original's layout and cannot be converted to a folder in `{base}`: {error}. "
            "Where there is no room name another cache, by `HF_HUB_CACHE` or `cache_dir`."
        ) from error
    return str(folder)


def _convert_whole(folder: Path, checkpoint: Path, config: Path | None, name: str, again: bool, **hub_options):
    """Converts to a folder that is there whole or not at all, in one process of those that want it."""
    base = folder.parents[1]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(base / ".lock"):
        if folder.is_dir() and not again:
            return
        logger.warning(f"`{name}` is in the original's layout: converting it, once, to `{folder}`.")
        incomplete = base / "incomplete"
        if incomplete.exists():  # of a process that was killed
            shutil.rmtree(incomplete)
        try:
            convert_checkpoint(checkpoint, incomplete / name, config, repo_id=name, **hub_options)
            if folder.is_dir():
                folder.rename(incomplete / "former")
            (incomplete / name).rename(folder)
        finally:
            shutil.rmtree(incomplete, ignore_errors=True)


def _repository_folder(name: str | os.PathLike, cache_dir: str | os.PathLike | None) -> Path:
    """Where the Hub's cache has a repository."""
    return Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=str(name), repo_type="model")


__all__ = ["find_original", "find_pretrained"]
