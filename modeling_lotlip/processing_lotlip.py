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
"""
Image/Text processor class for LoTLIP.
"""

from transformers.processing_utils import ProcessingKwargs, ProcessorMixin
from transformers.utils import auto_docstring

from .loading_lotlip import LotlipLoadingMixin


class LotlipProcessorKwargs(ProcessingKwargs, total=False):
    # not `text_kwargs` of the processor, which transformers 5.21 and 5.22 do not know
    _defaults = {"text_kwargs": {"padding": True}}


@auto_docstring(
    custom_intro="""
    Constructs a LoTLIP processor, which wraps a [`LotlipImageProcessor`] and a [`LotlipTokenizer`]. Texts are padded
    to the longest of the batch, and truncated by the tokenizer to its `model_max_length`.

    Examples:

    ```python
    >>> from PIL import Image
    >>> from modeling_lotlip import LotlipImageProcessor, LotlipProcessor, LotlipTokenizer

    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "car", "street"]
    >>> tokenizer = LotlipTokenizer(vocab={word: index for index, word in enumerate(words)})
    >>> processor = LotlipProcessor(image_processor=LotlipImageProcessor(), tokenizer=tokenizer)
    >>> inputs = processor(images=Image.new("RGB", (640, 480)), text=["a red car", "a street"], return_tensors="pt")
    >>> inputs["input_ids"].tolist()
    [[2, 5, 6, 7, 3], [2, 5, 8, 3, 0]]
    >>> inputs["pixel_values"].shape
    torch.Size([1, 3, 224, 224])
    ```
    """
)
class LotlipProcessor(LotlipLoadingMixin, ProcessorMixin):
    valid_processor_kwargs = LotlipProcessorKwargs

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)


LotlipProcessor.register_for_auto_class()

__all__ = ["LotlipProcessor"]
