# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""LoTLIP folders for the Hub: model card, upload."""

import hashlib
import json
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, HfApi, ModelCard, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.errors import HfHubHTTPError
from transformers import ProcessorMixin
from transformers.dynamic_module_utils import get_relative_imports
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_SAFE_WEIGHTS_NAME,
    ADAPTER_WEIGHTS_NAME,
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

from .utils.markdown import format_markdown
from .utils.output_folder import delete, move_files, share_weights


logger = logging.getLogger(__name__)

# What sentence-transformers reads: its own modules call the model, and give embeddings of length 1
SENTENCE_TRANSFORMERS_FILES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {
        "modality_config": {
            "text": {"method": "get_text_features", "method_output_name": "pooler_output"},
            "image": {"method": "get_image_features", "method_output_name": "pooler_output"},
        },
        "module_output_name": "sentence_embedding",
        # truncation is left to the tokenizer, which says what it cuts off
        "processing_kwargs": {"text": {"truncation": None}},
    },
}

# Its list of modules; its prompts, and how many dimensions are kept; the folders of its modules
SENTENCE_TRANSFORMERS_MODULES = "modules.json"
SENTENCE_TRANSFORMERS_CONFIG = "config_sentence_transformers.json"
SENTENCE_TRANSFORMERS_ROUTER = "router_config.json"
MODULE_FOLDER = re.compile(r"(text_|image_)?\d+_\w+")

LOTLIP_TAGS = ["lotlip", "vision", "image-text-retrieval", "arxiv:2410.05249"]
OTHER_TAGS = ["vision", "image-text-retrieval", "long-text"]

# What `lotlip interpolate` measured of mixtures, and the picture of it in the card
INTERPOLATION_FILE = "interpolation.json"
INTERPOLATION_CURVE_FILE = "interpolation.png"

# What the Hub reads of results: those of datasets that are there
EVAL_RESULTS_FILE = ".eval_results/lotlip.yaml"

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    TOKENIZER_CONFIG_FILE,
    # what tokenizers have that are not of the tokenizers library
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)

# What is measured of a model, and how sentence-transformers reads it
FILES_ABOUT_MODELS = (
    "eval_results.json",
    INTERPOLATION_FILE,
    INTERPOLATION_CURVE_FILE,
    EVAL_RESULTS_FILE,
    *SENTENCE_TRANSFORMERS_FILES,
    SENTENCE_TRANSFORMERS_CONFIG,
    SENTENCE_TRANSFORMERS_ROUTER,
)

# Weights by the names of transformers, whole or in parts
WEIGHTS_PATTERNS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, "model-?????-of-?????.safetensors")

# Adapters of PEFT, which are loaded on their own base, and refused beside weights of a whole model
ADAPTER_FILES = (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME)

# What belongs to a saved model, in addition to its weights and its code
CARD_FILE = "README.md"
MODEL_FILES = (CARD_FILE, CONFIG_NAME, *PROCESSOR_FILES, *FILES_ABOUT_MODELS)

# The code of this package that is saved with a model
CODE_FILES = tuple(sorted(file.name for file in Path(__file__).parent.glob("*_lotlip.py")))

# Those of modules of sentence-transformers, each in a folder such as `1_Pooling`, or `text_1_Pooling` of a route
MODULE_FILES = tuple(
    f"{route}[0-9]_{module}/*"
    for route in ("", "text_", "image_")
    for module in ("Transformer", "Pooling", "Dense", "Normalize")
)

# Where a model loads its code from
FILES_WITH_AUTO_MAP = (
    CONFIG_NAME,
    "processor_config.json",
    "preprocessor_config.json",
    TOKENIZER_CONFIG_FILE,
)

# The last line of a card that nobody has asked for, with a hash of all before it
AUTOMATIC_CARD = "<!-- written when the model was saved, and anew next time unless it is changed: "
UNKNOWN_PROVENANCE = "Unknown: this card was written when the model was saved. Please add the source here."
UNKNOWN_LICENSE = "The license of the weights is not known: it depends on the data and models they were made from."
# What a card says of a converted checkpoint of the original
OF_THE_ORIGINAL = {
    "provenance": "Converted bit by bit from a checkpoint of the [original code](https://github.com/wuw2019/LoTLIP).",
    "language": "en",
    "license": "cc-by-4.0",
    "license_note": "The weights that the authors of LoTLIP published are under CC BY 4.0; weights that others "
    "trained are under the terms of these.",
}


