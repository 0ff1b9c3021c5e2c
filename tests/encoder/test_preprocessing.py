"""How texts become inputs, whatever the tokenizer says of them."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import BatchEncoding

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.encoder.preprocessing import Preprocessing
from tests.conftest import WORDS


class WithoutEncodings:
    """A tokenizer that does not return the encodings of the tokenizers library, as those in Python do not."""

    padding_side = "right"

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.model_max_length = tokenizer.model_max_length
        self.init_kwargs = tokenizer.init_kwargs

    def __call__(self, *args, **kwargs):
        return BatchEncoding(dict(self.tokenizer(*args, **kwargs)))


@pytest.mark.parametrize("max_length", [9, None])
def test_truncated_texts_are_known_also_from_a_tokenizer_without_encodings(encoder, max_length):
    processor = SimpleNamespace(tokenizer=WithoutEncodings(encoder.processor.tokenizer))
    preprocessing = Preprocessing(processor, encoder.family, max_length)
    texts = [" ".join(WORDS[:length]) for length in (2, 7, 8, 9)]

    inputs, truncated = preprocessing.tokenize(texts)

    expected = Preprocessing(encoder.processor, encoder.family, max_length).tokenize(texts)
    assert processor.tokenizer(texts).encodings is None
    assert inputs["input_ids"].equal(expected.inputs["input_ids"])
    assert truncated == expected.truncated
    assert any(truncated) == (max_length == 9)


@pytest.mark.parametrize("saved_side", ["right", "left"])
@pytest.mark.parametrize("padding", [True, "max_length"])
def test_texts_are_padded_as_their_tokenizer_was_saved(encoder, vocab_dir, tmp_path, saved_side, padding):
    """Not as others have set it: what a text is read as would depend on the others of its batch."""
    LotlipTokenizer.from_pretrained(vocab_dir, padding_side=saved_side).save_pretrained(tmp_path)
    tokenizer = LotlipTokenizer.from_pretrained(tmp_path)
    family = replace(encoder.family, padding=padding)
    preprocessing = Preprocessing(SimpleNamespace(tokenizer=tokenizer), family)
    texts = ["a", "a red boat"]
    expected = preprocessing.tokenize(texts).inputs
    tokenizer.padding_side = "left" if saved_side == "right" else "right"
    inputs = preprocessing.tokenize(texts).inputs
    repadded = preprocessing.pad(list(preprocessing.unpad(inputs)))
    first_is_padding = inputs["input_ids"][0, 0] == tokenizer.pad_token_id
    assert bool(first_is_padding) == (saved_side == "left")
    assert inputs["input_ids"].equal(expected["input_ids"])
    assert repadded["input_ids"].equal(expected["input_ids"])


def test_a_side_of_padding_that_is_set_on_a_tokenizer_changes_no_embedding(encoder):
    expected = encoder.encode_text(["a", "a red boat"])
    processor = copy.deepcopy(encoder.processor)
    processor.tokenizer.padding_side = "left"
    found = DualEncoder(encoder.model, processor).encode_text(["a", "a red boat"])
    np.testing.assert_array_equal(found, expected)


def test_texts_of_unknown_words_alone_are_found(encoder, vocab_dir):
    processor = SimpleNamespace(tokenizer=LotlipTokenizer.from_pretrained(vocab_dir))
    preprocessing = Preprocessing(processor, encoder.family)
    unknown = ["Ένα καράβι", "Ένα 'καράβι'.", "καράβι " * 200]
    known = ["a καράβι", "a boat", ".", ""]
    input_ids = preprocessing.tokenize(unknown + known).inputs["input_ids"]
    assert preprocessing.find_unknown(input_ids) == [True] * 3 + [False] * 4


def test_where_unknown_words_end_a_text_none_are_found(family_folders):
    preprocessing = load_encoder(str(family_folders("clip"))).preprocessing
    assert preprocessing.tokenizer.unk_token_id == preprocessing.tokenizer.eos_token_id
    input_ids = preprocessing.tokenize(["Ένα καράβι", "a boat"]).inputs["input_ids"]
    assert preprocessing.find_unknown(input_ids) == [False, False]


def test_labels_of_unknown_words_are_said_whatever_the_templates(family_folders, caplog):
    encoder = load_encoder(str(family_folders("lotlip")), LoadingArguments(device="cpu"))
    encoder.embed_classes(["Ένα", "boat", "καράβι"], ["a photo of a {}"])
    assert "2 of 3 texts hold only words that the tokenizer of" in caplog.text


def test_embedded_texts_of_unknown_words_are_said_once_of_each_model(family_folders, caplog):
    for family in ("lotlip", "lit"):
        name = str(family_folders(family))
        encoder = load_encoder(name, LoadingArguments(device="cpu"))
        encoder.encode_text(["Ένα καράβι", "a boat", "καράβι", "sea", "house"])
        encoder.encode_text(["Ένα καράβι"])
        assert f"2 of 5 texts hold only words that the tokenizer of {name} does not know" in caplog.text
    assert caplog.text.count("texts hold only words") == 2
