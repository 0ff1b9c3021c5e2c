# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The image processor of a model that is put together: its pixels are those that the image tower was trained on."""

import math

from PIL.Image import Resampling
from transformers import AutoConfig, AutoImageProcessor, BaseImageProcessor, PreTrainedConfig
from transformers.utils import logging

from .. import LotlipImageProcessor
from ..hub_lotlip import find_pretrained


logger = logging.get_logger(__name__)


def make_image_processor(
    image_size: tuple[int, int],
    vision_model_name_or_path: str | None = None,
    image_mean: list[float] | None = None,
    image_std: list[float] | None = None,
) -> LotlipImageProcessor:
    """
    The image processor for an image tower. Mean, standard deviation and resampling are those of the tower's own image
    processor, or of its timm configuration, and so is the margin that the center crop cuts off. Images keep their
    proportions whatever it says, and a timm tower sees the whole middle square, as the paper's does; a warning tells
    where that differs.

    Args:
        image_size (`tuple[int, int]`):
            Height and width of the images that the tower takes, in pixels.
        vision_model_name_or_path (`str`, *optional*):
            Hub id or folder of the image tower. Without it the tower is new: mean and standard deviation are 0.5.
        image_mean, image_std (`list[float]`, *optional*):
            Mean and standard deviation of each channel, of pixels from 0 to 1, instead of the tower's.

    Raises:
        `ValueError`: if neither the tower nor the arguments tell mean and standard deviation.

    Example:

    ```python
    >>> import tempfile
    >>> from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
    >>> from modeling_lotlip.training.image_processors import make_image_processor

    >>> folder = tempfile.mkdtemp()  # in place of `facebook/dinov2-base`
    >>> Dinov2Model(Dinov2Config(num_hidden_layers=1)).save_pretrained(folder)
    >>> theirs = BitImageProcessor(image_mean=[0.485, 0.456, 0.406], size={"shortest_edge": 256})
    >>> files = theirs.save_pretrained(folder)
    >>> image_processor = make_image_processor((448, 448), folder)
    >>> image_processor.image_mean, image_processor.size["shortest_edge"]
    ((0.485, 0.456, 0.406), 512)
    ```"""
    own = {} if image_mean is None else {"image_mean": list(image_mean), "image_std": list(image_std)}
    settings = {}
    if vision_model_name_or_path is not None:
        settings = read_settings(vision_model_name_or_path) | own
        if "image_mean" not in settings:
            raise ValueError(
                f"`--vision_model_name_or_path {vision_model_name_or_path}` does not tell which mean and standard "
                "deviation of pixels it was trained with: there is no image processor and no `pretrained_cfg` of timm "
                "that has them. Give them with `--image_mean` and `--image_std`, such as `--image_mean 0.485 0.456 "
                "0.406 --image_std 0.229 0.224 0.225` for ImageNet's, or 0.5 0.5 0.5 both."
            )
    height, width = image_size
    shortest_edge = round(max(height, width) * settings.pop("margin", 1.0))
    crop_size = {"height": height, "width": width}
    return LotlipImageProcessor(size={"shortest_edge": shortest_edge}, crop_size=crop_size, **(settings | own))


def find_image_size(image_processor: BaseImageProcessor) -> tuple[int, int]:
    """
    Height and width of what an image processor makes of any image.

    Raises:
        `ValueError`: if it has no one size.
    """
    is_cut_out = getattr(image_processor, "do_center_crop", False)
    size = dict(getattr(image_processor, "crop_size" if is_cut_out else "size", None) or {})
    if not size.get("height") or not size.get("width"):
        raise ValueError(
            f"Images of `{type(image_processor).__name__}` cannot be cropped at random: it makes images of several "
            "sizes. Give `--min_crop_scale 1`."
        )
    return size["height"], size["width"]


def find_used_size(name: str) -> int | None:
    """
    The side of the images that an image tower is used at, where its own image processor makes smaller ones than its
    configuration says: DINOv2's is of 518 pixels, and its processor cuts out 224.
    """
    name = find_pretrained(name)
    config = AutoConfig.from_pretrained(name)
    try:
        height, width = find_image_size(AutoImageProcessor.from_pretrained(name))
    except (OSError, ValueError):  # there is none, or it has no one size
        return None
    largest = getattr(config, "image_size", None)
    return height if isinstance(largest, int) and height == width < largest else None


def describe_images(image_processor: BaseImageProcessor) -> str:
    """The size of the images that a tower sees."""
    try:
        return "{} x {} pixels".format(*find_image_size(image_processor))
    except ValueError:
        return "several sizes"


def read_settings(name: str) -> dict:
    """
    How the images of an image tower are processed: fields of [`LotlipImageProcessor`], and by how much their shortest
    edge is larger than what is cut out, the `margin`. Without mean and standard deviation where nothing tells them.
    """
    name = find_pretrained(name)
    config = AutoConfig.from_pretrained(name)
    if config.model_type == "timm_wrapper":
        return read_timm_settings(name, config)
    try:
        theirs = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):  # there is none
        return {}
    if not theirs.do_rescale or not math.isclose(theirs.rescale_factor, 1 / 255, rel_tol=1e-3):
        return {}  # of other pixels than those from 0 to 1
    settings = {"resample": theirs.resample}
    if theirs.do_normalize:
        settings |= {"image_mean": list(theirs.image_mean), "image_std": list(theirs.image_std)}
    else:
        settings |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    size = dict(theirs.size) if theirs.do_resize else {}
    if size.get("shortest_edge") and getattr(theirs, "do_center_crop", None):
        settings["margin"] = size["shortest_edge"] / max(theirs.crop_size["height"], theirs.crop_size["width"])
    elif size.get("height") and size.get("width"):
        logger.warning_once(
            f"The image processor of {name} changes the proportions of images. Here they keep them: what is seen is "
            "the middle, cut out."
        )
    return settings


def read_timm_settings(name: str, config: PreTrainedConfig) -> dict:
    """The settings in the configuration of a timm model, or in timm's list where that names the weights."""
    told = getattr(config, "pretrained_cfg", None) or {}
    if "mean" not in told and "." in config.architecture:  # a model and, behind the point, the weights
        import timm

        told = timm.get_pretrained_cfg(config.architecture, allow_unregistered=True)
        told = told.to_dict() if told is not None else {}
    settings = {}
    if "mean" in told and "std" in told:
        settings |= {"image_mean": list(told["mean"]), "image_std": list(told["std"])}
    resample = getattr(Resampling, str(told.get("interpolation")).upper(), None)
    if resample is not None:
        settings["resample"] = resample
    if told.get("crop_pct", 1.0) != 1:
        logger.warning_once(
            f"timm evaluates {name} on the middle of images ({told['crop_pct']:.3g} of their shorter side). Here it "
            "sees the whole middle square, as in the paper."
        )
    return settings
