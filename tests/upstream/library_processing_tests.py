"""The processor under the tests that every processor of transformers has."""

import string
import unittest

from transformers import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer
from transformers.testing_utils import require_torch, require_vision

from ...test_processing_common import ProcessorTesterMixin


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@require_torch
@require_vision
class LotlipProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = LotlipProcessor

    @classmethod
    def _setup_image_processor(cls):
        return LotlipImageProcessor()

    @classmethod
    def _setup_tokenizer(cls):
        pieces = string.ascii_lowercase
        words = [*SPECIAL, *pieces, *(f"##{piece}" for piece in pieces)]
        return LotlipTokenizer(vocab={word: index for index, word in enumerate(words)})
