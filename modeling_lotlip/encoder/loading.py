# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Loads the model and the processor of a dual encoder, also of one whose code or adapters come with it."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import torch
from huggingface_hub import (
    _CACHED_NO_EXIST,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    load_torch_model,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RemoteEntryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import (
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
    find_adapter_config_file,
)
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..convert_lotlip_to_hf import CHECKPOINT_NAME
from ..hub import SENTENCE_TRANSFORMERS_CONFIG, SENTENCE_TRANSFORMERS_MODULES
from ..hub_lotlip import find_pretrained
from ..utils.terminal import without_stop


logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
# By one of which a whole model is known, beside its configuration
WHOLE_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
# What code that comes with a model raises, beside what is wrong with its files
CODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    SyntaxError,
    SystemExit,
    TypeError,
)
# What a saved processor has: a file of its own, or those of its parts
PROCESSOR_FILE = "processor_config.json"
PROCESSOR_PARTS = ("preprocessor_config.json", TOKENIZER_CONFIG_FILE)
# Tensors that code of before made anew, and weights may still have
REBUILT_TENSORS = ("position_ids", "token_type_ids")
# Tensors of adapters that all layers have in common, which PEFT lists for each of them
SHARED_ADAPTER_TENSORS = ("vblora_vector_bank", ".tinylora_v.", ".unilora_theta_d.")
# How the first module of sentence-transformers reads texts and images
SENTENCE_TRANSFORMERS_READING = "sentence_bert_config.json"
# What it may be told of texts and changes no embedding here: texts are always padded as a model was trained, truncated
PLAIN_TEXT_OPTIONS = ("padding", "truncation")
# Its modules that add nothing to what a dual encoder of transformers computes
PLAIN_MODULES = ("CLIPModel", "Normalize", "Transformer")
# By one of which a folder of a model is known
MODEL_FILES = (CONFIG_NAME, ADAPTER_CONFIG_NAME, SENTENCE_TRANSFORMERS_MODULES, CHECKPOINT_NAME)
# Files by which a model embeds otherwise, and what is in them: of sentence-transformers, and beside adapters
OF_SENTENCE_TRANSFORMERS = "how sentence-transformers embeds with it (a prompt, a limit, dimensions, modules)"
OF_PROCESSORS = "how its adapters read texts and images, other than their base"
MEANING_OF_DECIDING_FILES = {
    SENTENCE_TRANSFORMERS_MODULES: OF_SENTENCE_TRANSFORMERS,
    SENTENCE_TRANSFORMERS_CONFIG: OF_SENTENCE_TRANSFORMERS,
    SENTENCE_TRANSFORMERS_READING: OF_SENTENCE_TRANSFORMERS,
    **dict.fromkeys((PROCESSOR_FILE, *PROCESSOR_PARTS), OF_PROCESSORS),
}
GIT_ATTRIBUTES_FILE = ".gitattributes"
# Answers of the Hub to too many requests, and of one that has failed, which may be others later
FAILURES_OF_THE_HUB = (429, 500, 502, 503, 504)
# Where tokens were added to a model before adapters were trained
REMEDY_FOR_ROWS = (
    "If tokens were added, save the model with the adapters merged into it (`merge_and_unload`), or its base after "
    "`resize_token_embeddings` in a folder, which adapters then name."
)
LOADING_ERRORS = (OSError, ValueError, SafetensorError)


