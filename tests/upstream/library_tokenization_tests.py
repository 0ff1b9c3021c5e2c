"""The tokenizer under the tests that every tokenizer of transformers has."""

import string
import tempfile
import unittest

from transformers import LotlipTokenizer

from ...test_tokenization_common import TokenizerTesterMixin


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "a is this test the low lower new un ##want ##ed ##ing runn hello how are you doing some text".split()


class LotlipTokenizationTest(TokenizerTesterMixin, unittest.TestCase):
    tokenizer_class = LotlipTokenizer
    from_pretrained_kwargs = {}

    @classmethod
    def setUpClass(cls):
        pieces = [*string.ascii_lowercase, *string.digits, *string.punctuation]
        words = dict.fromkeys([*SPECIAL, *WORDS, *pieces, *(f"##{piece}" for piece in pieces)])
        cls.from_pretrained_id = tempfile.mkdtemp()
        LotlipTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(
            cls.from_pretrained_id
        )
        super().setUpClass()
