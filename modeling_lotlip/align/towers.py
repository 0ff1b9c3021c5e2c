# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Loads a text tower and an image tower, each of whatever library, for [`join_towers`]."""

import copy
import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from PIL import Image
from PIL.Image import Resampling
from tokenizers import Regex, Tokenizer, normalizers
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    CLIPImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    VisionTextDualEncoderProcessor,
)
from transformers.utils import ModelOutput

from ..encoder.backends import PytorchBackend
from ..encoder.families import Family, find_family, find_text_limit
from ..encoder.loading import (
    LOADING_ERRORS,
    PLAIN_TEXT_OPTIONS,
    SENTENCE_TRANSFORMERS_READING,
    check_no_adapters,
    check_none_is_missing,
    drop_nulls,
    find_commit,
    find_file,
    is_dual_encoder,
    is_sentence_transformer,
)
from ..hub import CARD_FILE
from ..hub_lotlip import find_pretrained
from ..modeling_aligned_lotlip import (
    LotlipAlignedConfig,
    LotlipAlignedModel,
    hash_state,
    pool_image,
    pool_text,
    zero_missing,
)


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# The poolings of the sentence-transformers library, by their names there
SENTENCE_POOLINGS = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
ACTIVATIONS = {"Identity": "linear", "Tanh": "tanh", "GELU": "gelu", "ReLU": "relu", "SiLU": "silu"}
# The parameters by whose names image towers are known to have a [CLS]
CLS_PARAMETERS = ("cls_token", "class_embedding", "class_token", "cls_register_token")
# The max difference of two features of the same image, as a fraction of the largest value
MAX_DIFFERENCE = 1e-3
# Of the features of a tower to the embeddings of the dual encoder that it is a part of
MIN_COSINE = 0.999
# By these it is seen whether a text has the same tokens after a prompt as alone
PROMPTED_TEXTS = ("a", "A boat", "2 boats", "é", "лодка", "舟", "(a) boat.")
# Convolutional networks of which the first state is their pooled output, before those of the patches
POOLED_FIRST = ("dinov3_convnext",)


@dataclass(kw_only=True)
class FrozenTower:
    """
    A frozen tower: what [`TextTower`] and [`ImageTower`] share.

    Args:
        name (`str`): What messages and the model card call it.
        model (`PreTrainedModel`): Its encoder.
        pooling (`str`): How its states become one vector.
        layers (`list[dict]`): What comes after the pooling: see `text_layers` of [`LotlipAlignedConfig`].
        weights (`nn.Sequential`): These layers.
        license (`str`, *optional*): The Hub's identifier of its license, where its card says so.
    """

    name: str
    model: PreTrainedModel
    pooling: str
    layers: list[dict] = field(default_factory=list)
    weights: nn.Sequential = field(default_factory=nn.Sequential)
    license: str | None = None

    def freeze(self, device: str | torch.device) -> None:
        """Moves the tower to a device, where it computes without dropout and without gradients."""
        self.model = self.model.to(device).eval().requires_grad_(False)
        self.weights = self.weights.to(device).eval().requires_grad_(False)


@dataclass(kw_only=True)
class TextTower(FrozenTower):
    """
    A frozen text tower.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer, with the limit of a text.
        prompt (`str`, *optional*): What its tokenizer puts before each text.
    """

    tokenizer: PreTrainedTokenizerBase
    prompt: str | None = None

    @torch.inference_mode()
    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the features, `(texts, dim)` in float32 on the CPU, of tokenized texts."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        pooled = pool_text(self.model(**inputs), inputs["attention_mask"], self.pooling)
        return self.weights(pooled).float().cpu()


@dataclass(kw_only=True)
class ImageTower(FrozenTower):
    """
    A frozen image tower.

    Args:
        image_processor (`BaseImageProcessor`): What makes its inputs.
        num_prefix_tokens (`int`): The number of tokens before the patches.
    """

    image_processor: BaseImageProcessor
    num_prefix_tokens: int

    @torch.inference_mode()
    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the features, `(images, dim)` in float32 on the CPU, of preprocessed images."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        pooled = pool_image(self.model(**inputs), self.num_prefix_tokens, self.pooling)
        return self.weights(pooled).float().cpu()