def load_model(
    name: str | PathLike,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    Loads a dual encoder of transformers and its processor.

    Args:
        name (`str` or `PathLike`):
            A Hub id or a folder, also in the original's layout (`model.pt`), or of adapters of PEFT.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            The precision of its weights.
        revision (`str`, *optional*):
            A branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether to run the code that comes with the model.

    Raises:
        `ValueError`: if it is no dual encoder, or cannot be loaded.
        `ImportError`: if adapters are named and PEFT is not installed.
    """
    model = load_weights(name, dtype, revision, trust_remote_code)
    if not is_dual_encoder(type(model)):
        raise ValueError(f"it is a {type(model).__name__}, no dual encoder. Name one of images and texts.")
    processor = load_processor(name, revision, trust_remote_code)
    is_adapted = find_adapter_config_file(name, revision=revision) is not None
    if is_adapted and has_processor(name, revision):
        check_tokens_have_rows(model, processor)
    return model, processor


def load_weights(
    name: str | PathLike, dtype: torch.dtype, revision: str | None, trust_remote_code: bool
) -> PreTrainedModel:
    """
    Loads a model, perhaps with adapters of PEFT merged into its weights: see [`load_model`].

    Args:
        name (`str` or `PathLike`): A Hub id or a folder.
        dtype (`torch.dtype`): The precision of its weights.
        revision (`str`, *optional*): A branch, tag or commit on the Hub.
        trust_remote_code (`bool`): Whether to run the code that comes with the model.
    """
    if find_adapter_config_file(name, revision=revision) is not None:
        return load_with_adapters(name, dtype, revision, trust_remote_code)
    path, options = find_loaded(name, revision)
    if trust_remote_code:
        with naming_code_errors():
            return load_with_code(path, dtype, options)
    return load_whole(path, dtype, options)


def load_processor(name: str | PathLike, revision: str | None, trust_remote_code: bool) -> ProcessorMixin:
    """Loads the processor of a model: beside adapters without one, that of their base. See [`load_model`]."""
    is_adapted = find_adapter_config_file(name, revision=revision) is not None
    if is_adapted and not has_processor(name, revision):
        base, base_revision = find_base(name, revision)
        return load_processor(base, base_revision, trust_remote_code)
    path, options = find_loaded(name, revision)
    if not trust_remote_code:
        return AutoProcessor.from_pretrained(path, **options)
    options["trust_remote_code"] = True
    with naming_code_errors():
        processor = AutoProcessor.from_pretrained(path, **options)
        if isinstance(processor, ProcessorMixin):
            return processor
        image_processor = AutoImageProcessor.from_pretrained(path, **options)
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        return PairProcessor(image_processor, tokenizer)


def find_loaded(name: str | PathLike, revision: str | None) -> tuple[str | PathLike, dict[str, str]]:
    """Finds what the Auto classes load in place of a name, and the revision as their option, if there is one."""
    options = {} if revision is None else {"revision": revision}
    path = find_pretrained(name, **options)
    if path != name:
        return path, {}  # it was converted from that revision
    return path, options


def load_whole(path: str | PathLike, dtype: torch.dtype, options: dict[str, str]) -> PreTrainedModel:
    """
    Loads a model of which no weights are missing: the library would initialize them at random, with a report. It
    warns of weights that the model does not use.

    Args:
        path (`str` or `PathLike`): A Hub id or a folder.
        dtype (`torch.dtype`): The precision of its weights.
        options (`dict[str, str]`): The revision, if one is named.
    """
    # those of another shape are named below, by an error of one line
    how = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = AutoModel.from_pretrained(path, dtype=dtype, **how, **options)
    for name, shape, expected_shape in sorted(report["mismatched_keys"]):
        raise ValueError(
            f"`{name}` is of shape {tuple(shape)} in its weights, and of {tuple(expected_shape)} by "
            "its config.json: name a folder whose files belong together."
        )
    check_none_is_missing(report["missing_keys"], model)
    warn_of_unused(report["unexpected_keys"], model, path)
    return model


def check_none_is_missing(names: Iterable[str], model: PreTrainedModel) -> None:
    """Raises a `ValueError` if there are names of tensors that the weights of a model lack."""
    missing = sorted(names)
    if missing:
        raise ValueError(f"the weights lack {len(missing)} tensors of {type(model).__name__}, `{missing[0]}` first.")


def warn_of_unused(names: Iterable[str], model: PreTrainedModel, path: str | PathLike) -> None:
    """Warns of the names of tensors in the weights at `path` that a model does not use."""
    of_parts = []
    others = []
    for name in sorted(names):
        if name.endswith(REBUILT_TENSORS):
            continue
        if is_of_a_part(name, model):
            of_parts.append(name)
        else:
            others.append(name)
    if of_parts:
        logger.warning(
            f"{len(of_parts)} tensors of {path} are not used by {type(model).__name__}, `{of_parts[0]}` "
            "first: if its config.json is not that of these weights, it embeds otherwise than it "
            "was trained to."
        )
    if others:
        logger.warning(
            f"{len(others)} tensors of {path} are of no part of {type(model).__name__}, `{others[0]}` "
            "first: if they are heads for another task, its embeddings do not need them."
        )


def is_of_a_part(name: str, model: PreTrainedModel) -> bool:
    """Returns whether a tensor is, by its name, of a tower or a projection of a model, also of one that is None."""
    if name.startswith(f"{model.base_model_prefix}."):  # as a model with heads names its towers
        return True
    return hasattr(model, name.split(".")[0])


@contextmanager
def naming_code_errors() -> Iterator[None]:
    """Makes the errors of code that comes with a model a `ValueError`, also an end of the program."""
    try:
        yield
    except CODE_ERRORS as error:
        raise ValueError(
            f"the code that comes with it fails: {type(error).__name__}: {without_stop(error)}."
        ) from error


def is_dual_encoder(model_class: type) -> bool:
    """Returns whether a class of models embeds both texts and images."""
    return hasattr(model_class, "get_text_features") and hasattr(model_class, "get_image_features")


def load_with_adapters(
    path: str | PathLike, dtype: torch.dtype, revision: str | None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """
    Loads a model with adapters of PEFT merged into its weights. Its base may have adapters of its own.

    Args:
        path (`str` or `PathLike`): The name of the adapters.
        dtype (`torch.dtype`): The precision of the weights.
        revision (`str`, *optional*): The revision of the adapters.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run its code.
    """
    base, base_revision = find_base(path, revision)
    check_is_one_model(base, base_revision)
    check_base_is_plain(base, base_revision, trust_remote_code)
    base_model = load_weights(base, dtype, base_revision, trust_remote_code)
    from peft import PeftModel

    options = {} if revision is None else {"revision": revision}
    with naming_adapter_errors(type(base_model).__name__):
        adapted = PeftModel.from_pretrained(base_model, path, **options)
    # once more, since this says what the first time does not
    loaded = adapted.load_adapter(path, adapted.active_adapter, **options)
    check_adapters_fit(loaded.missing_keys, loaded.unexpected_keys, base_model)
    model = adapted.merge_and_unload()
    model.requires_grad_()  # PEFT has frozen it, and it may be trained further
    # adapters that are trained on it name it as their base
    model.name_or_path = str(path)
    model.config.name_or_path = str(path)
    return model


def check_base_is_plain(base: str | PathLike, revision: str | None, trust_remote_code: bool) -> None:
    """Raises a `ValueError` if sentence-transformers saved with a base what would be lost behind adapters."""
    if is_sentence_transformer(base, revision, trust_remote_code):
        raise ValueError(
            f"{base}, which the adapters were trained on, has modules, or reads texts or images by a default prompt, "
            "a limit, in lower case or by `processing_kwargs`, that sentence-transformers saved with it, and that "
            "would be lost: name a copy of it "
            f"without `{SENTENCE_TRANSFORMERS_MODULES}` in `{ADAPTER_CONFIG_NAME}` as `base_model_name_or_path`."
        )


@contextmanager
def naming_adapter_errors(model_name: str) -> Iterator[None]:
    """Makes the errors of PEFT for tensors of adapters that are not as the model has them a `ValueError`."""
    try:
        yield
    except KeyError as error:
        if not str(error).startswith("'base_model."):  # no name of a tensor
            raise
        raise ValueError(
            f"the adapters lack {error}, a tensor of what `modules_to_save` of `{ADAPTER_CONFIG_NAME}` names: name "
            "single layers there, such as `word_embeddings`, before the training, or save the trained model with the "
            "adapters merged into it (`merge_and_unload`)."
        ) from error
    except RuntimeError as error:
        beginning, _, reason = str(error).partition("\n")
        if not beginning.startswith("Error(s) in loading state_dict"):  # as of memory
            raise
        raise ValueError(
            f"the adapters do not fit {model_name}: {without_stop(reason.strip().splitlines()[0])}. {REMEDY_FOR_ROWS}"
        ) from error


def check_tokens_have_rows(model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Raises a `ValueError` if a tokenizer beside adapters has tokens that the base has no embeddings of."""
    num_words = len(processor.tokenizer)
    num_rows = getattr(model.config.get_text_config(), "vocab_size", None)
    if num_rows is not None and num_words > num_rows:
        raise ValueError(
            f"the tokenizer beside the adapters has {num_words} tokens, and their base embeddings of {num_rows}. "
            f"{REMEDY_FOR_ROWS}"
        )


def find_base(path: str | PathLike, revision: str | None) -> tuple[str, str | None]:
    """
    Finds the name and the revision, if there is one, of the model that adapters of PEFT were trained on.

    Raises:
        `ValueError`: if they name none, or themselves.
        `ImportError`: if PEFT is not installed.
    """
    if find_spec("peft") is None:
        raise ImportError(f'{path} has adapters of PEFT, which is not installed: `pip install "lotlip[peft]"`.')
    from peft import PeftConfig

    options = {} if revision is None else {"revision": revision}
    adapters = PeftConfig.from_pretrained(path, **options)
    base = adapters.base_model_name_or_path
    if base is None:
        raise ValueError(
            f"the adapters of {path} do not say what they were trained on: name that in `{ADAPTER_CONFIG_NAME}` "
            "as `base_model_name_or_path`."
        )
    if Path(base).resolve() == Path(path).resolve() and adapters.revision == revision:
        raise ValueError(
            f"the adapters of {path} name themselves as the model that they were trained on: name that in "
            f"`{ADAPTER_CONFIG_NAME}` as `base_model_name_or_path`."
        )
    if not Path(base).exists():
        try:
            validate_repo_id(base)
        except HFValidationError as error:
            raise ValueError(
                f"the adapters of {path} were trained on {base}, which is not there any more: name its folder in "
                f"`{ADAPTER_CONFIG_NAME}` as `base_model_name_or_path`."
            ) from error
    return base, adapters.revision


def check_is_one_model(name: str | PathLike, revision: str | None) -> None:
    """Raises a `ValueError` if there are adapters of PEFT beside a whole model: either may have been saved last."""
    if find_adapter_config_file(name, revision=revision) is None:
        return
    weights = (CHECKPOINT_NAME,)
    if find_file(name, CONFIG_NAME, revision) is not None:
        weights = WHOLE_WEIGHTS
    for filename in weights:
        if find_file(name, filename, revision) is not None:
            raise ValueError(
                f"{name} has both adapters of PEFT (`{ADAPTER_CONFIG_NAME}`) and a whole model (`{filename}`): "
                "move the files of one of them to a folder of its own."
            )


def check_adapters_fit(missing: Iterable[str], unused: Iterable[str], model: PreTrainedModel) -> None:
    """
    Raises a `ValueError` if adapters are of another model, or of a part of it.

    Args:
        missing (`Iterable[str]`): The tensors that the adapters lack, by PEFT's names.
        unused (`Iterable[str]`): Those of the adapters that are none of the model.
        model (`PreTrainedModel`): The base.
    """
    model_name = type(model).__name__
    unused = sorted(unused)
    if unused:
        raise ValueError(
            f"{len(unused)} tensors of the adapters are none of {model_name}, `{unused[0]}` first: "
            "they were trained on another model, or on a tower alone. Name adapters of the whole "
            "model."
        )
    lacking = []
    for name in sorted(missing):
        if not any(shared in name for shared in SHARED_ADAPTER_TENSORS):
            lacking.append(name)
    if lacking:
        raise ValueError(
            f"the adapters lack {len(lacking)} tensors of {model_name}, `{lacking[0]}` first: name in "
            f"`target_modules` of `{ADAPTER_CONFIG_NAME}` those modules alone that were trained."
        )


def check_no_adapters(path: str | PathLike) -> None:
    """Raises a `ValueError` for adapters of PEFT, whose layers lie around those of a model."""
    if find_adapter_config_file(path) is not None:
        raise ValueError(
            "it has adapters of PEFT: save their model with the adapters merged into it "
            "(`merge_and_unload`) in another folder, and name that."
        )


def has_processor(path: str | PathLike, revision: str | None) -> bool:
    """Returns whether a whole processor is there: a tokenizer alone, as trainers save it, is none."""
    if find_file(path, PROCESSOR_FILE, revision) is not None:
        return True
    return all(find_file(path, name, revision) is not None for name in PROCESSOR_PARTS)


class PairProcessor(ProcessorMixin):
    """A tokenizer and an image processor of a model that comes without a processor of both."""

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)


