# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""LoTLIP for transformers. Importing this package registers its classes with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
)

from .configuration_lotlip import LotlipConfig, LotlipTextConfig, LotlipVisionConfig
from .hub import write_for_readers
from .hub_lotlip import register_package_functions
from .image_processing_lotlip import LotlipImageProcessor
from .image_processing_pil_lotlip import LotlipImageProcessorPil
from .modeling_lotlip import (
    LotlipModel,
    LotlipPreTrainedModel,
    LotlipTextModel,
    LotlipTextModelWithProjection,
    LotlipVisionModel,
    LotlipVisionModelWithProjection,
)
from .modeling_variants_lotlip import (
    LotlipSigmoidConfig,
    LotlipSigmoidModel,
    LotlipTokenWiseConfig,
    LotlipTokenWiseModel,
)
from .processing_lotlip import LotlipProcessor
from .tokenization_lotlip import LotlipTokenizer


__version__ = "0.1.0"


def _find_converted(name_or_path, **options):
    # not at the top: the file also runs as a program, `python -m modeling_lotlip.convert_lotlip_to_hf`
    from .convert_lotlip_to_hf import find_converted

    return find_converted(name_or_path, **options)


register_package_functions(_find_converted, write_for_readers)

_DUAL_ENCODERS = {
    LotlipConfig: LotlipModel,
    LotlipSigmoidConfig: LotlipSigmoidModel,
    LotlipTokenWiseConfig: LotlipTokenWiseModel,
}

for _config in (*_DUAL_ENCODERS, LotlipTextConfig, LotlipVisionConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)

for _config, _model in _DUAL_ENCODERS.items():
    AutoModel.register(_config, _model, exist_ok=True)
    AutoModelForZeroShotImageClassification.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, LotlipProcessor, exist_ok=True)

AutoModel.register(LotlipTextConfig, (LotlipTextModel, LotlipTextModelWithProjection), exist_ok=True)
AutoModel.register(LotlipVisionConfig, (LotlipVisionModel, LotlipVisionModelWithProjection), exist_ok=True)

for _config in (*_DUAL_ENCODERS, LotlipTextConfig):
    AutoTokenizer.register(_config, tokenizer_class=LotlipTokenizer, exist_ok=True)
for _config in (*_DUAL_ENCODERS, LotlipVisionConfig):
    AutoImageProcessor.register(
        _config,
        image_processor_classes={"torchvision": LotlipImageProcessor, "pil": LotlipImageProcessorPil},
        exist_ok=True,
    )


def __getattr__(name: str) -> type:
    """Gives [`DualEncoder`], which imports more than the model needs, when it is asked for."""
    if name == "DualEncoder":
        from .encoder.dual_encoder import DualEncoder

        return DualEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DualEncoder",
    "LotlipConfig",
    "LotlipImageProcessor",
    "LotlipImageProcessorPil",
    "LotlipModel",
    "LotlipPreTrainedModel",
    "LotlipProcessor",
    "LotlipSigmoidConfig",
    "LotlipSigmoidModel",
    "LotlipTextConfig",
    "LotlipTextModel",
    "LotlipTextModelWithProjection",
    "LotlipTokenWiseConfig",
    "LotlipTokenWiseModel",
    "LotlipTokenizer",
    "LotlipVisionConfig",
    "LotlipVisionModel",
    "LotlipVisionModelWithProjection",
]