def load_text_tower(
    name: str,
    pooling: str | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    device: str | torch.device = "cpu",
) -> TextTower:
    """
    Loads a text tower: a model of the sentence-transformers library, or a text encoder of
    transformers, also that of a dual encoder.

    Args:
        name (`str`):
            A Hub id or a folder.
        pooling (`str`, *optional*):
            One of `TEXT_POOLINGS`. Default: that of the sentence-transformers library, or of the
            dual encoder.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens. Default: the limit of the model.
        prompt (`str`, *optional*):
            What the tokenizer puts before each text. Default: the default prompt of a model of the
            sentence-transformers library, if it has one; `""`: none.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Where it computes.

    Raises:
        `ValueError`: if it cannot be loaded, or needs what a [`LotlipAlignedModel`] does not have.
        `ImportError`: if the sentence-transformers library is needed and not installed.
    """
    try:
        if is_sentence_transformer(name):
            tower = load_sentence_tower(name, pooling, prompt)
        else:
            tower = load_plain_text_tower(name, pooling)
        if prompt:
            tower.prompt = prompt
        if tower.prompt:
            tower.tokenizer = prepend(tower.tokenizer, tower.prompt)
    except LOADING_ERRORS as error:
        raise ValueError(
            f"`--text_model_name_or_path {name}` cannot be used: {explain_loading_error(name, error)}"
        ) from error
    limit_tokenizer(tower, max_length)
    check_room_for_texts(tower.tokenizer)
    # A processor, and so sentence-transformers, would truncate there, and not at the `model_max_length`:
    # All-MiniLM-L6-v2 has 128 beside its 256
    tower.tokenizer.init_kwargs.pop("max_length", None)
    tower.license = find_license(name)
    tower.freeze(device)
    return tower


def load_sentence_tower(name: str, pooling: str | None, prompt: str | None) -> TextTower:
    """Loads the text tower of a model of the sentence-transformers library: see [`load_text_tower`]."""
    if find_spec("sentence_transformers") is None:
        raise ImportError(
            f'{name} is a model of sentence-transformers, which is not installed: `pip install "lotlip[align]"`.'
        )
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(name), device="cpu", model_kwargs={"dtype": "float32"})
    check_modules(model)
    told_limit = find_told_limit(model)
    if told_limit is not None:
        model.max_seq_length = told_limit
    encoder = model[0].model
    check_rebuildable(encoder)
    if prompt is None and model.default_prompt_name is not None:
        prompt = model.prompts[model.default_prompt_name]
    if prompt is None and any(model.prompts.values()):
        logger.warning(
            f"{name} has the prompts {model.prompts}, and none by default: none is put before texts. "
            "Name one with `--text_prompt` if it was trained so."
        )
    if prompt and not model[1].include_prompt:
        raise ValueError("it leaves its prompt out of the mean of the tokens, which cannot be saved. Name another.")
    layers = []
    weights = nn.Sequential()
    for module in list(model)[1:]:
        module_name = type(module).__name__
        if module_name == "Pooling":
            pooling = pooling or SENTENCE_POOLINGS[module.pooling_mode]
        elif module_name == "Dense":
            layers.append(
                {
                    "in_features": module.in_features,
                    "out_features": module.out_features,
                    "bias": module.bias,
                    "activation": ACTIVATIONS[type(module.activation_function).__name__],
                }
            )
            weights.append(module.linear)
            weights.append(module.activation_function)
    return TextTower(
        name=str(name),
        model=encoder,
        tokenizer=model[0].tokenizer,
        pooling=pooling,
        layers=layers,
        weights=weights,
        prompt=prompt,
    )


def check_modules(model: "SentenceTransformer") -> None:
    """
    Raises a `ValueError` that names the module of the sentence-transformers library that has no
    counterpart here. Normalize may come last: embeddings are compared by their cosine.
    """
    names = [name_module(module) for module in model]
    is_known = names[:2] == ["Transformer", "Pooling"]
    rest = names[2:]
    if rest and rest[-1] == "Normalize":
        rest = rest[:-1]
    if not is_known or any(name != "Dense" for name in rest):
        raise ValueError(
            f"it has the modules {', '.join(names)}, but only Transformer, Pooling, Dense and "
            "Normalize, in this order, can be saved. Name another model."
        )
    if model[1].pooling_mode not in SENTENCE_POOLINGS:
        raise ValueError(
            f"its pooling is {model[1].pooling_mode}, but only {', '.join(SENTENCE_POOLINGS)} can be "
            "saved. Name another model."
        )
    for module in list(model)[2:]:
        if type(module).__name__ == "Dense":
            check_dense(module)


