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
What a saved LoTLIP model has beside its weights: the Auto classes of its code, a model card, and what
sentence-transformers reads.
"""

import json
import os
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import CONFIG_NAME


MODEL_CARD_NAME = "README.md"

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

MODEL_CARD_TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

A [LoTLIP](https://huggingface.co/papers/2410.05249) dual encoder: images and texts, long ones too, embedded in one
space.

- Text tower: a BERT with {{ num_corner_tokens }} corner tokens, further text embeddings that are compared with the
  image in training.
- Image tower: a ViT for images of {{ image_size }} pixels.
{%- if max_length %}
- A text may have {{ max_length }} tokens; a longer one is truncated.
{%- endif %}
{%- if token_wise %}
- It was trained to compare all tokens of a text with all of an image
  ([FILIP](https://huggingface.co/papers/2111.07783)), and has no single embedding of either.
{%- endif %}
{%- if is_sigmoid %}
- It was trained with a sigmoid loss ([SigLIP](https://huggingface.co/papers/2303.15343)): the sigmoid of a logit is
  the probability that an image and a text belong together.
{%- endif %}

## How to use

With the package `modeling_lotlip` installed:

```python
import torch
from PIL import Image

import modeling_lotlip  # registers the model with the Auto classes
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{{ repo_id }}")
processor = AutoProcessor.from_pretrained("{{ repo_id }}")

image = Image.open("image.jpg")
texts = ["a red boat", "A red boat lies on the beach. The sky is grey. Two gulls sit on its bow."]
inputs = processor(text=texts, images=image, return_tensors="pt")
with torch.inference_mode():
    probabilities = model(**inputs).logits_per_image.{{ 'sigmoid()' if is_sigmoid else 'softmax(dim=-1)' }}
```

Without it, the code in this repository does the same (it needs `transformers` from version 5.21 on, and `ftfy`): leave
the import out, and give `from_pretrained` the argument `trust_remote_code=True`. Zero-shot classification:

```python
from transformers import pipeline

classifier = pipeline("zero-shot-image-classification", model="{{ repo_id }}", trust_remote_code=True)
classifier("image.jpg", candidate_labels=["boat", "car"])
```
{%- if not token_wise %}

With sentence-transformers, texts, images and image files:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{{ repo_id }}", trust_remote_code=True)
similarities = model.similarity(model.encode(texts), model.encode(["image.jpg"]))
```
{%- endif %}

A tower alone:

```python
from transformers import AutoConfig, AutoModel

config = AutoConfig.from_pretrained("{{ repo_id }}", trust_remote_code=True)
text_model = AutoModel.from_pretrained("{{ repo_id }}", config=config.text_config, trust_remote_code=True)
vision_model = AutoModel.from_pretrained("{{ repo_id }}", config=config.vision_config, trust_remote_code=True)
```

## Where the weights came from

{{ provenance }}
{%- if settings %}

## Settings of the training

| setting | value |
| --- | --- |
{%- for name, value in settings.items() %}
| `{{ name }}` | {{ value }} |
{%- endfor %}
{%- endif %}
{%- if results is not none %}

## Evaluation

On the split `{{ dataset_split }}` of {{ dataset }}. Recall and accuracy are in per cent, shares from 0
to 1; the others are ranks and numbers.
{%- if results.share_trained_on %}

**The model was trained on {{ "%.3g"|format(100 * results.share_trained_on) }} per cent of this data: the results say
little about other images.**
{%- endif %}

| metric | value |
| --- | ---: |
{%- for name, value in results.items() %}
| `{{ name }}` | {{ "%.4g" | format(value) }} |
{%- endfor %}
{%- endif %}

## Intended use

To search images by texts, also long ones, and texts by images; to classify images into classes with names; and
as a part of other models, in research. How well the model does this depends on the data: measure it on your own data
before you rely on it.

## Limits

- It reads {{ languages }}, and the first {{ max_length or "128 or so" }} tokens of a text.
- It sees the central square of an image, at {{ image_size }} pixels: the margins are lost, and small details such as
  fine print.
- A text is one vector, and so is an image. Models of this kind are weak at numbers of things, at negations, at which
  attribute belongs to which thing, and at where things are. A long text may match well though one sentence is wrong.
- A similarity ranks images or texts. It is not the probability that a text is true of an image, and similarities of
  different texts are not comparable without calibration.

## Biases
{%- if biases %}

{{ biases }}
{%- else %}

What the model knows comes from images with texts, and it repeats their errors, gaps and stereotypes: of gender, age,
skin colour, origin, faith and trade. It is worse at people, places and things that are rare there. How it treats
different groups of people was not measured. Do not use it to recognise or rate people, to guess such traits of theirs,
to watch them, or to decide about them.
{%- endif %}

## Licence

{{ license_note }} The code in this repository (`*.py`) is under the Apache License 2.0.

## Citation

```bibtex
@inproceedings{wu2024lotlip,
  title     = {LoTLIP: Improving Language-Image Pre-training for Long Text Understanding},
  author    = {Wu, Wei and Zheng, Kecheng and Ma, Shuailei and Lu, Fan and Guo, Yuxin and Zhang, Yifei and Chen, Wei
               and Guo, Qingpei and Shen, Yujun and Zha, Zheng-Jun},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024}
}
```

"""

# That of a tower which was saved alone
TOWER_CARD_TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