def write_model_card(  # noqa: PLR0913, the fields of a card
    save_directory: str | Path,
    repo_id: str,
    provenance: str = UNKNOWN_PROVENANCE,
    license: str = "other",
    license_note: str = UNKNOWN_LICENSE,
    base_model: str | list[str] | None = None,
    results: dict[str, float] | None = None,
    dataset: str | None = None,
    dataset_split: str = "test",
    settings: dict[str, object] | None = None,
    language: str | list[str] | None = None,
    biases: str | None = None,
):
    """
    Writes the model card `README.md` of a folder with a saved model and processor.

    Args:
        save_directory (`str` or `Path`):
            The folder.
        repo_id (`str`):
            What users load: the name of the repository (`"org/name"`) or of the folder.
        provenance (`str`, *optional*):
            Where the weights came from, in Markdown; by default that nobody has said so.
        license (`str`, *optional*, defaults to `"other"`):
            The Hub's identifier of the weights' license.
        license_note (`str`, *optional*):
            A sentence that says the same to humans.
        base_model (`str` or `list[str]`, *optional*):
            Hub ids of the models that the weights were made from.
        results (`dict[str, float]`, *optional*):
            Metrics by name, for a table and, of a dataset that is on the Hub, for the Hub's own lists of results,
            in `.eval_results/lotlip.yaml`.
        dataset (`str`, *optional*):
            The dataset that they were measured on. Needed with `results`.
        dataset_split (`str`, *optional*, defaults to `"test"`):
            Its split.
        settings (`dict[str, object]`, *optional*):
            Settings of the training by name, for a table.
        language (`str` or `list[str]`, *optional*):
            The ISO codes of the languages that the captions were in, or `"multilingual"`; `None` if unknown.
        biases (`str`, *optional*):
            What to say of biases, in Markdown; by default what holds for models of photographs from the web.

    Raises:
        `ValueError`: if a result is no number, or nothing says what the results were measured on.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.hub import write_model_card

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> model.save_pretrained("lotlip-tiny")
    >>> write_model_card("lotlip-tiny", "org/lotlip-tiny", provenance="Random weights.")
    ```"""
    save_directory = Path(save_directory)
    check_results(results, dataset)
    config = read_json(save_directory / CONFIG_NAME)
    model_type = config["model_type"]
    # the class of a plugin may have a type of any name
    is_lotlip = model_type.startswith("lotlip") or config["text_config"].get("model_type") == "lotlip_text_model"
    title = repo_id.split("/")[-1]
    data = ModelCardData(
        license=license,
        library_name="transformers",
        language=language,
        base_model=base_model,
        pipeline_tag="zero-shot-image-classification",
        tags=OTHER_TAGS,
    )
    is_sentence_transformer = is_plain_lotlip(config)
    if is_lotlip:
        data.tags = LOTLIP_TAGS
        if is_sentence_transformer:
            data.tags = [*LOTLIP_TAGS, "sentence-transformers"]
    template = Path(__file__).parent / "templates" / "model_card.md"
    card = ModelCard.from_template(
        data,
        template_str=template.read_text(encoding="utf-8"),
        title=title,
        repo_id=repo_id,
        provenance=provenance,
        license_note=license_note,
        is_lotlip=is_lotlip,
        is_sentence_transformer=is_sentence_transformer,
        own_code=find_own_code(config),
        is_siglip=model_type.startswith("siglip"),
        architecture=config["architectures"][0],
        num_corner_tokens=config["text_config"].get("num_corner_tokens"),
        image_size=describe_image_size(config["vision_config"]),
        max_length=read_json(save_directory / TOKENIZER_CONFIG_FILE).get("model_max_length"),
        model_type=model_type,
        language=describe_languages(language),
        biases=biases,
        settings=format_settings(settings or {}),
        results=format_metrics(results or {}),
        dataset=dataset,
        dataset_split=dataset_split,
    )
    card.save(save_directory / CARD_FILE)
    write_eval_results(save_directory, results or {}, dataset, dataset_split)