def name_module(module: nn.Module) -> str:
    """Names a module by its class, and one that is not of the sentence-transformers library by its file too."""
    module_class = type(module)
    if module_class.__module__.startswith("sentence_transformers."):
        return module_class.__name__
    return f"{module_class.__module__}.{module_class.__name__}"


def find_told_limit(model: "SentenceTransformer") -> int | None:
    """
    Finds the limit of a text that the sentence-transformers library was told in place of that of a tokenizer. Raises
    a `ValueError` if it was told something else of how texts are read.
    """
    told = model[0].processing_kwargs
    options = drop_nulls({**(told.get("common") or {}), **(told.get("text") or {})})
    others = options.keys() - {"max_length", *PLAIN_TEXT_OPTIONS}
    if others:
        raise ValueError(
            f"its `processing_kwargs` have {', '.join(sorted(others))} for texts, which cannot be saved: take them "
            f"out of the {SENTENCE_TRANSFORMERS_READING} of a copy of it."
        )
    return options.get("max_length")


def check_dense(module: nn.Module) -> None:
    """Raises a `ValueError` if a Dense of the sentence-transformers library has what cannot be saved."""
    activation = type(module.activation_function).__name__
    if module.use_residual:
        raise ValueError("it has a Dense with a residual, which cannot be saved. Name another model.")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"it has a Dense with {activation}, but only {', '.join(ACTIVATIONS)} can be saved. Name another model."
        )


def load_encoder_model(path: str | PathLike, pooling: str | None, part: str, projection: str) -> PreTrainedModel:
    """
    Loads an encoder of transformers.

    Args:
        path (`str` or `PathLike`): The folder or the Hub id.
        pooling (`str`, *optional*): The pooling that is asked for.
        part (`str`): What a dual encoder calls the part that is used, such as `"text_model"`.
        projection (`str`): What it calls the projection of that, which only its pooler goes through.

    Raises:
        `ValueError`: if its weights lack a tensor that is used, which the library would initialize at random. A
            pooler may be missing (masked language models, DINO) where another pooling is asked for.
    """
    model, report = AutoModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    missing = report["missing_keys"]
    if is_dual_encoder(type(model)):
        used = (f"{part}.",)
        if pooling in (None, "pooler"):
            used = (f"{part}.", f"{projection}.")
        check_none_is_missing([name for name in missing if name.startswith(used)], model)
        zero_missing(model, missing)
    else:
        prepare_encoder(model, missing, pooling)
    return model


def prepare_encoder(model: PreTrainedModel, missing: Iterable[str], pooling: str | None) -> None:
    """
    Makes an encoder the same at each load, where its weights lack a pooler that is not used.

    Args:
        model (`PreTrainedModel`): The encoder.
        missing (`Iterable[str]`): The names of the tensors that its weights lack.
        pooling (`str`, *optional*): The pooling that is asked for.

    Raises:
        `ValueError`: if the weights lack a tensor that is used.
    """
    check_none_is_missing([name for name in missing if pooling == "pooler" or "pooler" not in name], model)
    zero_missing(model, missing)


def load_plain_text_tower(name: str, pooling: str | None) -> TextTower:
    """Loads a text encoder of transformers, also that of a dual encoder: see [`load_text_tower`]."""
    path = find_pretrained(name)
    check_no_adapters(path)
    model = load_encoder_model(path, pooling, "text_model", "text_projection")
    tokenizer = AutoTokenizer.from_pretrained(path)
    if is_dual_encoder(type(model)):
        check_parts(model, "text_model")
        processor = AutoProcessor.from_pretrained(path)
        family = find_family(model.config, processor)
        if family.padding is not None or family.is_lower_case:
            raise ValueError(
                f"it is a {type(model).__name__}, which reads texts in lower case, padded to its "
                "limit, and that is not saved. Name another model for texts."
            )
        if family.attn_implementation is not None:
            raise ValueError(
                f"it is a {type(model).__name__}, which is right with the attention "
                f"{family.attn_implementation!r} alone, and that is not saved. Name another model "
                "for texts."
            )
        tokenizer.model_max_length = find_text_limit(model, processor, family)
        projection = None
        if pooling in (None, "pooler"):
            projection = getattr(model, "text_projection", None)
        layers, weights = copy_projection(projection)
        check_rebuildable(model.text_model)
        tower = TextTower(
            name=str(name),
            model=model.text_model,
            tokenizer=tokenizer,
            pooling=pooling or "pooler",
            layers=layers,
            weights=weights,
        )
        if tower.pooling == "pooler":
            check_texts_are_embedded_alike(model.eval(), tower, family)
        return tower
    if pooling is None:
        raise ValueError(
            "it does not say how its states become one vector: give --text_pooling mean, cls or "
            "last, as it was trained."
        )
    check_rebuildable(model)
    return TextTower(name=str(name), model=model, tokenizer=tokenizer, pooling=pooling)


