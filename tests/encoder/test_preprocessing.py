"""How texts become inputs, whatever the tokenizer says of them."""

from types import SimpleNamespace

import pytest
from transformers import BatchEncoding

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.align.towers import prepend
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.encoder.preprocessing import Preprocessing
from tests.conftest import WORDS


class WithoutEncodings:
    """A tokenizer that does not return the encodings of the tokenizers library, as those in Python do not."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.model_max_length = tokenizer.model_max_length

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


def test_texts_of_unknown_words_alone_are_found(encoder, vocab_dir):
    processor = SimpleNamespace(tokenizer=LotlipTokenizer.from_pretrained(vocab_dir))
    preprocessing = Preprocessing(processor, encoder.family)
    unknown = ["Ένα καράβι", "Ένα 'καράβι'.", "καράβι " * 200]
    known = ["a καράβι", "a boat", ".", ""]
    input_ids = preprocessing.tokenize(unknown + known).inputs["input_ids"]
    assert preprocessing.find_unknown(input_ids) == [True] * 3 + [False] * 4


def test_a_prompt_of_known_words_hides_no_text_of_unknown_ones(encoder, vocab_dir):
    tokenizer = prepend(LotlipTokenizer.from_pretrained(vocab_dir), "a photo of ")
    preprocessing = Preprocessing(SimpleNamespace(tokenizer=tokenizer), encoder.family)
    texts = ["Ένα καράβι", "Ένα boat", "Ένα photo"]
    input_ids = preprocessing.tokenize(texts).inputs["input_ids"]
    assert preprocessing.find_unknown(input_ids) == [True, False, False]


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