def find_own_code(config: dict) -> str | None:
    """Finds the file with the code of a model's class, if the class is none of this package or of transformers."""
    reference = config.get("auto_map", {}).get("AutoModel", "")
    name = f"{reference.rpartition('--')[2].partition('.')[0]}.py"
    if reference == "" or name in CODE_FILES:
        return None
    return name


def format_settings(settings: dict[str, object]) -> str:
    """Formats the settings of a training as a table of a model card; nothing if there are none."""
    if not settings:
        return ""
    rows = [[f"`{name}`", value] for name, value in settings.items()]
    return format_markdown(["setting", "value"], rows)


def format_metrics(results: dict[str, float]) -> str:
    """Formats metrics as a table of a model card; nothing if there are none."""
    if not results:
        return ""
    rows = [[f"`{name}`", f"{value:.4g}"] for name, value in results.items()]
    return format_markdown(["metric", "value"], rows)


def read_json(file: Path) -> dict:
    """Reads a file of JSON; one that is not there is empty."""
    if not file.exists():
        return {}
    return json.loads(file.read_text(encoding="utf-8"))


def check_results(results: dict[str, float] | None, dataset: str | None) -> None:
    """Raises a `ValueError` if a result is no number, or nothing says what the results were measured on."""
    if results is None:
        return
    if dataset is None:
        raise ValueError("`results` without `dataset`: name the dataset that they were measured on.")
    for name, value in results.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"`results` has {value!r} as {name!r}: give the metrics only, which are numbers.")


def write_eval_results(
    folder: str | Path,
    results: dict[str, float],
    dataset: str | None,
    dataset_split: str,
) -> None:
    """
    Writes metrics as the Hub reads them, `.eval_results/lotlip.yaml`, if there are some and they are of a dataset on
    the Hub; else deletes the file, whose metrics were of something else. Counts are left out.

    Args:
        folder (`str` or `Path`): The folder of the model.
        results (`dict[str, float]`): Metrics by name.
        dataset (`str`, *optional*):
            The dataset that they were measured on; with a user's name it is on the Hub (`"org/name"`).
        dataset_split (`str`): Its split.
    """
    file = Path(folder, EVAL_RESULTS_FILE)
    if not results or not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        file.unlink(missing_ok=True)
        return
    entries = []
    for name, value in results.items():
        if "num_" not in name:
            notes = f"split {dataset_split}, measured by LoTLIP for Hugging Face"
            entries.append(EvalResultEntry(dataset_id=dataset, task_id=name, value=value, notes=notes))
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")


def describe_image_size(vision_config: dict) -> str:
    """Writes the size of the images of a configuration, such as `224 x 224`."""
    image_size = vision_config.get("image_size", 0)  # SigLIP 2 has none
    if isinstance(image_size, int):
        image_size = [image_size, image_size]
    return " x ".join(str(edge) for edge in image_size)


def describe_languages(language: str | list[str] | None) -> str:
    """Writes the languages of the captions in a row, or nothing."""
    if language is None:
        return ""
    if isinstance(language, str):
        return language
    return ", ".join(language)


def is_plain_lotlip(config: dict) -> bool:
    """
    Returns whether sentence-transformers gives the embeddings of a model, by its configuration: those of a LoTLIP with
    one embedding of a text, and none of a user's class, which may embed otherwise.
    """
    return config["model_type"] in ("lotlip", "lotlip_siglip") and find_own_code(config) is None


