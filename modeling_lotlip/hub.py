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
"""LoTLIP folders for the Hub: model, processor, remote code, model card, upload."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME

from .modeling_lotlip import LotlipModel
from .processing_lotlip import LotlipProcessor


MODEL_CARD_NAME = "README.md"
MODEL_CARD_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"

# What belongs to a saved model, beside its code
MODEL_FILES = (MODEL_CARD_NAME, "*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer.json")
MODEL_FILES += ("eval_results.json",)

AUTO_MAP = {
    "AutoConfig": "configuration_lotlip.LotlipConfig",
    "AutoProcessor": "processing_lotlip.LotlipProcessor",
}
AUTO_MODELS = ("AutoModel", "AutoModelForZeroShotImageClassification")
TEXT_AUTO_MAP = {
    "AutoConfig": "configuration_lotlip.LotlipTextConfig",
    "AutoModel": "modeling_lotlip.LotlipTextModel",
}
VISION_AUTO_MAP = {
    "AutoConfig": "configuration_lotlip.LotlipVisionConfig",
    "AutoModel": "modeling_lotlip.LotlipVisionModel",
}
PROCESSOR_AUTO_MAP = {"AutoProcessor": "processing_lotlip.LotlipProcessor"}
IMAGE_PROCESSOR_AUTO_MAP = PROCESSOR_AUTO_MAP | {
    "AutoImageProcessor": {
        "torchvision": "image_processing_lotlip.LotlipImageProcessor",
        "pil": "image_processing_pil_lotlip.LotlipImageProcessorPil",
    },
}
TOKENIZER_AUTO_MAP = PROCESSOR_AUTO_MAP | {"AutoTokenizer": ["tokenization_lotlip.LotlipTokenizer", None]}

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


def save_with_remote_code(model: LotlipModel, processor: LotlipProcessor, save_directory: str | Path):
    """
    Saves a model and its processor so that the folder, or a Hub repository with its files, loads in the Auto classes,
    in `pipeline` and in `SentenceTransformer`, by the installed package or with `trust_remote_code=True` without it. A
    model that compares tokens has no single embedding, and is none for `SentenceTransformer`.

    Args:
        model ([`LotlipModel`]):
            The model. It keeps the dtypes of its weights.
        processor ([`LotlipProcessor`]):
            Its processor.
        save_directory (`str` or `Path`):
            The folder; created if it does not exist, other files in it are left alone.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipConfig, LotlipImageProcessor, LotlipModel, LotlipProcessor, LotlipTokenizer
    >>> from modeling_lotlip.hub import save_with_remote_code

    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=LotlipTokenizer())
    >>> save_with_remote_code(model, processor, "lotlip-tiny")
    ```"""
    save_directory = Path(save_directory)
    model.save_pretrained(save_directory)
    processor.save_pretrained(save_directory)

    auto_map = AUTO_MAP | dict.fromkeys(AUTO_MODELS, f"{type(model).__module__.split('.')[-1]}.{type(model).__name__}")
    _add_auto_maps(save_directory / CONFIG_NAME, auto_map, text_config=TEXT_AUTO_MAP, vision_config=VISION_AUTO_MAP)
    _add_auto_maps(save_directory / PROCESSOR_NAME, PROCESSOR_AUTO_MAP, image_processor=IMAGE_PROCESSOR_AUTO_MAP)
    _add_auto_maps(save_directory / TOKENIZER_CONFIG_FILE, TOKENIZER_AUTO_MAP)
    for name, content in SENTENCE_TRANSFORMERS_FILES.items():
        if model.is_token_wise:
            (save_directory / name).unlink(missing_ok=True)
        else:
            _write_json(save_directory / name, content)
    for file in remote_code_files(type(model)):
        shutil.copyfile(file, save_directory / file.name)


def remote_code_files(model_class: type[LotlipModel] = LotlipModel) -> list[Path]:
    """The modules that the auto maps of a model name, and all that these import from the package."""
    package = Path(__file__).parent
    class_references = [
        *AUTO_MAP.values(),
        model_class.__module__.split(".")[-1],
        *IMAGE_PROCESSOR_AUTO_MAP["AutoImageProcessor"].values(),
        TOKENIZER_AUTO_MAP["AutoTokenizer"][0],
    ]
    files = {package / f"{reference.split('.')[0]}.py" for reference in class_references}
    for file in list(files):
        files.update(Path(needed) for needed in get_relative_import_files(file))
    return sorted(files)


def _add_auto_maps(json_file: Path, auto_map: dict, **auto_maps_of_parts: dict):
    """Writes the auto map of a configuration file, and those of its parts."""
    content = json.loads(json_file.read_text(encoding="utf-8"))
    content["auto_map"] = auto_map
    for part, auto_map_of_part in auto_maps_of_parts.items():
        content[part]["auto_map"] = auto_map_of_part
    _write_json(json_file, content)


def _write_json(json_file: Path, content: dict | list):
    json_file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model_card(
    save_directory: str | Path,
    repo_id: str,
    provenance: str,
    license: str = "apache-2.0",
    license_note: str = "The weights are under the Apache License 2.0.",
    base_model: str | list[str] | None = None,
    results: dict[str, float] | None = None,
    dataset: str | None = None,
    dataset_split: str = "test",
    settings: dict[str, object] | None = None,
    language: str | list[str] = "en",
    biases: str | None = None,
):
    """
    Writes the model card `README.md` of a folder with a saved model and processor.

    Args:
        save_directory (`str` or `Path`):
            The folder.
        repo_id (`str`):
            What users load: the name of the repository (`"org/name"`) or of the folder.
        provenance (`str`):
            Where the weights came from, in Markdown.
        license (`str`, *optional*, defaults to `"apache-2.0"`):
            The Hub's identifier of the weights' licence.
        license_note (`str`, *optional*):
            A sentence that says the same to humans.
        base_model (`str` or `list[str]`, *optional*):
            Hub ids of the models that the weights were made from.
        results (`dict[str, float]`, *optional*):
            Metrics by name, for a table, and for the Hub in the form of a model index: names that begin with
            `zero_shot_` are of classification, the others of retrieval. `share_trained_on` is the share of the images
            that the model was trained on.
        dataset (`str`, *optional*):
            The data set that they were measured on. Needed with `results`.
        dataset_split (`str`, *optional*, defaults to `"test"`):
            Its split.
        settings (`dict[str, object]`, *optional*):
            Settings of the training by name, for a table.
        language (`str` or `list[str]`, *optional*, defaults to `"en"`):
            The ISO codes of the languages that the captions were in, or `"multilingual"`.
        biases (`str`, *optional*):
            What to say of biases, in Markdown; by default what holds for models of photographs from the web.

    Raises:
        `ValueError`: if a result is no number, or nothing says what the results were measured on.

    Example:

    ```python
    >>> from modeling_lotlip.hub import write_model_card

    >>> write_model_card("lotlip-tiny", "org/lotlip-tiny", provenance="Random weights.")
    ```"""
    save_directory = Path(save_directory)
    if results is not None and dataset is None:
        raise ValueError("`results` without `dataset`: name the data set that they were measured on.")
    for name, value in (results or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"`results` has {value!r} as {name!r}: give the metrics only, which are numbers.")
    config = json.loads((save_directory / CONFIG_NAME).read_text(encoding="utf-8"))
    is_token_wise = config.get("token_wise", False)
    tokenizer_config = json.loads((save_directory / TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8"))
    title = repo_id.split("/")[-1]
    eval_results = [
        EvalResult(
            task_type="zero-shot-image-classification" if name.startswith("zero_shot_") else "image-text-retrieval",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=dataset_split,
            metric_type=name,
            metric_value=value,
        )
        for name, value in (results or {}).items()
        if "num_" not in name and name != "share_trained_on"
    ]
    metadata = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        language=language,
        base_model=base_model,
        tags=["lotlip", "vision", "image-text-retrieval"]
        + ["sentence-transformers"] * (not is_token_wise)
        + ["arxiv:2410.05249"],
        model_name=title if eval_results else None,
        eval_results=eval_results or None,
    )
    card = ModelCard.from_template(
        metadata,
        MODEL_CARD_TEMPLATE,
        title=title,
        num_corner_tokens=config["text_config"]["num_corner_tokens"],
        image_size=config["vision_config"]["image_size"],
        max_length=tokenizer_config["model_max_length"],
        token_wise=is_token_wise,
        is_sigmoid=config.get("logit_bias_init_value") is not None,
        languages=_describe_languages(language),
        biases=biases,
        repo_id=repo_id,
        provenance=provenance,
        settings=settings,
        results=results,
        dataset=dataset,
        dataset_split=dataset_split,
        license_note=license_note,
    )
    card.save(save_directory / MODEL_CARD_NAME)


def _describe_languages(language: str | list[str]) -> str:
    codes = [language] if isinstance(language, str) else language
    known = {("en",): "English", ("multilingual",): "texts in many languages"}
    return known.get(tuple(codes), f"texts in the languages of its captions ({', '.join(codes)})")


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
    ['config.json']
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


__all__ = ["find_model_files", "push_folder", "push_metric", "save_with_remote_code", "write_model_card"]
