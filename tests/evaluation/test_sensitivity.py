"""What of a text embeddings use, and the changes of texts by which it is measured."""

import random
import re

import pytest
import torch
from torch import nn

from modeling_lotlip.data.scenes import COLORS
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.evaluation.retrieval import EmbeddedCaptions, EmbeddedDataset
from modeling_lotlip.evaluation.sensitivity import (
    LongTexts,
    compare_embeddings,
    embed_first_tokens,
    format_sensitivity,
    measure_changes,
    measure_lengths,
    select_first_long_captions,
)
from modeling_lotlip.evaluation.text_changes import (
    drop_another,
    drop_first,
    exchange_sentence,
    list_changes,
    list_details,
    negate,
    permute,
    swap_word,
)
from modeling_lotlip.utils.sub_captions import mark_sub_captions
from tests.helpers.methods import PooledModel, make_like


def test_a_model_without_positions_is_blind_to_the_order(loaded):
    model, processor = loaded
    model.text_model.embeddings.position_embeddings.weight.zero_()
    colors = ("red", "green", "blue", "yellow")
    parts = [["a red boat", "the ground is sand", f"a {color} house"] for color in colors]
    texts = LongTexts(parts, nn.functional.normalize(torch.randn(4, 32), dim=-1))
    rows = {row["change"]: row for row in measure_changes(DualEncoder(model, processor), texts, seed=0)}
    permuted = rows["sentences permuted"]
    dropped = rows["first sentence dropped"]
    assert permuted["similarity"] == pytest.approx(1)
    assert permuted["before_t2i_recall@1"] == permuted["after_t2i_recall@1"]
    assert permuted["prefers_original"] == 50
    assert dropped["similarity"] < 0.999
    assert rows["one color swapped"]["num_texts"] == 4


def test_tokens_beyond_the_number_kept_do_not_count(loaded):
    encoder = DualEncoder(*loaded)
    texts = ["a red boat the ground is sand", "a red boat the ground is sea"]
    kept = embed_first_tokens(encoder, texts, 8)
    assert torch.allclose(kept[0], kept[1], atol=1e-6)
    whole = embed_first_tokens(encoder, texts, 9)
    assert not torch.allclose(whole[0], whole[1], atol=1e-6)
    assert encoder.preprocessing.padding != "max_length"


def test_long_captions_are_embedded_as_such(loaded):
    model, processor = loaded
    encoder = DualEncoder(make_like(model, PooledModel), processor)
    texts = LongTexts(
        sub_captions=[["a red boat", "the ground is sand"], ["a green tree", "the sea"]],
        image_embeds=nn.functional.normalize(torch.randn(2, encoder.dim), dim=-1),
    )
    whole = embed_first_tokens(encoder, texts.texts, encoder.max_length)
    expected = encoder.encode_text(texts.texts, convert_to_tensor=True, is_long=True)
    assert torch.allclose(whole, expected, atol=1e-6)
    rows = {row["change"]: row for row in measure_changes(encoder, texts, seed=0)}
    similarity = rows["first sentence dropped"]["similarity"]
    after = encoder.encode_text(["the ground is sand", "the sea"], convert_to_tensor=True, is_long=True)
    assert similarity == pytest.approx((expected * after).sum(dim=1).mean().item(), abs=1e-6)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_texts_of_other_dual_encoders(family, family_folders):
    encoder = load_encoder(str(family_folders(family)), LoadingArguments(device="cpu"))
    texts = ["a red boat. the ground is sand", "a red boat. a tree"]
    whole = embed_first_tokens(encoder, texts, encoder.max_length)
    assert torch.allclose(whole, encoder.encode_text(texts, convert_to_tensor=True), atol=1e-5)
    cut = embed_first_tokens(encoder, texts, 4)
    assert torch.allclose(cut[0], cut[1], atol=1e-5)
    assert not torch.allclose(cut[0], whole[0], atol=1e-4)


def test_every_image_counts_with_its_first_long_caption():
    images = nn.functional.normalize(torch.randn(4, 8), dim=-1)
    captions = EmbeddedCaptions(["A. B", "other", "C", "D. E"], torch.tensor([3, 3, 0, 2]), torch.zeros(4, 8), 0)
    texts = select_first_long_captions(EmbeddedDataset(images, {"long": captions}, [], 0))
    assert texts.sub_captions == [["C"], ["D", "E"], ["A", "B"]]
    assert torch.equal(texts.image_embeds, images[[0, 2, 3]])
    with pytest.raises(ValueError, match="0 images have a long caption"):
        select_first_long_captions(EmbeddedDataset(images, {}, [], 0))