def write_for_readers(folder: Path, repo_id: str) -> None:
    """
    Writes what sentence-transformers reads of a dual encoder with one embedding of a text, unless it is there; and a
    model card where there is none, or one that nobody has changed. Lets others read the weights.
    """
    share_weights(folder)
    config = read_json(folder / CONFIG_NAME)
    if "text_config" not in config:  # a tower, or a processor that is uploaded first
        return
    is_plain = is_plain_lotlip(config)
    for name, content in SENTENCE_TRANSFORMERS_FILES.items():
        file = folder / name
        text = json.dumps(content, indent=2) + "\n"
        if is_plain and not file.exists():
            file.write_text(text, encoding="utf-8")
        elif not is_plain and file.exists() and file.read_text(encoding="utf-8") == text:
            file.unlink()  # of an earlier model
    card_file = folder / CARD_FILE
    if card_file.exists() and not is_automatic_card(card_file):
        empty = ModelCard.from_template(ModelCardData(), model_description="Empty.").text
        field = "[More Information Needed]"
        if ModelCard.load(card_file).text.count(field) != empty.count(field):
            return
    write_model_card(folder, repo_id)
    card = card_file.read_text(encoding="utf-8")
    card_file.write_text(f"{card}{AUTOMATIC_CARD}{hash_card(card)} -->\n", encoding="utf-8")


def is_automatic_card(file: Path) -> bool:
    """Returns whether a card is as it was written when a model was saved: another may take its place."""
    card, _, line = file.read_text(encoding="utf-8").partition(AUTOMATIC_CARD)
    return line == f"{hash_card(card)} -->\n"


def hash_card(card: str) -> str:
    """Returns a hash of the text of a card."""
    return hashlib.sha256(card.encode()).hexdigest()


def name_in_card(text: str, repo_id: str) -> str:
    """
    Names a repository in the code of a card, where that loads the model by the name in the card's title: the name of
    the folder that a command wrote it in. An automatic card stays one.
    """
    card, automatic, line = text.partition(AUTOMATIC_CARD)
    title = re.search("^# (.+)$", card, flags=re.MULTILINE)
    if title is None:
        return text
    named = card
    for loading in ('.from_pretrained("{}"', 'SentenceTransformer("{}"', 'model="{}"', "--model {}`"):
        named = named.replace(loading.format(title[1]), loading.format(repo_id))
    if line == f"{hash_card(card)} -->\n":
        line = f"{hash_card(named)} -->\n"
    return f"{named}{automatic}{line}"


def find_model_files(folder: str | Path) -> list[str]:
    """
    Finds the names of the files in a folder that are of a saved model: weights, configurations, card and code, but no
    checkpoints of a training, no logs, and of subfolders the results for the Hub alone, and the modules of
    sentence-transformers.

    Args:
        folder (`str` or `Path`):
            A folder that a model was saved in.

    Raises:
        `ValueError`: if no model was saved there, or adapters of PEFT or graphs alone were.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipTextConfig
    >>> from modeling_lotlip.hub import find_model_files

    >>> LotlipTextConfig().save_pretrained("lotlip-text")
    >>> find_model_files("lotlip-text")
    ['config.json', 'configuration_lotlip.py', 'hub_lotlip.py']
    ```"""
    folder = Path(folder)
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        raise ValueError(
            f"`{folder}` has `{ADAPTER_CONFIG_NAME}`: it is loaded as adapters of PEFT, not as "
            "weights. Save the merged model in another folder, or delete adapters of an earlier "
            "model."
        )
    is_routed = (folder / SENTENCE_TRANSFORMERS_ROUTER).is_file()
    if not (folder / CONFIG_NAME).is_file() and not is_routed:
        raise ValueError(f"`{folder}` has no `{CONFIG_NAME}`: name a folder that a model was saved in.")
    names = {*MODEL_FILES, SAFE_WEIGHTS_NAME}
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if (folder / "onnx").is_dir() and not (folder / SAFE_WEIGHTS_NAME).is_file() and not index.is_file():
        raise ValueError(
            f"`{folder}` has graphs that `lotlip export` wrote, and no weights: name the folder of the "
            "model. Graphs are uploaded by `hf upload`."
        )
    if not (folder / SAFE_WEIGHTS_NAME).is_file() and index.is_file():
        names.add(SAFE_WEIGHTS_INDEX_NAME)
        names.update(read_json(index)["weight_map"].values())
    names |= find_code(folder)
    for module in find_module_folders(folder):
        names.update(file.relative_to(folder).as_posix() for file in module.rglob("*"))
    if is_read_as_lotlip(folder):
        names -= SENTENCE_TRANSFORMERS_FILES.keys()
    return sorted(name for name in names if (folder / name).is_file())


