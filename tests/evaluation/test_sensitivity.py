"""What of a text embeddings use: on models and texts whose answer is known."""

import pytest
import torch
from torch import nn

from modeling_lotlip.embedding.batches import embed_corpus
from modeling_lotlip.embedding.features import get_padding
from modeling_lotlip.embedding.models import text_limit
from modeling_lotlip.evaluation.retrieval import EmbeddedCaptions, EmbeddedDataset
from modeling_lotlip.evaluation.sensitivity import (
    LongTexts,
    embed_first_tokens,
    measure_changes,
    select_first_long_captions,
)
from tests.helpers.dual_encoders import build_clip, build_siglip


def test_a_model_without_positions_is_blind_to_the_order(loaded):
    model, processor = loaded
    model.text_model.embeddings.position_embeddings.weight.zero_()
    colours = ("red", "green", "blue", "yellow")
    parts = [["a red boat", "the ground is sand", f"a {colour} house"] for colour in colours]
    texts = LongTexts(parts, nn.functional.normalize(torch.randn(4, 32), dim=-1))
    rows = {row["change"]: row for row in measure_changes(model, processor, texts, seed=0)}
    permuted, dropped = rows["sentences permuted"], rows["first sentence dropped"]
    assert (
        permuted["similarity"] == pytest.approx(1)
        and permuted["before_t2i_recall@1"] == permuted["after_t2i_recall@1"]
    )
    assert permuted["prefers_original"] == 50
    assert dropped["similarity"] < 0.999 and rows["one colour swapped"]["num_texts"] == 4


def test_tokens_beyond_the_number_kept_do_not_count(loaded):
    model, processor = loaded
    texts = ["a red boat the ground is sand", "a red boat the ground is sea"]
    kept = embed_first_tokens(model, processor, texts, 8)
    assert torch.allclose(kept[0], kept[1], atol=1e-6)
    whole = embed_first_tokens(model, processor, texts, 9)
    assert not torch.allclose(whole[0], whole[1], atol=1e-6)
    assert get_padding(processor) != "max_length"


@pytest.mark.parametrize("build", [build_clip, build_siglip])
def test_texts_of_other_dual_encoders(build, tmp_path):
    torch.manual_seed(0)
    model, processor = build(tmp_path)
    model.eval()
    processor.tokenizer.model_max_length = text_limit(model, processor)
    texts = ["a red boat. the ground is sand", "a red boat. a tree"]
    whole = embed_first_tokens(model, processor, texts, processor.tokenizer.model_max_length)
    assert torch.allclose(whole, embed_corpus(model, processor, texts), atol=1e-5)
    cut = embed_first_tokens(model, processor, texts, 4)
    assert torch.allclose(cut[0], cut[1], atol=1e-5) and not torch.allclose(cut[0], whole[0], atol=1e-4)


def test_every_image_counts_with_its_first_long_caption():
    images = nn.functional.normalize(torch.randn(4, 8), dim=-1)
    captions = EmbeddedCaptions(["A. B", "other", "C", "D. E"], torch.tensor([3, 3, 0, 2]), torch.zeros(4, 8), 0)
    texts = select_first_long_captions(EmbeddedDataset(images, {"long": captions}, [], 0))
    assert texts.sub_captions == [["C"], ["D", "E"], ["A", "B"]]
    assert torch.equal(texts.image_embeds, images[[0, 2, 3]])
    with pytest.raises(ValueError, match="0 images have a long caption"):
        select_first_long_captions(EmbeddedDataset(images, {}, [], 0))