The {{ modality }} tower of a [LoTLIP](https://huggingface.co/papers/2410.05249) dual encoder, saved alone: a
`{{ architecture }}`. Needs `transformers` from version 5.21 on.

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("{{ repo_id }}", trust_remote_code=True)
```

## Where the weights came from

{{ provenance }}

## Licence

{{ license_note }} The code in this repository (`*.py`) is under the Apache License 2.0.
"""

# The card of weights of unknown origin
UNKNOWN = {
    "provenance": "Unknown: this card was written when the model was saved. Please add the source here.",
    "license": "other",
    "license_note": "The licence of the weights is not known: it depends on the data and models they were made from.",
    "language": None,
}


class LotlipSavingMixin:
    """
    Saves a model so that it loads without the package too, with a model card, and for sentence-transformers.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipTextConfig, LotlipTextModel

    >>> LotlipTextModel(LotlipTextConfig(num_hidden_layers=1)).save_pretrained("lotlip-text")  # by this mixin
    ```"""

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs):
        """
        Saves the model, the code it needs with `trust_remote_code=True`, and a model card, unless there is one. See
        [`~transformers.PreTrainedModel.save_pretrained`] for all arguments.
        """
        # a class remembers one Auto class only, and a configuration the code that it was loaded with
        code = f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"
        self.config.auto_map = dict.fromkeys(self.auto_classes, code)
        for part in self.config.sub_configs:
            tower = getattr(self, f"{part.removesuffix('_config')}_model")
            config_class, model_class = type(tower.config), type(tower)
            getattr(self.config, part).auto_map = {
                "AutoConfig": f"{config_class.__module__.split('.')[-1]}.{config_class.__name__}",
                "AutoModel": f"{model_class.__module__.split('.')[-1]}.{model_class.__name__}",
            }
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            self._save_for_readers(Path(save_directory), Path(save_directory).resolve().name)

    def _upload_modified_files(self, working_dir: str | os.PathLike, repo_id: str, *args, **kwargs):
        """Uploads a model card that says something instead of transformers' empty one."""
        card_file = Path(working_dir) / MODEL_CARD_NAME
        if card_file.exists() and _is_empty_card(card_file):
            card_file.unlink()
        self._save_for_readers(Path(working_dir), repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def _save_for_readers(self, folder: Path, repo_id: str):
        """Writes the model card, unless there is one, and what sentence-transformers reads."""
        if self.config.model_type in ("lotlip", "lotlip_sigmoid"):
            for name, content in SENTENCE_TRANSFORMERS_FILES.items():
                if not (folder / name).exists():
                    (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if (folder / CONFIG_NAME).exists() and not (folder / MODEL_CARD_NAME).exists():
            write_model_card(folder, repo_id, **UNKNOWN)


def _is_empty_card(card_file: Path) -> bool:
    """Whether nobody has filled in any field of the Hub's template."""
    field = "[More Information Needed]"
    empty = ModelCard.from_template(ModelCardData(), model_description="Empty.").text
    return ModelCard.load(card_file).text.count(field) == empty.count(field)


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
    language: str | list[str] | None = "en",
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
            The ISO codes of the languages that the captions were in, or `"multilingual"`, or `None` if unknown.
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
    if results is not None and dataset is None:
        raise ValueError("`results` without `dataset`: name the data set that they were measured on.")
    for name, value in (results or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"`results` has {value!r} as {name!r}: give the metrics only, which are numbers.")
    config = json.loads((save_directory / CONFIG_NAME).read_text(encoding="utf-8"))
    is_token_wise = config["model_type"] == "lotlip_token_wise"
    tokenizer_file = save_directory / TOKENIZER_CONFIG_FILE
    tokenizer_config = json.loads(tokenizer_file.read_text(encoding="utf-8")) if tokenizer_file.exists() else {}
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
    metadata = {"license": license, "library_name": "transformers", "language": language, "base_model": base_model}
    told = {"title": title, "repo_id": repo_id, "provenance": provenance, "license_note": license_note}
    if "text_config" not in config:
        card = ModelCard.from_template(
            ModelCardData(**metadata, tags=["lotlip"]),
            template_str=TOWER_CARD_TEMPLATE,
            modality="text" if "vocab_size" in config else "image",
            architecture=config["architectures"][0],
            **told,
        )
        card.save(save_directory / MODEL_CARD_NAME)
        return

    image_size = config["vision_config"]["image_size"]
    card = ModelCard.from_template(
        ModelCardData(
            **metadata,
            pipeline_tag="zero-shot-image-classification",
            tags=["lotlip", "vision", "image-text-retrieval", "sentence-transformers", "arxiv:2410.05249"],
            model_name=title if eval_results else None,
            eval_results=eval_results or None,
        ),
        template_str=MODEL_CARD_TEMPLATE,
        num_corner_tokens=config["text_config"]["num_corner_tokens"],
        image_size=" x ".join(map(str, [image_size] * 2 if isinstance(image_size, int) else image_size)),
        max_length=tokenizer_config.get("model_max_length"),
        token_wise=is_token_wise,
        is_sigmoid=config["model_type"] == "lotlip_sigmoid",
        languages=_describe_languages(language),
        biases=biases,
        settings=settings,
        results=results,
        dataset=dataset,
        dataset_split=dataset_split,
        **told,
    )
    card.save(save_directory / MODEL_CARD_NAME)


def _describe_languages(language: str | list[str] | None) -> str:
    if language is None:
        return "texts in the languages of its captions"
    codes = [language] if isinstance(language, str) else language
    known = {("en",): "English", ("multilingual",): "texts in many languages"}
    return known.get(tuple(codes), f"texts in the languages of its captions ({', '.join(codes)})")


__all__ = ["LotlipSavingMixin", "write_model_card"]