def find_module_folders(folder: Path) -> list[Path]:
    """
    Finds the folders, such as `1_Dense`, of modules that sentence-transformers lists in a folder, and those of the
    routes of its router, such as `text_1_Dense`.
    """
    try:
        modules = read_json(folder / SENTENCE_TRANSFORMERS_MODULES)
        paths = [module["path"] for module in modules]
        paths += read_json(folder / SENTENCE_TRANSFORMERS_ROUTER).get("types", {})
    except (ValueError, LookupError, TypeError):  # no list of modules
        return []
    names = [path for path in paths if isinstance(path, str) and MODULE_FOLDER.fullmatch(path)]
    return [folder / name for name in names if (folder / name).is_dir()]


def is_read_as_lotlip(folder: Path) -> bool:
    """Returns whether sentence-transformers reads another model by what an earlier LoTLIP has left."""
    model_type = read_json(folder / CONFIG_NAME).get("model_type", "")
    if model_type.startswith("lotlip"):
        return False
    modules = SENTENCE_TRANSFORMERS_FILES[SENTENCE_TRANSFORMERS_MODULES]
    return read_json(folder / SENTENCE_TRANSFORMERS_MODULES) == modules


def find_code(folder: Path) -> set[str]:
    """Finds the names of the files of code in a folder that its model and processor load, and import."""
    pending = []
    for name in FILES_WITH_AUTO_MAP:
        for reference in find_code_references(read_json(folder / name)):
            pending.append(f"{reference.split('.')[0]}.py")
    names = set()
    while pending:
        name = pending.pop()
        # one of another repository, "org/name--module.Class", is none of this folder
        if name in names or "/" in name or not (folder / name).is_file():
            continue
        names.add(name)
        pending += [f"{module}.py" for module in get_relative_imports(folder / name)]
    return names


def find_code_references(content: object, is_auto_map: bool = False) -> Iterator[str]:
    """
    Finds the names of classes, "module.Class", in each `auto_map` of a configuration and of its parts. One Auto class
    may have several: those of a tokenizer, or of an image processor by its backends.

    Args:
        content (`object`): The configuration, or a part of it.
        is_auto_map (`bool`, *optional*, defaults to `False`): Whether it is in an `auto_map`.
    """
    if isinstance(content, dict):
        for name, value in content.items():
            yield from find_code_references(value, is_auto_map or name == "auto_map")
    elif isinstance(content, list):
        for value in content:
            yield from find_code_references(value, is_auto_map)
    elif is_auto_map and isinstance(content, str):
        yield content


def save_processor(processor: ProcessorMixin, folder: str | Path) -> None:
    """
    Saves a processor, whose tokenizer forgets to which length it last truncated or padded: it would truncate there
    once it is loaded, and not at the `model_max_length`. Raises an `OSError` if it cannot be saved, also in the
    tokenizers library.
    """
    tokenizer = processor.tokenizer
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    try:
        processor.save_pretrained(folder)
    except Exception as error:
        # what the tokenizers library raises is of this class itself, and can be caught by no narrower one
        if type(error) is not Exception:
            raise
        raise OSError(f"the tokenizer cannot be written: {error}") from error


def find_replaced_file(folder: str | Path) -> str | None:
    """
    Finds a file in a folder that is replaced when a model is saved there: of another model, or a `README.md`.
    Returns its name, None if there is none.
    """
    folder = Path(folder)
    for name in (CONFIG_NAME, SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, *ADAPTER_FILES, *MODEL_FILES):
        if (folder / name).is_file():
            return name
    return None


