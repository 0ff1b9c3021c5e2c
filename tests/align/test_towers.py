"""Towers of several libraries give the features that their libraries give."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Dropout, Normalize, Pooling, Transformer
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from modeling_lotlip import DualEncoder
from modeling_lotlip.align.towers import (
    count_prefix_tokens,
    join_towers,
    load_image_tower,
    load_text_tower,
    make_processor,
    refer_to,
)
from tests.helpers.dual_encoders import save_family


TEXTS = ["a red boat", "a photo of a boat of a boat"]


def save_sentence_transformer(path, text_folder, pooling_mode, *others):
    transformer = Transformer(text_folder, max_seq_length=16)
    pooling = Pooling(64, pooling_mode=pooling_mode)
    SentenceTransformer(modules=[transformer, pooling, *others], device="cpu").save(str(path))
    return str(path)


@pytest.mark.parametrize("pooling_mode", ["mean", "cls", "lasttoken"])
def test_a_sentence_transformer_keeps_its_embeddings(text_folder, image_tower, tmp_path, pooling_mode):
    dense = Dense(64, 24, activation_function=torch.nn.Tanh())
    path = save_sentence_transformer(tmp_path / "st", text_folder, pooling_mode, dense, Normalize())
    tower = load_text_tower(path)
    model = join_towers(tower, image_tower, 24, 128, text_head="none", projection_dim=24)
    model.save_pretrained(tmp_path / "model")
    make_processor(tower, image_tower).save_pretrained(tmp_path / "model")
    encoder = DualEncoder.from_pretrained(tmp_path / "model")
    expected = SentenceTransformer(path, device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected, atol=1e-6)
    assert encoder.max_length == 16


def test_another_module_is_refused_by_name(text_folder, tmp_path):
    path = save_sentence_transformer(tmp_path, text_folder, "mean", Dropout(0.1))
    with pytest.raises(ValueError, match="modules Transformer, Pooling, Dropout"):
        load_text_tower(path)


def test_another_pooling_is_refused_by_name(text_folder, tmp_path):
    path = save_sentence_transformer(tmp_path, text_folder, "max")
    with pytest.raises(ValueError, match="its pooling is max"):
        load_text_tower(path)


def test_a_text_encoder_needs_a_pooling(text_folder):
    with pytest.raises(ValueError, match="give --text_pooling mean, cls or last"):
        load_text_tower(text_folder)


def test_texts_are_no_longer_than_there_are_positions(text_folder):
    assert load_text_tower(text_folder, "mean").tokenizer.model_max_length == 512
    with pytest.raises(ValueError, match="`--max_length 513` is beyond the 512 tokens"):
        load_text_tower(text_folder, "mean", max_length=513)


def test_towers_of_a_dual_encoder_keep_its_space(tmp_path):
    save_family("clip", tmp_path)
    clip = DualEncoder.from_pretrained(tmp_path)
    text_tower = load_text_tower(str(tmp_path))
    image_tower = load_image_tower(str(tmp_path))
    model = join_towers(text_tower, image_tower, 24, 24, text_head="none", image_head="none", projection_dim=24)
    encoder = DualEncoder(model, make_processor(text_tower, image_tower))
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(encoder.encode_image(image), clip.encode_image(image), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), clip.encode_text(TEXTS), atol=1e-6)


def test_a_part_of_a_dual_encoder_is_no_tower_to_refer_to(text_tower, tmp_path):
    save_family("clip", tmp_path)
    with pytest.raises(ValueError, match="`--towers reference` cannot refer to"):
        refer_to(text_tower, load_image_tower(str(tmp_path)))


def test_registers_are_no_patches():
    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, num_register_tokens=4
    )
    assert count_prefix_tokens(Dinov2WithRegistersModel(config)) == 5


def test_a_missing_tower_is_named():
    with pytest.raises(ValueError, match="`--vision_model_name_or_path nowhere` cannot be used"):
        load_image_tower("nowhere")


def test_no_folder_of_this_machine_is_saved(text_tower, image_tower, text_folder):
    model = join_towers(text_tower, image_tower, 64, 128)
    assert text_folder not in str(model.config.to_dict())