def test_sub_captions_are_those_that_the_captions_were_marked_with():
    """Found once more they would be others: the quotation marks are open from the first to the last of them."""
    quotation = "“A red boat is here.\nThe sea has a wave.\nThe sky is gray.”"
    marked = [mark_sub_captions(quotation, splitter="sentences"), "A house. A tree"]
    captions = EmbeddedCaptions(marked, torch.tensor([0, 1]), torch.zeros(2, 8), 0)
    texts = select_first_long_captions(EmbeddedDataset(torch.zeros(2, 8), {"long": captions}, [], 0))
    assert texts.texts == marked
    assert [len(sub_captions) for sub_captions in texts.sub_captions] == [3, 2]


PARTS = ["A red boat is here", "The sea has a wave", "Sky"]


@pytest.mark.parametrize("seed", range(5))
def test_permuted_sub_captions_are_the_same_in_another_order(seed):
    permuted = permute(PARTS, random.Random(seed))
    assert sorted(permuted) == sorted(PARTS)
    assert permuted != PARTS


@pytest.mark.parametrize("seed", range(5))
def test_another_sub_caption_than_the_first_one_is_dropped(seed):
    kept = drop_another(PARTS, random.Random(seed))
    assert kept in ([PARTS[0], PARTS[1]], [PARTS[0], PARTS[2]])


def test_the_first_sub_caption_is_dropped():
    assert drop_first(PARTS, random.Random(0)) == PARTS[1:]


@pytest.mark.parametrize("seed", range(5))
def test_one_verb_is_negated(seed):
    negated = negate(PARTS, random.Random(seed))
    assert negated in (["A red boat is not here", *PARTS[1:]], [PARTS[0], "The sea has no wave", "Sky"])


@pytest.mark.parametrize("seed", range(5))
def test_a_word_is_swapped_for_another_one_of_its_list(seed):
    swapped = swap_word(PARTS, random.Random(seed), [list(COLORS)])
    assert swapped[1:] == PARTS[1:]
    assert re.fullmatch(r"A (?!red)\w+ boat is here", swapped[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda generator: permute(["A", "A"], generator),
        lambda generator: swap_word(["A red boat"], generator, [["red"]]),
        lambda generator: swap_word(["A red boat"], generator, []),
        lambda generator: drop_first(["A"], generator),
    ],
    ids=["equal sub-captions", "no other word", "no list of words", "a single sub-caption"],
)
def test_a_text_that_cannot_be_changed_gives_none(change):
    assert change(random.Random(0)) is None


@pytest.mark.parametrize(
    "negated", ["It is not red", "There are no sails", "It isn't red", "It can\u2019t sail", "A boat without a mast"]
)
def test_what_is_negated_is_not_negated_again(negated):
    """It would be true again, or no English."""
    for seed in range(5):
        assert negate([negated], random.Random(seed)) is None
        assert negate([negated, "It is small"], random.Random(seed)) == [negated, "It is not small"]


def test_a_color_is_swapped_for_one_that_the_texts_name():
    texts = [["A red boat"], ["A Mauve car", "Green grass"]]
    changes = list_changes(texts)
    assert len(changes) == 9
    assert list(changes)[-5:] == list(list_details())
    for seed in range(5):
        assert changes["one color swapped"](texts[0], random.Random(seed)) == ["A green boat"]


def test_a_word_is_swapped_for_one_of_its_family():
    """A word of several families for one of any; the case, and longer words, do not matter."""
    families = [["small", "large"], ["small", "big"], ["left", "right"]]
    swapped = {swap_word(["The Small, leftmost boat"], random.Random(seed), families)[0] for seed in range(20)}
    assert swapped == {"The large, leftmost boat", "The big, leftmost boat"}
    both = {swap_word(["left", "a large"], random.Random(seed), families)[0] for seed in range(20)}
    assert both == {"left", "right"}, "each word that can be swapped is drawn"


