# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the package promises beyond transformers of a processor: the base class of the generated `processing_lotlip.py`.

It goes to the Hub with that file, as `hub_lotlip.py` does. With a file transformers saves what it imports: this one
imports both image processors, so that a saved processor has the code of both, and runs with torchvision and without.
"""

from transformers import processing_utils
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs

from .hub_lotlip import LoadingMixin, as_list, name_code
from .image_processing_lotlip import LotlipImageProcessor
from .image_processing_pil_lotlip import LotlipImageProcessorPil


IMAGE_PROCESSORS = {"torchvision": LotlipImageProcessor, "pil": LotlipImageProcessorPil}


class ProcessorKwargs(ProcessingKwargs, total=False):
    """The defaults of a processor, for transformers 5.21 and 5.22, which do not know its `text_kwargs`."""

    _defaults = {"text_kwargs": {"padding": True}}


class ProcessorMixin(LoadingMixin, processing_utils.ProcessorMixin):
    """Leaves truncation to the tokenizer, which says what it cuts off."""

    def __call__(self, images=None, text=None, *args, **kwargs) -> BatchFeature:
        """As in transformers."""
        text = as_list(text)
        if isinstance(text, (list, tuple)) and len(text) == 0:
            raise ValueError("`text` is empty: give a `str` or a list of `str` with at least one.")
        if "truncation" not in kwargs.get("text_kwargs", {}):
            kwargs.setdefault("truncation", None)
        return super().__call__(images, text, *args, **kwargs)

    def to_dict(self) -> dict:
        """Names its code, also where it was loaded without it, and that of both image processors."""
        output = super().to_dict()
        output["auto_map"] = {"AutoProcessor": name_code(type(self))}
        # compared by name: of code from the Hub transformers makes a module, and so a class, for each file it loads
        names = {backend: name_code(processor) for backend, processor in IMAGE_PROCESSORS.items()}
        if name_code(type(self.image_processor)) in names.values():
            output["image_processor"]["auto_map"] = {"AutoImageProcessor": names}
        return output


if "text_kwargs" not in processing_utils.ProcessorMixin.__annotations__:
    ProcessorMixin.valid_processor_kwargs = ProcessorKwargs

ProcessorMixin.register_for_auto_class()  # and all that inherit from it
