"""Small random towers of other models, saved with what they read."""

from pathlib import Path

from transformers import BertConfig, BertModel, BertTokenizer, ViTConfig, ViTImageProcessor, ViTModel

from tests.conftest import SPECIAL_TOKENS


SMALL = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
WORDS = [*SPECIAL_TOKENS, "a", "photo", "of", "red", "boat"]


def save_vit(folder: Path, image_processor: ViTImageProcessor | None = None) -> str:
    ViTModel(ViTConfig(image_size=32, patch_size=16, intermediate_size=64, **SMALL)).save_pretrained(folder)
    if image_processor is not None:
        image_processor.save_pretrained(folder)
    return str(folder)


def save_bert(folder: Path, words: list[str], vocab_size: int) -> str:
    BertModel(BertConfig(vocab_size=vocab_size, intermediate_size=64, **SMALL)).save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    return str(folder)
