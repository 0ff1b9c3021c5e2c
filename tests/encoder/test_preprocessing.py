"""How texts become inputs, whatever the tokenizer says of them."""

from types import SimpleNamespace

import pytest
from transformers import BatchEncoding

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