def prepend(tokenizer: PreTrainedTokenizerBase, prompt: str) -> PreTrainedTokenizerBase:
    """
    Returns a tokenizer that puts a prompt before each text, wherever it is loaded. Raises a
    `ValueError` for one that is not of the tokenizers library.

    The tokens of the prompt are special tokens, as `[CLS]` is. A normalizer would put the prompt
    before each part of a text between special tokens: it sees these parts alone.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"a prompt cannot be saved with its {type(tokenizer).__name__}: name another model.")
    whole = copy.deepcopy(tokenizer.backend_tokenizer)
    # as it was saved, it may truncate and pad
    whole.no_truncation()
    whole.no_padding()
    backend = None
    for beginning, steps in list_prompt_forms(prompt):
        candidate = add_prompt(whole, beginning, steps)
        if puts_before(candidate, prompt, whole):
            backend = candidate
            break
    if backend is None:
        logger.warning(
            f"The prompt {prompt!r} and the first word of a text share a token, and so it comes "
            "again after each special token in a text, such as [SEP]: end the prompt with a space."
        )
        backend = normalize_first(whole, [normalizers.Prepend(prompt)])
    # its own class would make its normalizer anew when it is loaded
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def puts_before(prompted: Tokenizer, prompt: str, tokenizer: Tokenizer) -> bool:
    """Returns whether the tokens of texts by `prompted` are those of a prompt and these texts by `tokenizer`."""
    tokens = [prompted.encode(text).ids for text in PROMPTED_TEXTS]
    expected = [tokenizer.encode(f"{prompt}{text}").ids for text in PROMPTED_TEXTS]
    return tokens == expected


def list_prompt_forms(prompt: str) -> list[tuple[str, list[normalizers.Normalizer]]]:
    """
    Lists what may give the tokens of a prompt and a text: a beginning, and how the text is changed.
    The space between both may be a token of the prompt, no token at all, or a part of the first
    word.
    """
    stripped = prompt.rstrip()
    forms = [(prompt, []), (stripped, [])]
    if prompt == f"{stripped} ":
        # what is after a special token in a text has a space of its own
        one_space = normalizers.Replace(Regex(r"\A\s{2}"), " ")
        forms.append((stripped, [normalizers.Prepend(" "), one_space]))
    return forms


def normalize_first(tokenizer: Tokenizer, steps: list[normalizers.Normalizer]) -> Tokenizer:
    """Returns a copy of a tokenizer that normalizes a text by these steps, then by its own ones."""
    changed = copy.deepcopy(tokenizer)
    own_steps = []
    if tokenizer.normalizer is not None:
        own_steps.append(tokenizer.normalizer)
    if steps:
        changed.normalizer = normalizers.Sequence([*steps, *own_steps])
    return changed


def add_prompt(tokenizer: Tokenizer, prompt: str, steps: list[normalizers.Normalizer]) -> Tokenizer:
    """
    Returns a tokenizer that puts the tokens of a prompt between its first special tokens and a text.

    Args:
        tokenizer (`Tokenizer`): The tokenizer, of which a copy is made.
        prompt (`str`): The prompt.
        steps (`list[Normalizer]`): What a text is changed by first.
    """
    template = []
    special_tokens = {}

    def add_token(token: str, token_id: int, type_id: int) -> None:
        template.append({"SpecialToken": {"id": token, "type_id": type_id}})
        special_tokens[token] = {"id": token, "ids": [token_id], "tokens": [token]}

    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    encoding = tokenizer.encode("a")
    num_text_tokens = len(tokenizer.encode("a", add_special_tokens=False).ids)
    start = encoding.special_tokens_mask.index(0)
    rows = list(zip(encoding.tokens, encoding.ids, encoding.type_ids))
    for row in rows[:start]:
        add_token(*row)
    text_type = encoding.type_ids[start]
    for token_id in prompt_ids:
        add_token(tokenizer.id_to_token(token_id), token_id, text_type)
    template.append({"Sequence": {"id": "A", "type_id": text_type}})
    for row in rows[start + num_text_tokens :]:
        add_token(*row)
    # of its JSON: from Python, a template has no token with a colon
    state = json.loads(normalize_first(tokenizer, steps).to_str())
    state["post_processor"] = {
        "type": "TemplateProcessing",
        "single": template,
        "pair": [*template, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": special_tokens,
    }
    return Tokenizer.from_str(json.dumps(state))


def check_rebuildable(model: PreTrainedModel) -> None:
    """Raises a `ValueError` if a tower is not what its configuration alone makes, and so would not load again."""
    if type(model.config) not in MODEL_MAPPING:
        raise ValueError(f"`AutoModel` of transformers makes no {type(model).__name__} alone. Name another model.")
    with torch.device("meta"):
        rebuilt = AutoModel.from_config(model.config)
    expected = {name: tensor.shape for name, tensor in rebuilt.state_dict().items()}
    if {name: tensor.shape for name, tensor in model.state_dict().items()} != expected:
        raise ValueError(
            f"it is a {type(model).__name__}, which its configuration alone does not make, but a "
            f"{type(rebuilt).__name__}. Name another model."
        )


def explain_loading_error(name: str, error: Exception) -> str:
    """Returns the message of an error in loading a model; what cannot be done in this command is not advised."""
    if str(name).startswith((".", "/", "~")) and not Path(name).exists():
        return "there is no such folder."
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, which cannot be saved with a model. Name one of transformers."
    return str(error)


def limit_tokenizer(tower: TextTower, max_length: int | None) -> None:
    """
    Sets the limit of a tokenizer: `max_length`, or no more than there are positions for. Raises a
    `ValueError` for more.
    """
    num_positions = getattr(tower.model.config, "max_position_embeddings", None)
    for name, module in tower.model.named_modules():
        # RoBERTa's positions begin after that of padding
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            num_positions -= module.padding_idx + 1
    if num_positions is not None:
        num_positions -= getattr(tower.model.config, "num_corner_tokens", 0)
    if max_length is None:
        max_length = tower.tokenizer.model_max_length
        if num_positions is not None:
            max_length = min(max_length, num_positions)
    elif num_positions is not None and max_length > num_positions:
        raise ValueError(
            f"`--max_length {max_length}` is beyond the {num_positions} tokens that {tower.name} has "
            "positions for: give fewer."
        )
    tower.tokenizer.model_max_length = max_length


def check_room_for_texts(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises a `ValueError` if special tokens and prompt leave no room for a text: it would not be truncated."""
    num_special_tokens = tokenizer.num_special_tokens_to_add()
    if tokenizer.model_max_length <= num_special_tokens:
        raise ValueError(
            f"A text has at most {tokenizer.model_max_length} tokens, of which special tokens and "
            f"the prompt take {num_special_tokens}: give a larger `--max_length`, or a shorter "
            "`--text_prompt`."
        )


