# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
ShareGPT4V (Chen et al., 2023, https://arxiv.org/abs/2311.12793) and other models in the layout of the original LLaVA
1.5 code, as transformers' LLaVA.
"""

from pathlib import Path

import torch
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


IMAGE_TOKEN = "<image>"
# Patterns of the original names, and transformers' for them
LLAVA_NAMES = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.(layers|embed_tokens|norm)\.": r"model.language_model.\1.",
}
VISION_PREFIX = "model.vision_tower."
COMPUTED = (".rotary_emb.inv_freq", ".position_ids")
SELECT_STRATEGIES = {"patch": "default", "cls_patch": "full"}
CHAT_TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:{% endfor %}"
)


def is_original_llava(config: dict) -> bool:
    """Says whether a `config.json` is of the original layout, which names its vision tower."""
    return "mm_vision_tower" in config


def make_config(original: dict, vision_config: CLIPVisionConfig) -> LlavaConfig:
    """
    Makes transformers' configuration of an original one.

    Args:
        original (`dict`):
            The original `config.json`.
        vision_config (`CLIPVisionConfig`):
            Of its vision tower.

    Returns:
        `LlavaConfig`: the configuration.

    Raises:
        `ValueError`: if the original one has parts that transformers' cannot express.
    """
    architectures = original.get("architectures", [])
    if not all("Llama" in architecture for architecture in architectures):
        raise ValueError(f"The model's config.json has architectures = {architectures}; supported are those of Llama.")
    select_feature = original.get("mm_vision_select_feature", "patch")
    for name, value, supported in (
        ("mm_projector_type", original.get("mm_projector_type", "linear"), ("mlp2x_gelu",)),
        ("mm_use_im_start_end", original.get("mm_use_im_start_end", False), (False,)),
        ("mm_vision_select_feature", select_feature, tuple(SELECT_STRATEGIES)),
    ):
        if value not in supported:
            raise ValueError(f"The model's config.json has {name} = {value!r}; supported is {supported}.")
    names = {"rope_theta", *LlamaConfig().to_dict()}
    if original.get("rope_scaling"):
        names.add("rope_scaling")
    names -= {"model_type", "architectures", "transformers_version", "torch_dtype", "dtype"}
    text = {name: value for name, value in original.items() if name in names}
    return LlavaConfig(
        vision_config=vision_config,
        text_config=LlamaConfig(**text),
        vision_feature_layer=original["mm_vision_select_layer"],
        vision_feature_select_strategy=SELECT_STRATEGIES[select_feature],
        image_seq_length=(vision_config.image_size // vision_config.patch_size) ** 2,
        tie_word_embeddings=original.get("tie_word_embeddings", False),
    )


def load_original_llava(
    name: str, original: dict, revision: str | None = None, dtype: torch.dtype | str = "auto"
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """
    Loads a model in the layout of the original LLaVA 1.5 code, such as `Lin-Chen/ShareGPT4V-7B`. The weights of its
    vision tower come from the checkpoint if it has them, else from the model that `mm_vision_tower` names.

    Args:
        name (`str`):
            A Hub id or a folder.
        original (`dict`):
            Its `config.json`.
        revision (`str`, *optional*):
            Of the model on the Hub.
        dtype (`torch.dtype` or `str`, *optional*, defaults to `"auto"`):
            Of the weights; by default that of the checkpoint.

    Returns:
        `tuple[LlavaForConditionalGeneration, LlavaProcessor]`: the model and its processor.

    Raises:
        `ValueError`: if the configuration has parts that transformers' LLaVA has not, or a tensor is missing, surplus
        or of another shape.
    """
    tower_name = original["mm_vision_tower"]
    if (Path(name) / tower_name).is_dir():
        tower_name = str(Path(name) / tower_name)
    config = make_config(original, CLIPVisionConfig.from_pretrained(tower_name))
    options = {"config": config, "dtype": dtype, "revision": revision, "key_mapping": LLAVA_NAMES}
    model, loaded = LlavaForConditionalGeneration.from_pretrained(
        name, **options, ignore_mismatched_sizes=True, output_loading_info=True
    )
    vision = {key for key in model.state_dict() if key.startswith(VISION_PREFIX)}
    if vision <= loaded["missing_keys"]:
        model.model.vision_tower.load_state_dict(CLIPVisionModel.from_pretrained(tower_name).state_dict())
        loaded["missing_keys"] -= vision
    # older versions of transformers saved buffers that are computed anew
    loaded["unexpected_keys"] = [key for key in loaded["unexpected_keys"] if not key.endswith(COMPUTED)]
    misfits = {name: sorted(keys) for name, keys in loaded.items() if keys}
    if misfits:
        raise ValueError(f"The weights of {name} do not fit its config.json: {misfits}.")

    tokenizer = LlamaTokenizer.from_pretrained(name, revision=revision)
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
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor
