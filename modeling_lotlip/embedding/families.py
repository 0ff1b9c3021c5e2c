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
"""What families of dual encoders want for their texts."""

from transformers import ProcessorMixin


# Models whose text tower reads as much as its position table holds, whatever their tokenizer says: Long-CLIP is a CLIP
# with a longer table, and often a tokenizer with the limit of the original.
READ_WHOLE_TABLE = ("clip", "clipseg", "metaclip_2")


def text_defaults(processor: ProcessorMixin) -> dict:
    """How a processor calls its tokenizer where nothing else is asked for."""
    defaults = getattr(type(processor), "text_kwargs", None)
    return defaults if isinstance(defaults, dict) else {}


def is_siglip(processor: ProcessorMixin) -> bool:
    """
    Whether a processor is of SigLIP or SigLIP 2. These were trained on texts in lower case and padded to the full
    length, which not all of their processors and tokenizers do by themselves.
    """
    return type(processor).__name__.startswith("Siglip")


def padding_of(processor: ProcessorMixin) -> bool | str:
    """The `padding` that the model was trained with: to the full length (ALIGN, SigLIP), or to the longest text."""
    return "max_length" if is_siglip(processor) else text_defaults(processor).get("padding", True)


def in_trained_case(processor: ProcessorMixin, texts: list[str]) -> list[str]:
    """Texts in lower case for SigLIP, whose tokenizers do not all see to it, else as they are."""
    return [text.lower() for text in texts] if is_siglip(processor) else texts