def load_image_tower(
    name: str,
    pooling: str | None = None,
    device: str | torch.device = "cpu",
) -> ImageTower:
    """
    Loads an image tower of transformers or timm, or that of a dual encoder.

    Args:
        name (`str`):
            A Hub id or a folder.
        pooling (`str`, *optional*):
            One of `IMAGE_POOLINGS`. Default: `"cls_mean"`; without a `[CLS]` `"mean"`; of a dual
            encoder and of a convolutional network `"pooler"`.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Where it computes.

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    try:
        tower = load_any_image_tower(name, pooling)
    except LOADING_ERRORS as error:
        raise ValueError(
            f"`--vision_model_name_or_path {name}` cannot be used: {explain_loading_error(name, error)}"
        ) from error
    tower.license = find_license(name)
    tower.freeze(device)
    return tower


def load_any_image_tower(name: str, pooling: str | None) -> ImageTower:
    """Loads an image tower, on the CPU: see [`load_image_tower`]."""
    path = find_pretrained(name)
    check_no_adapters(path)
    model = load_encoder_model(path, pooling, "vision_model", "visual_projection")
    image_processor = make_saveable(AutoImageProcessor.from_pretrained(path))
    projection = None
    whole = None
    if is_dual_encoder(type(model)):
        check_parts(model, "vision_model")
        projection = getattr(model, "visual_projection", None)
        whole = model
        model = model.vision_model
        pooling = pooling or "pooler"
    check_rebuildable(model)
    num_prefix_tokens = count_prefix_tokens(model)
    image = Image.linear_gradient("L").resize((64, 64)).convert("RGB")  # whose patches differ
    inputs = image_processor([image], return_tensors="pt")
    with torch.inference_mode():
        outputs = model.eval()(**inputs)
    if pooling is None:
        pooling = choose_image_pooling(model, outputs)
    check_image_pooling(model, inputs, pooling)
    check_image_states(model, outputs, pooling)
    features = pool_image(outputs, num_prefix_tokens, pooling)  # says now what it lacks
    with torch.inference_mode():
        again = pool_image(model(**inputs), num_prefix_tokens, pooling)
    if (again - features).abs().max() > MAX_DIFFERENCE * features.abs().max():
        raise ValueError(
            f"it is a {type(model).__name__}, which gives an image other features each time, as if it "
            "hid patches at random. Name another model."
        )
    layers, weights = copy_projection(projection if pooling == "pooler" else None)
    tower = ImageTower(
        name=str(name),
        model=model,
        image_processor=image_processor,
        pooling=pooling,
        num_prefix_tokens=num_prefix_tokens,
        layers=layers,
        weights=weights,
    )
    if whole is not None and pooling == "pooler":
        check_images_are_embedded_alike(whole.eval(), tower, inputs)
    return tower


def check_image_pooling(model: PreTrainedModel, inputs: dict[str, object], pooling: str) -> None:
    """
    Raises a `ValueError` for a pooling that a tower lacks, or that would be of something else than
    its patches; `inputs` are what its image processor gives for an image.
    """
    if pooling == "pooler":
        return
    if pooling != "mean" and not has_cls(model):
        raise ValueError(f"it has no [CLS] for `--image_pooling {pooling}`: take `mean` or `pooler`.")
    if len(inputs) > 1:
        raise ValueError(
            f"its images have another number of patches each, of which `--image_pooling {pooling}` "
            "would count the padding: take `pooler`."
        )
    timm_model = getattr(model, "timm_model", None)
    if getattr(timm_model, "output_fmt", None) == "NHWC":
        raise ValueError(
            f"its states are of shape (images, height, width, dim), and `--image_pooling {pooling}` "
            "would take the height for the dimensions: take `pooler`."
        )


def check_image_states(model: PreTrainedModel, outputs: ModelOutput, pooling: str) -> None:
    """
    Raises a `ValueError` for a pooling of states that are not a `[CLS]` and the patches behind it: those of CvT are
    patches alone, and the last ones of YOLOS are of the objects that it detects.
    """
    if pooling == "pooler":
        return
    is_map_of_patches = has_cls(model) and outputs.last_hidden_state.dim() == 4
    if is_map_of_patches or getattr(model.config, "num_detection_tokens", None):
        raise ValueError(
            f"it is a {type(model).__name__}, whose states are not a [CLS] and the patches, as `--image_pooling "
            f"{pooling}` needs them. Name another model."
        )


def make_saveable(image_processor: BaseImageProcessor) -> BaseImageProcessor:
    """
    Returns an image processor as it is, but in place of timm's, which cannot be saved in a
    processor of two parts, one of transformers that does the same: it resizes the shorter side, or
    both, and cuts out the center. Raises a `ValueError` if there is none.
    """
    settings = getattr(image_processor, "data_config", None)
    if settings is None:
        return image_processor
    _, height, width = settings["input_size"]
    crop_mode = settings.get("crop_mode", "center")
    scaled_height = math.floor(height / settings["crop_pct"])
    scaled_width = math.floor(width / settings["crop_pct"])
    if crop_mode == "squash":
        size = {"height": scaled_height, "width": scaled_width}
    elif crop_mode == "center" and height == width:
        size = {"shortest_edge": scaled_height}
    else:
        raise ValueError(
            f"its images, of {height} x {width} pixels, are resized in the way {crop_mode!r}, and no "
            "image processor of transformers does the same. Name another model."
        )
    return CLIPImageProcessor(
        size=size,
        crop_size={"height": height, "width": width},
        resample=Resampling[settings["interpolation"].upper()],
        image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
    )


def choose_image_pooling(model: PreTrainedModel, outputs: object) -> str:
    """Returns the pooling of an image tower that is best where none is asked for, by what the tower returns."""
    is_convolutional = outputs.last_hidden_state.dim() == 4 or model.config.model_type in POOLED_FIRST
    if is_convolutional:
        return "pooler"
    if has_cls(model):
        return "cls_mean"
    return "mean"


def list_parameters(model: PreTrainedModel) -> set[str]:
    """Lists the names of the parameters of a model, without those of the modules that they are in."""
    return {name.rpartition(".")[2] for name, _ in model.named_parameters()}


def has_cls(model: PreTrainedModel) -> bool:
    """Returns whether the first state of an image tower is that of a `[CLS]`."""
    return not list_parameters(model).isdisjoint(CLS_PARAMETERS)


def count_prefix_tokens(model: PreTrainedModel) -> int:
    """Returns the number of states before those of the patches: of a `[CLS]`, registers and so on."""
    if hasattr(model, "timm_model"):  # which may have registers and no [CLS]
        return getattr(model.timm_model, "num_prefix_tokens", 0)
    if model.config.model_type in POOLED_FIRST:
        return 1
    if not has_cls(model):
        return 0
    num_summary_tokens = getattr(model.config, "num_summary_tokens", None)  # of RADIO
    if num_summary_tokens is not None:
        return num_summary_tokens
    num_tokens = 1 + (getattr(model.config, "num_register_tokens", None) or 0)
    if "distillation_token" in list_parameters(model):
        num_tokens += 1
    return num_tokens


def check_parts(model: PreTrainedModel, part: str) -> None:
    """Raises a `ValueError` if a dual encoder has no tower of that name that can be taken out of it."""
    if isinstance(model, LotlipAlignedModel):
        raise ValueError("it is made by `lotlip align` itself. Name the tower that it was made from.")
    tower = getattr(model, part, None)
    if not isinstance(tower, PreTrainedModel):
        raise ValueError(f"it is a {type(model).__name__}, whose `{part}` cannot be taken out. Name another model.")


def check_texts_are_embedded_alike(model: PreTrainedModel, tower: TextTower, family: Family) -> None:
    """
    Raises a `ValueError` if a dual encoder embeds short or long texts otherwise than its tower with its projection,
    as a class of one's own may.

    Args:
        model (`PreTrainedModel`): The dual encoder, in evaluation mode.
        tower ([`TextTower`]): Its tower.
        family ([`Family`]): Its family.
    """
    if family.compares_tokens:
        return
    inputs = dict(tower.tokenizer(["A red boat lies at a pier. The sea is calm."], return_tensors="pt"))
    inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
    backend = PytorchBackend(model, family)
    features = tower.compute(inputs)
    for is_long in (False, True):
        with torch.inference_mode():
            embeds = backend.embed_texts(inputs, is_long)
        check_is_alike(features, embeds, model, "texts")


def check_images_are_embedded_alike(model: PreTrainedModel, tower: ImageTower, inputs: dict[str, object]) -> None:
    """
    Raises a `ValueError` if a dual encoder embeds images otherwise than its tower with its projection.

    Args:
        model (`PreTrainedModel`): The dual encoder, in evaluation mode.
        tower ([`ImageTower`]): Its tower.
        inputs (`dict[str, object]`): What its image processor makes of an image.
    """
    family = find_family(model.config)
    if family.compares_tokens:
        return
    with torch.inference_mode():
        embeds = PytorchBackend(model, family).embed_images(dict(inputs))
    check_is_alike(tower.compute(inputs), embeds, model, "images")


def check_is_alike(features: torch.Tensor, embeds: torch.Tensor, model: PreTrainedModel, what: str) -> None:
    """
    Raises a `ValueError` if features of a tower point elsewhere than the embeddings of its dual encoder.

    Args:
        features (`torch.Tensor` of shape `(1, dim)`): Of the tower with its projection.
        embeds (`torch.Tensor` of shape `(1, dim)`): Of the dual encoder.
        model (`PreTrainedModel`): The dual encoder.
        what (`str`): What is embedded, for the message.
    """
    is_alike = features.shape == embeds.shape
    if is_alike:
        cosine = torch.cosine_similarity(features, embeds.float().cpu())
        is_alike = not cosine.item() < MIN_COSINE  # weights that are no numbers are named by who uses them
    if not is_alike:
        raise ValueError(
            f"it is a {type(model).__name__}, which embeds {what} otherwise than its tower with its projection, and "
            "that is not saved. Name another model."
        )


def copy_projection(projection: nn.Module | None) -> tuple[list[dict], nn.Sequential]:
    """Returns the projection of a dual encoder as layers: see `image_layers` of [`LotlipAlignedConfig`]."""
    if not isinstance(projection, nn.Linear):
        return [], nn.Sequential()
    layer = {
        "in_features": projection.in_features,
        "out_features": projection.out_features,
        "bias": projection.bias is not None,
        "activation": "linear",
    }
    return [layer], nn.Sequential(projection, nn.Identity())


def find_license(name: str) -> str | None:
    """Returns the license that the card of a model names, by the Hub's identifier; `None` if it names none."""
    file = find_file(name, CARD_FILE)
    if file is None:
        return None
    try:
        return ModelCard.load(file).data.get("license")
    except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None


