# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A dual encoder of two towers that were trained apart, joined by heads that `lotlip align` trains on their embeddings.
This file needs transformers alone: it goes to the Hub with the model.
"""

import hashlib
import os
from collections.abc import Iterable
from functools import partial

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, can_return_tuple
from transformers.utils.hub import cached_file, get_checkpoint_shard_files


TEXT_POOLINGS = ("mean", "cls", "last", "pooler")
IMAGE_POOLINGS = ("cls", "mean", "cls_mean", "pooler")
HEADS = ("none", "linear", "mlp")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class LotlipAlignedConfig(PreTrainedConfig):
    r"""
    Configuration of a [`LotlipAlignedModel`].

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            The configuration of the text tower, a BERT by default.
        vision_config (`dict` or `PreTrainedConfig`, *optional*):
            The configuration of the image tower, a ViT by default.
        text_pooling (`str`, *optional*, defaults to `"mean"`):
            How the states of tokens become one vector: `"mean"`, `"cls"` (the first token), `"last"` (the last token
            that is no padding) or `"pooler"` (the tower's own `pooler_output`).
        image_pooling (`str`, *optional*, defaults to `"cls_mean"`):
            `"cls"`, `"mean"` (of the patches), `"cls_mean"` (both, one after the other) or `"pooler"`.
        num_image_prefix_tokens (`int`, *optional*, defaults to 1):
            The number of tokens before the patches: `[CLS]` and registers. 0: there is no `[CLS]`.
        text_layers (`list[dict]`, *optional*):
            Layers between pooling and head that belong to the text tower, as a Dense of the sentence-transformers
            library: `in_features`, `out_features`, `bias`, `activation`.
        image_layers (`list[dict]`, *optional*):
            The same of the image tower: the projection of a dual encoder.
        text_feature_dim (`int`, *optional*, defaults to 768):
            The number of dimensions of a text before the head.
        image_feature_dim (`int`, *optional*, defaults to 1536):
            The number of dimensions of an image before the head.
        text_head (`str`, *optional*, defaults to `"mlp"`):
            `"none"`, `"linear"`, or `"mlp"`: layer normalization, a linear layer, GELU, dropout, a linear layer.
        image_head (`str`, *optional*, defaults to `"mlp"`):
            The same for images.
        head_hidden_dim (`int`, *optional*, defaults to 512):
            The number of hidden dimensions of an `"mlp"`.
        head_dropout (`float`, *optional*, defaults to 0.3):
            Its dropout.
        projection_dim (`int`, *optional*, defaults to 256):
            The number of dimensions of an embedding.
        logit_scale_init_value (`float`, *optional*, defaults to 2.6592):
            The initial value of `logit_scale`.
        towers (`dict[str, dict]`, *optional*):
            Where the weights of `text_model` and `vision_model` are, each a `name`, a `revision` if it is on the Hub,
            and a `hash` of the weights: they are not saved with the model while they stay so. Default: they are.

    Example:

    ```python
    >>> from modeling_lotlip import LotlipAlignedConfig

    >>> LotlipAlignedConfig().text_config.model_type
    'bert'
    ```"""

    model_type = "lotlip_aligned"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit"),
    }

    text_config: PreTrainedConfig | dict | None = None
    vision_config: PreTrainedConfig | dict | None = None
    text_pooling: str = "mean"
    image_pooling: str = "cls_mean"
    num_image_prefix_tokens: int = 1
    text_layers: list[dict] | None = None
    image_layers: list[dict] | None = None
    text_feature_dim: int = 768
    image_feature_dim: int = 1536
    text_head: str = "mlp"
    image_head: str = "mlp"
    head_hidden_dim: int = 512
    head_dropout: float | int = 0.3
    projection_dim: int = 256
    logit_scale_init_value: float | int = 2.6592
    towers: dict[str, dict] | None = None


class Standardization(nn.Module):
    """
    Subtracts the mean of the features of the training data, and divides by their standard deviation.

    Args:
        dim (`int`): The number of dimensions of a feature.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns standardized features of shape `(rows, dim)`."""
        return (features - self.mean) / self.std


def make_head(kind: str, in_dim: int, hidden_dim: int, out_dim: int, dropout: float) -> nn.Module:
    """
    Returns a head for features.

    Args:
        kind (`str`): `"none"`, `"linear"` or `"mlp"`.
        in_dim (`int`): The number of dimensions of a feature.
        hidden_dim (`int`): The number of hidden dimensions of an `"mlp"`.
        out_dim (`int`): The number of dimensions of an embedding.
        dropout (`float`): The dropout of an `"mlp"`.

    Raises:
        `ValueError`: if there is no such head, or there is none and the dims differ.
    """
    if kind == "none":
        if in_dim != out_dim:
            raise ValueError(
                f"A side without head has embeddings of {in_dim} dimensions, but `projection_dim` is "
                f"{out_dim}: make them equal."
            )
        return nn.Identity()
    if kind == "linear":
        return nn.Sequential(Standardization(in_dim), nn.Linear(in_dim, out_dim))
    if kind == "mlp":
        return nn.Sequential(
            Standardization(in_dim),
            nn.LayerNorm(in_dim),
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, out_dim),
        )
    raise ValueError(f"`{kind}` is no head: name one of {', '.join(HEADS)}.")


def make_layers(layers: list[dict] | None) -> nn.Sequential:
    """Returns the layers of a tower after its pooling: see `text_layers` of [`LotlipAlignedConfig`]."""
    modules = []
    for layer in layers or []:
        modules.append(nn.Linear(layer["in_features"], layer["out_features"], bias=layer["bias"]))
        modules.append(ACT2FN[layer["activation"]])
    return nn.Sequential(*modules)


def pool_text(outputs: object, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """
    Returns features of texts of shape `(texts, dim)`.

    Args:
        outputs (`ModelOutput`): What the text tower returns.
        attention_mask (`torch.Tensor` of shape `(texts, length)`): 1 where there is a token, 0 at padding.
        pooling (`str`): One of `TEXT_POOLINGS`.

    Raises:
        `ValueError`: if there is no such pooling, or the tower has no pooler.
    """
    if pooling == "pooler":
        return get_pooler_output(outputs)
    hidden_states = outputs.last_hidden_state
    if pooling == "mean":
        mask = attention_mask[..., None].to(hidden_states.dtype)
        return (hidden_states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device) * attention_mask
    rows = torch.arange(hidden_states.shape[0], device=hidden_states.device)  # `len` is a constant in a traced graph
    if pooling == "cls":
        return hidden_states[rows, attention_mask.long().argmax(dim=1)]  # which torch has for no booleans
    if pooling == "last":
        return hidden_states[rows, positions.argmax(dim=1)]
    raise ValueError(f"`{pooling}` is no pooling of texts: name one of {', '.join(TEXT_POOLINGS)}.")


def pool_image(outputs: object, num_prefix_tokens: int, pooling: str) -> torch.Tensor:
    """
    Returns features of images of shape `(images, dim)`.

    Args:
        outputs (`ModelOutput`):
            What the image tower returns; its states are of shape `(images, tokens, dim)`, or of a convolutional
            network `(images, dim, height, width)`.
        num_prefix_tokens (`int`):
            The number of tokens before the patches: `[CLS]` and registers.
        pooling (`str`):
            One of `IMAGE_POOLINGS`.

    Raises:
        `ValueError`: if there is no such pooling, or the tower lacks what it is made of.
    """
    if pooling == "pooler":
        return get_pooler_output(outputs).flatten(1)
    hidden_states = outputs.last_hidden_state
    if hidden_states.dim() == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    if pooling in ("cls", "cls_mean") and num_prefix_tokens == 0:
        raise ValueError(f"The image tower has no [CLS]: `{pooling}` cannot be computed, take `mean` or `pooler`.")
    mean = hidden_states[:, num_prefix_tokens:].mean(dim=1)
    if pooling == "mean":
        return mean
    if pooling == "cls":
        return hidden_states[:, 0]
    if pooling == "cls_mean":
        return torch.cat([hidden_states[:, 0], mean], dim=-1)
    raise ValueError(f"`{pooling}` is no pooling of images: name one of {', '.join(IMAGE_POOLINGS)}.")


def get_pooler_output(outputs: object) -> torch.Tensor:
    """Returns the pooled output of a tower, of shape `(rows, dim)`. Raises a `ValueError` if it has none."""
    pooler_output = getattr(outputs, "pooler_output", None)
    if pooler_output is None:
        raise ValueError("The tower has no pooler: take another pooling than `pooler`.")
    return pooler_output


def hash_state(state_dict: dict[str, torch.Tensor]) -> str:
    """Returns a hash of weights, each of any shape `(...)`, by which a tower is known to be still the same."""
    weights = hashlib.blake2b(digest_size=20)
    for name in sorted(state_dict):
        tensor = state_dict[name].cpu().contiguous()
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def zero_missing(model: nn.Module, names: Iterable[str]) -> None:
    """
    Sets weights of a tower, each of any shape `(...)`, to zero that were missing where it was loaded, by their names:
    of a pooler that is not used, say. The library makes them at random, and so the tower another one each time.
    """
    state_dict = model.state_dict()
    for name in names:
        state_dict[name].zero_()


def find_unchanged(towers: dict[str, dict], state_dict: dict[str, torch.Tensor]) -> dict[str, dict] | None:
    """
    Returns those of `towers` (see [`LotlipAlignedConfig`]) whose weights in a model, each of any shape `(...)`, are
    still the same, or `None`.
    """
    unchanged = {}
    for part, tower in towers.items():
        prefix = f"{part}."
        weights = {name.removeprefix(prefix): state_dict[name] for name in state_dict if name.startswith(prefix)}
        if hash_state(weights) == tower["hash"]:
            unchanged[part] = tower
    return unchanged or None


def load_saved_weights(name: str | os.PathLike, options: dict[str, object]) -> dict[str, torch.Tensor]:
    """
    Returns the weights, each of any shape `(...)`, that were saved with a model, in one file or in several
    (`max_shard_size`). `options` are arguments of `from_pretrained`. Raises an `OSError` if there are none.
    """
    find = partial(cached_file, name, _raise_exceptions_for_missing_entries=False, **options)
    index = None
    if find(SAFE_WEIGHTS_NAME) is None:
        index = find(SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        return load_file(cached_file(name, SAFE_WEIGHTS_NAME, **options))
    state_dict = {}
    files, _ = get_checkpoint_shard_files(name, index, **options)
    for file in files:
        state_dict |= load_file(file)
    return state_dict


def load_referred_towers(
    towers: dict[str, dict], name: str | os.PathLike, options: dict[str, object]
) -> dict[str, torch.Tensor]:
    """
    Returns the weights, each of any shape `(...)`, of towers that were not saved with a model.

    Args:
        towers (`dict[str, dict]`): Where they are: see [`LotlipAlignedConfig`].
        name (`str` or `os.PathLike`): The model, for messages.
        options (`dict[str, object]`): Arguments of `from_pretrained`, such as `token`.

    Raises:
        `OSError`: if a tower cannot be loaded.
        `ValueError`: if its weights have changed.
    """
    state_dict = {}
    for part, tower in towers.items():
        try:
            loaded, report = AutoModel.from_pretrained(
                tower["name"],
                revision=tower["revision"],
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
        except OSError as error:
            raise OSError(
                f"{name} has the heads alone, and its `{part}`, {tower['name']}, cannot be loaded: "
                f"put that back, or align again with `--towers whole`. {error}"
            ) from error
        zero_missing(loaded, report["missing_keys"])
        weights = loaded.state_dict()
        if tower["revision"] is None and hash_state(weights) != tower["hash"]:
            raise ValueError(
                f"The heads of {name} were trained on other weights than {tower['name']} has now: "
                "put those back, or train the heads again."
            )
        for key, tensor in weights.items():
            state_dict[f"{part}.{key}"] = tensor
    return state_dict


def replace_pooler_output(outputs: object, pooler_output: torch.Tensor) -> BaseModelOutputWithPooling:
    """Returns the states of a tower with another pooled output, of shape `(rows, dim)`."""
    return BaseModelOutputWithPooling(
        last_hidden_state=outputs.last_hidden_state,
        pooler_output=pooler_output,
        hidden_states=getattr(outputs, "hidden_states", None),
        attentions=getattr(outputs, "attentions", None),
    )


class LotlipAlignedModel(PreTrainedModel):
    """
    A text tower and an image tower that were trained apart, joined by heads. Only the heads and `logit_scale` are
    trained, on embeddings of the towers that are computed once, after SAIL (Zhang et al., 2025,
    https://arxiv.org/abs/2412.04616).

    Args:
        config ([`LotlipAlignedConfig`]):
            The towers, and what joins them.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip import LotlipAlignedConfig, LotlipAlignedModel

    >>> one_layer = {"num_hidden_layers": 1}
    >>> config = LotlipAlignedConfig(
    ...     text_config={"model_type": "bert", **one_layer}, vision_config={"model_type": "vit", **one_layer}
    ... )
    >>> model = LotlipAlignedModel(config).eval()
    >>> with torch.inference_mode():
    ...     outputs = model(input_ids=torch.tensor([[101, 1037, 2417, 102]]), pixel_values=torch.randn(2, 3, 224, 224))
    >>> outputs.logits_per_image.shape
    torch.Size([2, 1])
    ```"""

    config: LotlipAlignedConfig
    base_model_prefix = "lotlip_aligned"
    input_modalities = ("image", "text")
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: LotlipAlignedConfig):
        super().__init__(config)
        self.text_model = AutoModel.from_config(config.text_config)
        self.vision_model = AutoModel.from_config(config.vision_config)
        self.text_layers = make_layers(config.text_layers)
        self.image_layers = make_layers(config.image_layers)
        sizes = {
            "hidden_dim": config.head_hidden_dim,
            "out_dim": config.projection_dim,
            "dropout": config.head_dropout,
        }
        self.text_head = make_head(config.text_head, config.text_feature_dim, **sizes)
        self.image_head = make_head(config.image_head, config.image_feature_dim, **sizes)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))

        # Initialize weights and apply final processing
        self.post_init()

    def _init_weights(self, module):
        """Initialize the weights"""
        super()._init_weights(module)
        if isinstance(module, Standardization):
            init.zeros_(module.mean)
            init.ones_(module.std)
        elif isinstance(module, LotlipAlignedModel) and hasattr(module, "logit_scale"):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)

    def post_init(self):
        """As in the library, but without what its towers ignore in weights where they are loaded alone."""
        super().post_init()
        self._keys_to_ignore_on_load_unexpected = set()

    def compute_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Returns the text tower's output, whose `pooler_output` is what the head reads, `(texts, feature_dim)`."""
        if attention_mask is None:
            if hasattr(self.text_model.config, "bos_token_id"):  # which the library's warning reads
                self.text_model.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
            attention_mask = torch.ones_like(input_ids)
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        features = self.text_layers(pool_text(outputs, attention_mask, self.config.text_pooling))
        return replace_pooler_output(outputs, features)

    def compute_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """Returns the image tower's output, whose `pooler_output` is what the head reads, `(images, feature_dim)`."""
        outputs = self.vision_model(pixel_values=pixel_values, **kwargs)
        pooled = pool_image(outputs, self.config.num_image_prefix_tokens, self.config.image_pooling)
        return replace_pooler_output(outputs, self.image_layers(pooled))

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> tuple | BaseModelOutputWithPooling:
        """Returns an output whose `pooler_output`, `(texts, projection_dim)`, is the embedding, not normalized."""
        outputs = self.compute_text_features(input_ids, attention_mask, **kwargs)
        outputs.pooler_output = self.text_head(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> tuple | BaseModelOutputWithPooling:
        """Returns an output whose `pooler_output`, `(images, projection_dim)`, is the embedding, not normalized."""
        outputs = self.compute_image_features(pixel_values, **kwargs)
        outputs.pooler_output = self.image_head(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> tuple | CLIPOutput:
        """
        Compares texts with images.

        Args:
            input_ids (`torch.Tensor` of shape `(texts, length)`): The tokens.
            pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`): The images.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*): 0 at padding.
            return_loss (`bool`, *optional*): Whether to compute the contrastive loss of CLIP.
        """
        text_outputs = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
        image_outputs = self.get_image_features(pixel_values, return_dict=True)
        text_embeds = normalize(text_outputs.pooler_output, dim=-1)
        image_embeds = normalize(image_outputs.pooler_output, dim=-1)
        logits_per_text = self.logit_scale.exp() * text_embeds @ image_embeds.to(text_embeds).t()
        loss = None
        if return_loss:
            targets = torch.arange(len(logits_per_text), device=logits_per_text.device)
            loss = 0.5 * cross_entropy(logits_per_text, targets) + 0.5 * cross_entropy(logits_per_text.t(), targets)
        return CLIPOutput(
            loss=loss,
            logits_per_image=logits_per_text.t(),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text_outputs,
            vision_model_output=image_outputs,
        )

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """
        As in transformers; and the code, so that it loads with `trust_remote_code=True` without the package. A tower
        that the configuration refers to is saved with the model if it was trained since.
        """
        code = f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"
        self.config.auto_map = {"AutoModel": code, "AutoModelForZeroShotImageClassification": code}
        if self.config.towers is not None:
            state_dict = kwargs.pop("state_dict", None) or self.state_dict()
            self.config.towers = find_unchanged(self.config.towers, state_dict)
            prefixes = tuple(f"{part}." for part in self.config.towers or {})
            kwargs["state_dict"] = {name: state_dict[name] for name in state_dict if not name.startswith(prefixes)}
        super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, **kwargs):
        """As in transformers; towers that were not saved with the model are loaded from where they are."""
        name = pretrained_model_name_or_path
        options = {option: kwargs[option] for option in HUB_OPTIONS if option in kwargs}
        if config is None:
            config = LotlipAlignedConfig.from_pretrained(name, **options)
        if config.towers is None or name is None:
            return super().from_pretrained(name, *args, config=config, **kwargs)
        state_dict = load_saved_weights(name, options)
        options.pop("revision", None)  # that of this model, not of its towers
        state_dict |= load_referred_towers(config.towers, name, options)
        model = super().from_pretrained(None, *args, config=config, state_dict=state_dict, **kwargs)
        part = model[0] if isinstance(model, tuple) else model
        part.name_or_path = str(name)
        part.config.name_or_path = str(name)
        return model


LotlipAlignedConfig.register_for_auto_class()
LotlipAlignedModel.register_for_auto_class()

__all__ = ["LotlipAlignedConfig", "LotlipAlignedModel"]