def load_with_code(name: str | PathLike, dtype: torch.dtype, options: dict[str, str]) -> PreTrainedModel:
    """Loads a model by the code that comes with it (FG-CLIP 2, jina-clip-v2)."""
    options = {**options, "trust_remote_code": True}
    config = AutoConfig.from_pretrained(name, **options)
    # FG-CLIP offers itself as a causal language model only
    auto_map = getattr(config, "auto_map", None) or {}
    is_causal_only = "AutoModelForCausalLM" in auto_map and "AutoModel" not in auto_map
    auto_class = AutoModelForCausalLM if is_causal_only else AutoModel
    has_code = type(config).__module__.startswith("transformers_modules.")
    folder = Path(name)
    if has_code and not folder.is_dir():
        folder = Path(snapshot_download(name, revision=options.get("revision"), allow_patterns=WEIGHTS))
    if has_code and any(list(folder.glob(pattern)) for pattern in WEIGHTS):
        # Not by `from_pretrained`: code from before transformers 5 initializes loaded weights anew, and its tensors
        # that are no parameters stay empty
        model = auto_class.from_config(config, dtype=dtype, **options)
        loaded = load_torch_model(model, folder)
        check_none_is_missing(loaded.missing_keys, model)
        warn_of_unused(loaded.unexpected_keys, model, name)
        return model
    if has_code:
        return auto_class.from_pretrained(name, dtype=dtype, **options)
    return load_whole(name, dtype, options)