def make_processor(text_tower: TextTower, image_tower: ImageTower) -> VisionTextDualEncoderProcessor:
    """Returns the tokenizer and the image processor of two towers as one processor."""
    return VisionTextDualEncoderProcessor(image_tower.image_processor, text_tower.tokenizer)


def join_towers(
    text_tower: TextTower,
    image_tower: ImageTower,
    text_feature_dim: int,
    image_feature_dim: int,
    **heads: str | int | float,
) -> LotlipAlignedModel:
    """
    Returns a model of two towers, with heads that are not trained yet.

    Args:
        text_tower ([`TextTower`]):
            The text tower, whose weights are copied.
        image_tower ([`ImageTower`]):
            The image tower, whose weights are copied.
        text_feature_dim (`int`):
            The number of dimensions of a feature of a text.
        image_feature_dim (`int`):
            The number of dimensions of a feature of an image.
        heads (`str`, `int` or `float`):
            Fields of [`LotlipAlignedConfig`], such as `text_head`.

    """
    config = LotlipAlignedConfig(
        text_config=name_without_folder(text_tower.model.config),
        vision_config=name_without_folder(image_tower.model.config),
        text_pooling=text_tower.pooling,
        image_pooling=image_tower.pooling,
        num_image_prefix_tokens=image_tower.num_prefix_tokens,
        text_layers=text_tower.layers or None,
        image_layers=image_tower.layers or None,
        text_feature_dim=text_feature_dim,
        image_feature_dim=image_feature_dim,
        **heads,
    )
    model = LotlipAlignedModel(config)
    model.text_model.load_state_dict(text_tower.model.state_dict())
    model.vision_model.load_state_dict(image_tower.model.state_dict())
    model.text_layers.load_state_dict(text_tower.weights.state_dict())
    model.image_layers.load_state_dict(image_tower.weights.state_dict())
    return model.eval()


