"""The image processors under the tests that every image processor of transformers has."""

import unittest

from transformers.testing_utils import require_torch, require_vision

from ...test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin


class LotlipImageProcessingTester(ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        kwargs.setdefault("size", {"shortest_edge": 20})
        kwargs.setdefault("crop_size", {"height": 18, "width": 18})
        super().__init__(parent, **kwargs)

    def expected_output_image_shape(self, images):
        return self.num_channels, self.crop_size["height"], self.crop_size["width"]


@require_torch
@require_vision
class LotlipImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = LotlipImageProcessingTester