def is_sentence_transformer(
    name: str | PathLike, revision: str | None = None, trust_remote_code: bool = False
) -> bool:
    """
    Returns whether a name is of a model that the sentence-transformers library alone can load: it has the library's
    list of modules, and transformers knows it as no dual encoder, or there are modules after the dual encoder, or the
    library reads texts or images otherwise than transformers.

    Args:
        name (`str` or `PathLike`):
            A Hub id or a folder.
        revision (`str`, *optional*):
            A branch, tag or commit on the Hub.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the model may be run, and so loads it instead.
    """
    options = {} if revision is None else {"revision": revision}
    if find_pretrained(name, **options) != name:
        return False  # it is a LoTLIP in the original's layout
    config_file = find_file(name, CONFIG_NAME, revision)
    config = {} if config_file is None else json.loads(config_file.read_text(encoding="utf-8"))
    model_type = config.get("model_type")
    modules_file = find_file(name, SENTENCE_TRANSFORMERS_MODULES, revision)
    if modules_file is None:
        return False
    if model_type in CONFIG_MAPPING and is_dual_encoder_config(CONFIG_MAPPING[model_type]):
        modules = json.loads(modules_file.read_text(encoding="utf-8"))
        are_plain = all(is_plain_module(module.get("type", "")) for module in modules)
        return not are_plain or is_read_otherwise(name, revision)
    return not (trust_remote_code and "auto_map" in config)


