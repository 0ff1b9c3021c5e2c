# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
ShareGPT4V (Chen et al., 2023, https://arxiv.org/abs/2311.12793) and other models in the layout of the original LLaVA
1.5 code, as transformers' LLaVA.
"""

import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import (
    AddedToken,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaProcessor,
)

from ..weights_lotlip import check_tensors, convert_names


IMAGE_TOKEN = "<image>"
# Parts of transformers' names and of the original ones, replaced in this order.
LLAVA_NAMES = [
    ("model.language_model.", "model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
]
VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
# Buffers that older versions of transformers saved, and that are computed anew.
COMPUTED = (".rotary_emb.inv_freq", ".position_ids")
SELECT_STRATEGIES = {"patch": "default", "cls_patch": "full"}


def is_original_llava(config: dict) -> bool:
    """Whether a `config.json` is of the original layout, which names its vision tower."""
    return "mm_vision_tower" in config


def find_folder(name: str, revision: str | None) -> Path:
    """A folder, or that of a model on the Hub once downloaded."""
    if Path(name).is_dir():
        return Path(name)
    return Path(
        snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.model", "*.safetensors", "*.bin"])
    )


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """
    All tensors of a checkpoint, in safetensors files where there are any.

    Raises:
        `ValueError`: if there is none, or its index names a file that is not there.
    """
    for pattern, read in (("model*.safetensors", load_file), ("pytorch_model*.bin", load_bin)):
        paths = sorted(folder.glob(pattern))
        for index in folder.glob(f"{pattern}.index.json"):
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            missing = named - {path.name for path in paths}
            if missing:
                raise ValueError(f"{index} names files that are not in the folder: {sorted(missing)}.")
        if paths:
            return {name: tensor for path in paths for name, tensor in read(path).items()}
    raise ValueError(f"{folder} holds neither model*.safetensors nor pytorch_model*.bin.")


def load_bin(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of PyTorch, left on the disk until they are used."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def make_config(original: dict, vision_config: CLIPVisionConfig) -> LlavaConfig:
    """
    transformers' configuration of a model in the original layout.

    Raises:
        `ValueError`: if it has parts that transformers' LLaVA has not.
    """
    architectures = original.get("architectures", [])
    if not all("Llama" in architecture for architecture in architectures):
        raise ValueError(f"The model's config.json has architectures = {architectures}; supported are those of Llama.")
    expected = {"mm_projector_type": ("mlp2x_gelu",), "mm_use_im_start_end": (False,)}
    expected["mm_vision_select_feature"] = tuple(SELECT_STRATEGIES)
    defaults = {"mm_projector_type": "linear", "mm_use_im_start_end": False, "mm_vision_select_feature": "patch"}
    settings = {name: original.get(name, default) for name, default in defaults.items()}
    for name, value in settings.items():
        if value not in expected[name]:
            raise ValueError(f"The model's config.json has {name} = {value!r}; supported is {expected[name]}.")
    known = {"rope_theta", *LlamaConfig().to_dict()} | ({"rope_scaling"} if original.get("rope_scaling") else set())
    left_out = {"model_type", "architectures", "transformers_version", "torch_dtype", "dtype"}
    text = {name: value for name, value in original.items() if name in known - left_out}
    return LlavaConfig(
        vision_config=vision_config,
        text_config=LlamaConfig(**text),
        vision_feature_layer=original["mm_vision_select_layer"],
        vision_feature_select_strategy=SELECT_STRATEGIES[settings["mm_vision_select_feature"]],
        image_seq_length=(vision_config.image_size // vision_config.patch_size) ** 2,
        tie_word_embeddings=original.get("tie_word_embeddings", False),
    )


def load_original_llava(
    name: str, revision: str | None = None, dtype: torch.dtype | None = None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """
    Loads a model in the layout of the original LLaVA 1.5 code, such as `Lin-Chen/ShareGPT4V-7B`. The weights of its
    vision tower come from the checkpoint if it has them, else from the model that `mm_vision_tower` names.

    Args:
        name (`str`):
            A folder or a Hub id.
        revision (`str`, *optional*):
            Of the model on the Hub.
        dtype (`torch.dtype`, *optional*):
            Of the loaded model; by default that of the checkpoint.

    Returns:
        `tuple[LlavaForConditionalGeneration, LlavaProcessor]`

    Raises:
        `ValueError`: if the configuration has parts that transformers' LLaVA has not, or a tensor is missing, surplus
        or of another shape.
    """
    folder = find_folder(name, revision)
    original = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tower_name = original["mm_vision_tower"]
    if (folder / tower_name).is_dir():
        tower_name = str(folder / tower_name)
    config = make_config(original, CLIPVisionConfig.from_pretrained(tower_name))

    weights = {name: tensor for name, tensor in read_weights(folder).items() if not name.endswith(COMPUTED)}
    if not any(name.startswith(VISION_PREFIX) for name in weights):
        tower = CLIPVisionModel.from_pretrained(tower_name)
        weights |= {f"{VISION_PREFIX}{name}": tensor for name, tensor in tower.state_dict().items()}
    with torch.device("meta"):
        skeleton = LlavaForConditionalGeneration(config)
    weights = convert_names(weights, skeleton, LLAVA_NAMES, name)
    dtype = dtype or weights["lm_head.weight"].dtype
    model = LlavaForConditionalGeneration.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    check_tensors(model.state_dict(), weights, f"The weights of {name} were not all loaded.")

    tokenizer = LlamaTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_token_id >= config.text_config.vocab_size:
        model.resize_token_embeddings(image_token_id + 1, mean_resizing=False)
    model.config.image_token_id = image_token_id
    model.generation_config.suppress_tokens = [image_token_id]  # the original has no such word
    image_processor = LlavaImageProcessor.from_pretrained(
        tower_name, do_pad=original.get("image_aspect_ratio") == "pad"
    )
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # [CLS]
    )
    return model, processor
