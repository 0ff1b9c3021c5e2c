# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Image processor class for LoTLIP."""

from typing import Any

from transformers.image_processing_backends import TorchvisionBackend
from transformers.utils import auto_docstring

from .image_processing_pil_lotlip import LotlipImageProcessorMixin
from .loading_lotlip import LotlipLoadingMixin


@auto_docstring(
    custom_intro="""
    Constructs a LoTLIP image processor on torchvision: bicubic resizing of the shortest edge to 224, center crop,
    rescaling to -1..1. It is the default wherever torchvision is installed ([`AutoImageProcessor`],
    [`LotlipProcessor`], pipelines), and agrees with the original to 0.02 on photographs (to 0.2 on noise of black
    and white pixels), since torchvision rounds differently in resizing; [`LotlipImageProcessorPil`] agrees to the last
    bit.

    Images may be PIL images, arrays, tensors, paths, URLs or base64 strings. Transparency is laid on white, 16-bit
    images are scaled to 8 bits, photographs are turned upright (EXIF), and an image with extremely unequal sides is
    cut to its middle before it is resized. An unreadable image is a `ValueError`, anything but an image a `TypeError`.

    Examples:

    ```python
    >>> from PIL import Image
    >>> from modeling_lotlip import LotlipImageProcessor

    >>> image_processor = LotlipImageProcessor()
    >>> images = [Image.new("RGB", (640, 480)), Image.new("RGBA", (50, 90))]
    >>> image_processor(images, return_tensors="pt")["pixel_values"].shape
    torch.Size([2, 3, 224, 224])
    ```
    """
)
class LotlipImageProcessor(LotlipLoadingMixin, LotlipImageProcessorMixin, TorchvisionBackend):
    def to_dict(self) -> dict[str, Any]:
        """Names both backends where the saved code is named; the library itself names this one alone."""
        output = super().to_dict()
        this = "image_processing_lotlip.LotlipImageProcessor"
        if output.get("auto_map", {}).get("AutoImageProcessor") == this:
            pil = "image_processing_pil_lotlip.LotlipImageProcessorPil"
            output["auto_map"]["AutoImageProcessor"] = {"torchvision": this, "pil": pil}
        return output


LotlipImageProcessor.register_for_auto_class()

__all__ = ["LotlipImageProcessor"]