def is_plain_module(name: str) -> bool:
    """Returns whether a type in a list of modules is the library's, and adds nothing to a dual encoder."""
    # others may give a module of their own the name of one of the library
    return name.startswith("sentence_transformers.") and name.split(".")[-1] in PLAIN_MODULES


def read_config_file(name: str | PathLike, filename: str, revision: str | None = None) -> dict:
    """Reads a JSON file of a folder or a repository on the Hub, empty if it is not there."""
    file = find_file(name, filename, revision)
    if file is None:
        return {}
    return json.loads(file.read_text(encoding="utf-8"))


def is_read_otherwise(name: str | PathLike, revision: str | None = None) -> bool:
    """Returns whether sentence-transformers has saved with a dual encoder how its texts or images are read."""
    config = read_config_file(name, SENTENCE_TRANSFORMERS_CONFIG, revision)
    if (config.get("prompts") or {}).get(config.get("default_prompt_name")):
        return True
    reading = read_config_file(name, SENTENCE_TRANSFORMERS_READING, revision)
    if reading.get("max_seq_length") is not None or reading.get("do_lower_case"):
        return True
    options = dict(reading.get("processing_kwargs") or {})
    options.pop("chat_template", None)  # of chats alone
    of_texts = drop_nulls(options.pop("text", None) or {})
    for option in PLAIN_TEXT_OPTIONS:
        of_texts.pop(option, None)
    limit = of_texts.get("max_length")
    # as models are told that were trained on padded texts
    if limit is not None and limit == read_config_file(name, TOKENIZER_CONFIG_FILE, revision).get("model_max_length"):
        del of_texts["max_length"]
    return bool(of_texts) or any(drop_nulls(of_part or {}) for of_part in options.values())


