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
from pathlib import Path

from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCardData
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME

from .modeling_lotlip import LotlipModel
from .processing_lotlip import LotlipProcessor


MODEL_CARD_NAME = "README.md"

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

MODEL_CARD = """\
---
{metadata}
---

# {title}

A [LoTLIP](https://huggingface.co/papers/2410.05249) dual encoder: images and texts, long ones too, embedded in one
space.

- Text tower: a BERT with {num_corner_tokens} corner tokens, which gather what a long text says beside its main point.
- Image tower: a ViT for images of {image_size} x {image_size} pixels.
- A text may have {max_length} tokens; a longer one is truncated.
{token_wise}
## How to use

With the package `modeling_lotlip` installed:

```python
import torch
from PIL import Image

import modeling_lotlip  # registers the model with the Auto classes
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{repo_id}")
processor = AutoProcessor.from_pretrained("{repo_id}")

image = Image.open("image.jpg")
texts = ["a red boat", "A red boat lies on the beach. The sky is grey. Two gulls sit on its bow."]
inputs = processor(text=texts, images=image, return_tensors="pt")
with torch.inference_mode():
    probabilities = model(**inputs).logits_per_image.softmax(dim=-1)
```

Without it, the code in this repository does the same (it needs `transformers` from version 5.21 on, and `ftfy`): leave
the import out, and give `from_pretrained` the argument `trust_remote_code=True`. Zero-shot classification:

```python
from transformers import pipeline

classifier = pipeline("zero-shot-image-classification", model="{repo_id}", trust_remote_code=True)
classifier("image.jpg", candidate_labels=["boat", "car"])
```

{sentence_transformers}A tower alone:

```python
from transformers import AutoConfig, AutoModel

config = AutoConfig.from_pretrained("{repo_id}", trust_remote_code=True)
text_model = AutoModel.from_pretrained("{repo_id}", config=config.text_config, trust_remote_code=True)
vision_model = AutoModel.from_pretrained("{repo_id}", config=config.vision_config, trust_remote_code=True)
```

## Where the weights came from

{provenance}
{settings}{evaluation}
## Intended use

To search images by texts, long ones too, and texts by images; to sort images into classes that are named in words; and
as a part of other models, in research. Which of it the model does well depends on the data: measure it on your own
before you rely on it.

## Limits

- It reads {languages}, and of a text the first {max_length} tokens.
- It sees images at {image_size} x {image_size} pixels, cut to a square in the middle: what lies at the rim is lost,
  and so is what is small, fine print for instance.
- A text is one vector, and so is an image. Models of this kind are weak at numbers of things, at negations, at which
  attribute belongs to which thing, and at where things are. A long text may match well though one sentence is wrong.
- A similarity ranks. It is no probability that a text is true of an image, and those of different texts are not
  comparable without calibration.

## Biases

{biases}

## Licence

{license_note} The code in this repository (`*.py`) is under the Apache License 2.0.

## Citation

```bibtex
@inproceedings{{wu2024lotlip,
  title     = {{LoTLIP: Improving Language-Image Pre-training for Long Text Understanding}},
  author    = {{Wu, Wei and Zheng, Kecheng and Ma, Shuailei and Lu, Fan and Guo, Yuxin and Zhang, Yifei and Chen, Wei
               and Guo, Qingpei and Shen, Yujun and Zha, Zheng-Jun}},
  booktitle = {{Advances in Neural Information Processing Systems}},
  year      = {{2024}}
}}
```
"""

BIASES = """\
What the model knows comes from images with texts, and it repeats their errors, gaps and stereotypes: of gender, age,
skin colour, origin, faith and trade. It is worse at people, places and things that are rare there. How it treats
different groups of people was not measured. Do not use it to recognise or rate people, to guess such traits of theirs,
to watch them, or to decide about them."""

SENTENCE_TRANSFORMERS = """\
With sentence-transformers, texts, images and image files:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{repo_id}", trust_remote_code=True)
similarities = model.similarity(model.encode(texts), model.encode(["image.jpg"]))
```

"""

TOKEN_WISE = """\
- It was trained to compare all tokens of a text with all of an image
  ([FILIP](https://huggingface.co/papers/2111.07783)), and has no single embedding of either.
"""

SETTINGS = """
## Settings of the training

| setting | value |
| --- | --- |
{rows}
"""

EVALUATION = """
## Evaluation

On the split `{split}` of {dataset}. Recall and accuracy are in per cent, shares from 0 to 1; the others are ranks and
numbers.

| metric | value |
| --- | ---: |
{rows}
"""


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


def _is_token_wise(config: dict) -> bool:
    return config.get("token_wise", False)


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
    biases: str = BIASES,
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
            `zero_shot_` are of classification, the others of retrieval.
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
    is_token_wise = _is_token_wise(config)
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
        if not name.endswith(("num_images", "num_captions", "num_unreadable_images"))
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
    evaluation = ""
    if results is not None:
        evaluation = EVALUATION.format(
            dataset=dataset,
            split=dataset_split,
            rows="\n".join(f"| `{name}` | {value:.4g} |" for name, value in results.items()),
        )
    settings_table = ""
    if settings:
        settings_table = SETTINGS.format(rows="\n".join(f"| `{name}` | {value} |" for name, value in settings.items()))
    card = MODEL_CARD.format(
        metadata=metadata.to_yaml(),
        title=title,
        num_corner_tokens=config["text_config"]["num_corner_tokens"],
        image_size=config["vision_config"]["image_size"],
        max_length=tokenizer_config["model_max_length"],
        token_wise=TOKEN_WISE if is_token_wise else "",
        sentence_transformers="" if is_token_wise else SENTENCE_TRANSFORMERS.format(repo_id=repo_id),
        languages=_describe_languages(language),
        biases=biases,
        repo_id=repo_id,
        provenance=provenance,
        settings=settings_table,
        evaluation=evaluation,
        license_note=license_note,
    )
    (save_directory / MODEL_CARD_NAME).write_text(card, encoding="utf-8")


def _describe_languages(language: str | list[str]) -> str:
    codes = [language] if isinstance(language, str) else language
    known = {("en",): "English", ("multilingual",): "texts in many languages"}
    return known.get(tuple(codes), f"texts in the languages of its captions ({', '.join(codes)})")


def push_folder(folder: str | Path, repo_id: str, allow_patterns: list[str] | None = None) -> str:
    """
    Creates the repository `repo_id` on the Hub if there is none yet, and uploads the files of a folder in one commit.

    Args:
        folder (`str` or `Path`):
            The folder.
        repo_id (`str`):
            Name of the repository, `"name"` (in the user's own namespace) or `"org/name"`.
        allow_patterns (`list[str]`, *optional*):
            The files to upload, all by default.

    Returns:
        `str`: the address of the repository.

    Raises:
        `HfHubHTTPError`: if the Hub refuses, for instance because nobody is logged in (`hf auth login`).

    Example:

    ```python
    >>> from modeling_lotlip.hub import push_folder

    >>> push_folder("lotlip-tiny", "org/lotlip-tiny")  # doctest: +SKIP
    ```"""
    api = HfApi()
    repo_url = api.create_repo(repo_id, exist_ok=True)
    api.upload_folder(
        repo_id=repo_url.repo_id,
        folder_path=folder,
        commit_message="Upload LoTLIP",
        allow_patterns=allow_patterns,
    )
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


__all__ = ["push_folder", "push_metric", "save_with_remote_code", "write_model_card"]
