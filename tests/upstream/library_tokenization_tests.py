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
        vocab = {word: index for index, word in enumerate(words)}
        LotlipTokenizer(vocab=vocab, model_max_length=128).save_pretrained(cls.from_pretrained_id)
        super().setUpClass()

    def test_sub_captions(self):
        tokenizer = self.get_tokenizer()
        expected = ["[CLS]", "a", "test", "[SEP]", "the", "new", "low", "[SEP]", "is", "[SEP]"]
        self.assertEqual(tokenizer.tokenize("A test. The new low[SEP]is", add_special_tokens=True), expected)
        # without whitespace of its own kind behind it, a full stop is one
        self.assertEqual(tokenizer.tokenize("a.test.\nnew."), ["a", ".", "test", ".", "new", "."])
        # a text that ftfy and HTML unescaping leave alone does not need them
        self.assertEqual(tokenizer.clean_text("A test. The new\nlow"), "A test. The new\nlow")
