"""Small random captioners of real architectures, saved with their real processors; what tests of captions share."""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import sentencepiece
import torch
from pyarrow import parquet
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertTokenizer,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPVisionModel,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)


SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "<pad>",
    "<image>",
    "<row_1_col_1>",
    "<global-img>",
    "<fake_token_around_image>",
    "<end_of_utterance>",
]
WORDS = "a the red green blue boat car house tree . lies on sand by sea left right small large of is and".split()
WORDS += "Describe what USER: ASSISTANT: [INST] [/INST] you see here in long".split()
VOCAB = {word: index for index, word in enumerate(SPECIAL + WORDS)}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
}
VISION = {**TOWER, "image_size": 28, "patch_size": 14}
TEXT = {**TOWER, "vocab_size": len(VOCAB), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
CROP = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
LLAVA_PROCESSING = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
CHAT = (
    "{% for message in messages %}USER: {% for part in message.content %}{% if part.type == 'image' %}<image> "
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel(VOCAB, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[4:],
    )


def save_llava(folder: Path) -> None:
    config = LlavaConfig(
        vision_config={**VISION, "model_type": "clip_vision_model"},
        text_config={**TEXT, "model_type": "llama"},
        image_token_index=VOCAB["<image>"],
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    image_processor = LlavaImageProcessor(**CROP)
    processor = LlavaProcessor(image_processor, build_tokenizer(), chat_template=CHAT, **LLAVA_PROCESSING)
    processor.save_pretrained(folder)


def save_llava_next(folder: Path) -> None:
    grid = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        vision_config={**VISION, "model_type": "clip_vision_model"},
        text_config={**TEXT, "model_type": "mistral", "num_key_value_heads": 2},
        image_token_index=VOCAB["<image>"],
        image_grid_pinpoints=grid,
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    image_processor = LlavaNextImageProcessor(**CROP, image_grid_pinpoints=grid)
    processor = LlavaNextProcessor(image_processor, build_tokenizer(), chat_template=CHAT, **LLAVA_PROCESSING)
    processor.save_pretrained(folder)


def save_instructblip(folder: Path, text_config: dict) -> None:
    qformer = {**TEXT, "encoder_hidden_size": 16, "vocab_size": 40, "pad_token_id": 0}
    config = InstructBlipConfig(
        vision_config=VISION,
        qformer_config=qformer,
        text_config={**TEXT, **text_config},
        num_query_tokens=4,
        image_token_index=VOCAB["<image>"],
    )
    InstructBlipForConditionalGeneration(config).save_pretrained(folder)
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] describe what is in the long red".split()
    InstructBlipProcessor(
        BlipImageProcessor(size={"height": 28, "width": 28}),
        build_tokenizer(),
        BertTokenizer(vocab={word: index for index, word in enumerate(words)}),
        num_query_tokens=4,
    ).save_pretrained(folder)


T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
T5 |= {"initializer_factor": 5.0, "decoder_start_token_id": 3}


def save_qwen2_vl(folder: Path) -> None:
    tokenizer = build_tokenizer()
    tokens = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer.add_tokens(tokens, special_tokens=True)
    image, video, start, end = tokenizer.convert_tokens_to_ids(tokens)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = Qwen2VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "rope_parameters": rope,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": 16,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "initializer_range": 0.5,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    image_processor = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=4 * 28 * 28)
    chat_template = CHAT.replace("<image> ", "<|vision_start|><|image_pad|><|vision_end|>")
    video_processor = Qwen2VLVideoProcessor()
    processor = Qwen2VLProcessor(image_processor, tokenizer, video_processor, chat_template=chat_template)
    processor.save_pretrained(folder)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "llava": save_llava,
    "llava_next": save_llava_next,
    "instructblip": partial(save_instructblip, text_config={"model_type": "llama"}),
    "instructblip_t5": partial(save_instructblip, text_config=T5),
    "qwen2_vl": save_qwen2_vl,
}


def save_captioner(family: str, folder: Path, seed: int = 0) -> str:
    """Saves one whose answers of the most tokens end with the end token, except where its language model generates."""
    torch.manual_seed(seed)
    FAMILIES[family](folder)
    generation_config = GenerationConfig.from_pretrained(folder)
    generation_config.forced_eos_token_id = TEXT["eos_token_id"]
    generation_config.save_pretrained(folder)
    return str(folder)


# The configuration of ShareGPT4V-7B: what it has of its language model, and what else
KEPT_OF_LLAMA = [
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "rms_norm_eps",
    "hidden_act",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
]
SHARE4V = {
    "architectures": ["Share4VLlamaForCausalLM"],
    "model_type": "share4v",
    "torch_dtype": "float32",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "tower",
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "pad",
    "rope_scaling": None,
    "tie_word_embeddings": False,
}


def save_original_llava(folder: Path, has_vision_weights: bool) -> LlavaForConditionalGeneration:
    """A model in the layout of ShareGPT4V-7B, with its vision tower in a folder of its own; returns transformers'."""
    texts = folder / "texts.txt"
    tower = folder / "tower"
    tower.mkdir(parents=True)
    texts.write_text("\n".join(" ".join(WORDS[start:] + WORDS[:start]) for start in range(len(WORDS))))
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=120,
        byte_fallback=False,
        minloglevel=2,
    )
    texts.unlink()
    tokenizer_config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "pad_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))

    torch.manual_seed(0)
    text = LlamaConfig(**TEXT | {"vocab_size": 120, "pad_token_id": 0})
    config = LlavaConfig(
        vision_config={**VISION, "model_type": "clip_vision_model"},
        text_config={**text.to_dict(), "vocab_size": 121},
        image_token_index=120,
    )
    model = LlavaForConditionalGeneration(config)
    CLIPVisionModel._from_config(model.config.vision_config).save_pretrained(tower)
    CLIPImageProcessor(**CROP).save_pretrained(tower)
    if not has_vision_weights:
        model.model.vision_tower.save_pretrained(tower)

    weights = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        name = name.replace("multi_modal_projector.linear_1", "mm_projector.0")
        name = name.replace("multi_modal_projector.linear_2", "mm_projector.2")
        name = name.replace("language_model.", "")
        if "embed_tokens" in name or "lm_head" in name:
            tensor = tensor[:120].clone()
        if has_vision_weights or "vision_tower" not in name:
            weights[name] = tensor
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    weights["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)
    halves = [dict(list(weights.items())[start::2]) for start in (0, 1)]
    weight_map = {}
    for number, half in enumerate(halves, start=1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save(half, folder / file)
        weight_map |= dict.fromkeys(half, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    original = {name: getattr(text, name) for name in KEPT_OF_LLAMA}
    (folder / "config.json").write_text(json.dumps({**original, **SHARE4V}))
    return model


def make_arguments(types: tuple[type, ...], **options: object) -> list:
    """An object of each dataclass of arguments, with those options that it has a field for."""
    objects = []
    unknown = set(options)
    for arguments in types:
        names = {field.name for field in fields(arguments)}
        objects.append(arguments(**{name: value for name, value in options.items() if name in names}))
        unknown -= names
    assert not unknown, unknown
    return objects


def list_shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("captions-*.parquet"))


def read_records(folder: Path) -> list[dict]:
    rows = []
    for path in list_shards(folder):
        rows += parquet.read_table(path).to_pylist()
    return rows


def of_folder(folder: Path) -> dict:
    """The options that name the pictures of a folder."""
    return {"dataset_name": "imagefolder", "data_dir": str(folder)}


def hash_photos(folder: Path) -> dict[str, str]:
    """The SHA-256 of files by their keys."""
    digests = {}
    for path in folder.rglob("*.*"):
        digests[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def stop_later(folder: Path) -> None:
    """Sends this process SIGTERM when two more shards are there."""
    num_shards = len(list_shards(folder))

    def wait_and_stop():
        while len(list_shards(folder)) < num_shards + 2:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_and_stop, daemon=True).start()