def drop_nulls(options: dict) -> dict:
    """Returns the options that are set to something."""
    return {name: value for name, value in options.items() if value is not None}


def check_is_read_alike(name: str | PathLike) -> None:
    """
    Raises a `ValueError` if sentence-transformers saved with a model how texts or images are read, or modules after
    it: other forms lose them.
    """
    if is_read_otherwise(name):
        raise ValueError(
            f"{name} reads texts or images by a default prompt, a limit, in lower case or by `processing_kwargs` that "
            f"sentence-transformers saved in {SENTENCE_TRANSFORMERS_CONFIG} or {SENTENCE_TRANSFORMERS_READING}, and "
            "that would be lost: take it out of a copy of the folder."
        )
    if is_sentence_transformer(name):
        raise ValueError(
            f"{name} has modules of sentence-transformers beside a dual encoder in {SENTENCE_TRANSFORMERS_MODULES}, "
            "which would be lost: take them out of a copy of the folder."
        )


def find_saved_truncate_dim(name: str | PathLike, revision: str | None = None) -> int | None:
    """
    Finds how many dimensions of embeddings are kept where sentence-transformers has saved that with a model, or with
    the one that adapters were trained on.
    """
    if find_file(name, SENTENCE_TRANSFORMERS_MODULES, revision) is None:
        if find_file(name, ADAPTER_CONFIG_NAME, revision) is None:
            return None
        base, base_revision = find_base(name, revision)
        return find_saved_truncate_dim(base, base_revision)
    return read_config_file(name, SENTENCE_TRANSFORMERS_CONFIG, revision).get("truncate_dim")


def is_dual_encoder_config(config_class: type) -> bool:
    """Returns whether a class of configurations is of a model that embeds both texts and images."""
    if config_class not in MODEL_MAPPING:
        return False
    model_class = MODEL_MAPPING[config_class]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    return is_dual_encoder(model_class)


def check_model_is_there(name: str) -> None:
    """
    Raises an `OSError` or a `ValueError` if there is no folder or repository of a name, or it holds no model. Only a
    configuration is downloaded.
    """
    if not Path(name).is_dir():
        config_file = cached_file(name, CONFIG_NAME, _raise_exceptions_for_missing_entries=False)
        if config_file is None and constants.HF_HUB_OFFLINE and not is_in_cache(name):
            cached_file(name, CONFIG_NAME)  # says that it is not there
        return
    if any(Path(name, file).is_file() for file in MODEL_FILES):
        return
    find_pretrained(name)  # says so of a checkpoint of a training
    raise ValueError(f"it holds none of {', '.join(MODEL_FILES)}: name the folder of a model.")


def is_in_cache(name: str) -> bool:
    """Returns whether a file of a model is in the Hub's cache."""
    options = {"local_files_only": True, "_raise_exceptions_for_missing_entries": False}
    return any(cached_file(name, file, **options) is not None for file in MODEL_FILES)


def find_file(name: str | PathLike, filename: str, revision: str | None = None) -> Path | None:
    """
    Returns a file of a folder or a repository on the Hub, `None` if it is not there. Where one that decides on
    embeddings cannot be looked for, it says so.

    Raises:
        `ValueError`: if such a file is not in the cache, and the Hub answers that it is too busy or fails.
    """
    if Path(name).is_dir():
        file = Path(name, filename)
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(str(name), filename, revision=revision))
    except (RemoteEntryNotFoundError, HFValidationError):
        return None
    except OSError as error:
        # what is wrong with the name is said where the model is loaded
        if filename in MEANING_OF_DECIDING_FILES and not is_known_to_be_absent(str(name), filename, revision):
            say_not_looked_for(str(name), filename, revision, error)
        return None


def is_known_to_be_absent(name: str, filename: str, revision: str | None) -> bool:
    """Returns whether the Hub's cache knows, without the Hub, that a repository has no file of a name."""
    if try_to_load_from_cache(name, filename, revision=revision) is _CACHED_NO_EXIST:
        return True  # it was looked for before
    try:
        return filename not in [file.path for file in get_cached_repo_tree(name, revision=revision)]
    except CachedRepoTreeNotFoundError:
        # older versions cached no list of the files when they downloaded all of them, of which there is this one alone
        return isinstance(try_to_load_from_cache(name, GIT_ATTRIBUTES_FILE, revision=revision), str)


def say_not_looked_for(name: str, filename: str, revision: str | None, error: OSError) -> None:
    """
    Raises a `ValueError` if a file could not be looked for since the Hub fails, or else warns of it.

    Args:
        name (`str`): The model, which is warned of only if some of it is in the cache.
        filename (`str`): The name of the file, one of `MEANING_OF_DECIDING_FILES`.
        revision (`str`, *optional*): The revision of the model.
        error (`OSError`): What was raised instead of the file.
    """
    meaning = MEANING_OF_DECIDING_FILES[filename]
    answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
    if isinstance(answer, HfHubHTTPError) and answer.response.status_code in FAILURES_OF_THE_HUB:
        raise ValueError(
            f"its {filename} could not be looked for, and may say {meaning}: the Hub answers "
            f"{answer.response.status_code}. Try again later, or set `HF_HUB_OFFLINE=1` to do without it."
        ) from error
    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in MODEL_FILES):
        warn_once(f"{name} may have files that say {meaning}, and they are not in the cache: load it online once.")


@cache
def warn_once(message: str) -> None:
    """Warns of what is found out several times."""
    logger.warning(message)


def find_commit(name: str | PathLike, revision: str | None = None) -> str | None:
    """
    Finds the commit that a model on the Hub is loaded from, by where the cache has its files: the configuration that
    transformers makes does not say it. `None` of a folder, or where nothing can be reached.
    """
    if Path(name).is_dir():
        return None
    for filename in MODEL_FILES:
        file = find_file(name, filename, revision)
        if file is not None:
            return file.parent.name
    return None


def check_device(device: str | None) -> None:
    """Raises a `ValueError` if PyTorch has no device of that name."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # the former where PyTorch was built without it
        message = str(error).splitlines()[0]
        raise ValueError(
            f"`--device {device}` cannot be used: {without_stop(message)}. Leave it out for what "
            "there is, or name `cpu`."
        ) from error