def delete_earlier_model(folder: str | Path, kept: Collection[str] = ()) -> None:
    """
    Deletes the files of a model in a folder, so that no other one is read by them: weights, adapters, settings,
    card, results, code of this package, modules of sentence-transformers, and nothing else. A warning
    names them.

    Args:
        folder (`str` or `Path`):
            The folder.
        kept (`Collection[str]`, *optional*):
            The names of files that stay, relative to the folder.
    """
    folder = Path(folder)
    files = [folder / name for name in (*ADAPTER_FILES, *MODEL_FILES, *CODE_FILES)]
    for pattern in WEIGHTS_PATTERNS:
        files += folder.glob(pattern)
    links = []
    for module in find_module_folders(folder):
        if module.is_symlink():  # the files that it leads to are elsewhere, and stay
            links.append(module)
        else:
            files += module.rglob("*")
    found = links + [file for file in files if file.is_file()]
    names = [file.relative_to(folder).as_posix() for file in found]
    deleted = [name for name in dict.fromkeys(names) if name not in kept]
    for name in deleted:
        delete(folder / name)
    if deleted:
        names = ", ".join(deleted)
        logger.warning(f"{folder} held files of an earlier model, which are deleted: {names}.")


def replace_model(source: Path, folder: Path, last: str) -> None:
    """
    Moves the files of a model from one folder to another, in place of those of an earlier model there.

    Args:
        source (`Path`): The folder whose files are moved.
        folder (`Path`): Where to.
        last (`str`): The name of the file that is moved last: see [`move_files`].
    """
    new = [file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()]
    delete(folder / last)
    delete_earlier_model(folder, kept=new)
    move_files(source, folder, last)


def list_files_in_the_way(uploaded: list[str]) -> list[str]:
    """
    Lists patterns of the files of an earlier model that an upload deletes where it does not have them: beside new
    weights other ones, adapters, code, and what was measured; beside a new processor what is of another.

    Args:
        uploaded (`list[str]`):
            The names of the files of the upload.
    """
    patterns = []
    if any(name.endswith(".safetensors") for name in uploaded):
        patterns += [*WEIGHTS_PATTERNS, *ADAPTER_FILES, *FILES_ABOUT_MODELS, *CODE_FILES, *MODULE_FILES]
    if any(name in PROCESSOR_FILES for name in uploaded):
        patterns += PROCESSOR_FILES
    return patterns


def push_folder(folder: str | Path, repo_id: str, allow_patterns: list[str] | None = None) -> str:
    """
    Creates the repository `repo_id` on the Hub if there is none yet, and uploads the files of a folder in one commit,
    but for a card whose code loads the model by the name of its folder: it follows in another, and names the
    repository.

    Args:
        folder (`str` or `Path`):
            The folder.
        repo_id (`str`):
            Name of the repository, `"name"` (in the user's own namespace) or `"org/name"`.
        allow_patterns (`list[str]`, *optional*):
            The files to upload. By default those of `find_model_files`, in place of what the repository has of
            an earlier model.

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
    delete_patterns = None
    if allow_patterns is None:
        allow_patterns = find_model_files(folder)
        delete_patterns = list_files_in_the_way(allow_patterns)
    card = ""
    if CARD_FILE in allow_patterns and Path(folder, CARD_FILE).is_file():
        card = Path(folder, CARD_FILE).read_text(encoding="utf-8")
    api = HfApi()
    try:
        repo_url = api.create_repo(repo_id, exist_ok=True)
        named_card = name_in_card(card, repo_url.repo_id)
        if card != named_card:
            allow_patterns = [name for name in allow_patterns if name != CARD_FILE]
        api.upload_folder(
            repo_id=repo_url.repo_id,
            folder_path=folder,
            commit_message="Upload LoTLIP",
            allow_patterns=allow_patterns,
            delete_patterns=delete_patterns,
        )
        if card != named_card:
            api.upload_file(
                path_or_fileobj=named_card.encode(),
                path_in_repo=CARD_FILE,
                repo_id=repo_url.repo_id,
                commit_message="Upload the card",
            )
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise ValueError(
                f"`{folder}` was not uploaded to `{repo_id}`: the Hub asks who you are. Log in "
                "with `hf auth login`, then repeat the upload with `lotlip push`."
            ) from error
        raise
    return str(repo_url)


__all__ = ["find_model_files", "push_folder", "write_model_card"]