def refer_to(text_tower: TextTower, image_tower: ImageTower) -> dict[str, dict]:
    """
    Returns where the weights of two towers are: see `towers` of [`LotlipAlignedConfig`].

    Raises:
        `ValueError`: if `AutoModel` does not load a tower by its name, such as one that is a part of a dual encoder.
    """
    towers = {}
    for part, tower in (("text_model", text_tower), ("vision_model", image_tower)):
        try:
            config = AutoConfig.from_pretrained(tower.name)
        except (OSError, ValueError) as error:
            raise ValueError(f"`--towers reference` cannot refer to {tower.name}: {error}") from error
        if config.model_type != tower.model.config.model_type:
            raise ValueError(
                f"`--towers reference` cannot refer to {tower.name}, of which the tower is a part only: save it whole."
            )
        if Path(tower.name).exists():
            name = str(Path(tower.name).resolve())
            revision = None
        else:
            name = tower.name
            revision = find_commit(name)
        towers[part] = {"name": name, "revision": revision, "hash": hash_state(tower.model.state_dict())}
    return towers


def name_without_folder(config: object) -> object:
    """Returns a configuration that names no folder of this machine."""
    config = copy.deepcopy(config)
    name = getattr(config, "_name_or_path", "")
    if name and Path(name).exists():
        config._name_or_path = Path(name).resolve().name
    return config