def test_details_become_false():
    """Nothing but the detail changes, and the two spellings of a color are no two colors."""
    texts = [["A grey boat with two sails on the left", "It is small"], ["Gray sea"], ["A red star"]]
    details = list_changes(texts)
    found = {}
    for name in list_details():
        change = details[name]
        found[name] = {tuple(change(texts[0], random.Random(seed))) for seed in range(40)}
    first, second = texts[0]
    assert found["one color swapped"] == {(first.replace("grey", "red"), second)}
    assert found["one place swapped"] == {(first.replace("left", "right"), second)}
    assert found["one relation or size swapped"] == {(first, "It is large"), (first, "It is big")}
    assert len(found["one number swapped"]) == 10
    assert all("two" not in text for text, _ in found["one number swapped"])
    others = ("Gray sea", "A red star")
    expected = {(other, second) for other in others} | {(first, other) for other in others}
    assert found["one sentence of another text"] == expected
    color = {details["one color swapped"](texts[1], random.Random(seed))[0] for seed in range(20)}
    assert color == {"red sea"}
    assert exchange_sentence(["A"], random.Random(0), ["A"]) is None
    without = [details[name](["Waves"], random.Random(0)) for name in list_details()]
    assert without[:4] == [None] * 4
    assert without[4] is not None


@pytest.mark.parametrize("num_images", [1, 2])
def test_a_retrieval_takes_two_images(num_images):
    captions = EmbeddedCaptions(["A", "B"], torch.tensor([0, num_images - 1]), torch.zeros(2, 8), 0)
    embedded = EmbeddedDataset(torch.zeros(2, 8), {"long": captions}, [], 0)
    if num_images == 2:
        assert len(select_first_long_captions(embedded).texts) == 2
    else:
        with pytest.raises(ValueError, match="1 images have a long caption: retrieval takes"):
            select_first_long_captions(embedded)


def test_lengths_are_measured_once_each_up_to_the_limit(loaded):
    encoder = DualEncoder(*loaded)
    images = nn.functional.normalize(torch.randn(2, 32), dim=-1)
    texts = LongTexts([["a red boat", "sea"], ["a green car"]], images)
    rows = measure_lengths(encoder, texts, [1000, 4, encoder.max_length, 4])
    assert [row["num_tokens"] for row in rows] == [4, encoder.max_length]


@pytest.mark.parametrize(("num_possible", "is_measured"), [(1, False), (2, True)])
def test_a_change_is_measured_where_two_texts_can_be_changed(loaded, caplog, num_possible, is_measured):
    parts = [["a red boat", "the sea"]] * num_possible + [["a green car"]] * 2
    images = nn.functional.normalize(torch.randn(len(parts), 32), dim=-1)
    rows = measure_changes(DualEncoder(*loaded), LongTexts(parts, images), seed=0)
    measured = {row["change"]: row["num_texts"] for row in rows}
    assert measured.get("sentences permuted") == (num_possible if is_measured else None)
    told = f"sentences permuted: possible in {num_possible} of {len(parts)} texts, not measured"
    assert (told in caplog.text) != is_measured


def test_a_change_is_compared_by_cosine_recall_and_the_nearer_text():
    images = torch.eye(3)
    before = torch.eye(3)
    after = torch.tensor([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    effects = compare_embeddings(images, before, after)
    assert effects["similarity"] == pytest.approx((0.6 + 1 + 1) / 3)
    assert effects["before_t2i_recall@1"] == 100
    assert effects["after_t2i_recall@1"] == pytest.approx(200 / 3)
    assert effects["prefers_original"] == pytest.approx(200 / 3), "once nearer, twice equal"
    turned = compare_embeddings(images, after, before)
    assert turned["prefers_original"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("num_truncated", [0, 1])
def test_tables_have_what_was_measured_and_say_what_was_cut_off(num_truncated):
    change = {"change": "first sentence dropped", "num_texts": 4, "similarity": 0.9876, "prefers_original": 62.5}
    for number, name in enumerate(("before_t2i", "after_t2i", "before_i2t", "after_i2t"), start=1):
        change[f"{name}_recall@1"] = 10.0 * number
    length = {"num_tokens": 16, "t2i_recall@1": 1.25, "i2t_recall@1": 2.5}
    result = {"model": "mine", "num_texts": 5, "num_truncated": num_truncated}
    table = format_sensitivity([result | {"changes": [change], "lengths": [length]}])
    row = "| mine | first sentence dropped | 4 | 0.988 | 10.0 | 20.0 | 30.0 | 40.0 | 62.5 |"
    assert row in table
    assert "| mine | 16 | 1.2 | 2.5 |" in table
    assert ("Longer than the limit of mine: 1 of 5 texts." in table) == (num_truncated == 1)
