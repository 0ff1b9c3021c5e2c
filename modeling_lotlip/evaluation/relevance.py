# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What the similarities of a dual encoder depend on, in texts and images.

Gradients are taken with respect to activations only, so that the towers may be frozen and no weight gets one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from ..encoder.backends import PytorchBackend
from ..encoder.contract import has_own_method
from ..encoder.dual_encoder import DualEncoder
from ..metrics import check_finite
from ..utils.sub_captions import join_sub_captions


# The longer side of a heat map in pixels, at least
HEAT_MAP_SIZE = 224


def token_relevance(
    encoder: DualEncoder,
    inputs: dict[str, torch.Tensor],
    image_embeds: torch.Tensor | None = None,
    is_long: bool = False,
) -> torch.Tensor:
    """
    Computes gradient times input (Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713) over the tokens: how much
    each token embedding, to first order, contributes to the similarity of a text with an image, or to the length of
    the embedding.

    Args:
        encoder ([`DualEncoder`]):
            A dual encoder. Its model computes in PyTorch, whatever its backend is.
        inputs (`dict[str, torch.Tensor]`):
            What its tokenizer returns, `input_ids` of shape `(batch_size, length)` among it.
        image_embeds (`torch.Tensor` of shape `(batch_size, dim)`, *optional*):
            The normalized image embeddings to whose similarity with the texts tokens contribute. Without them it is
            the length of the text embedding before it is normalized.
        is_long (`bool`, *optional*, defaults to `False`):
            Whether the texts are embedded as long captions: see [`DualEncoder.encode_text`].

    Returns:
        `torch.Tensor` of shape `(batch_size, length)`: negative where a token takes away. For a model that is linear
        in the token embeddings the sum is the whole.

    Raises:
        `ValueError`: if there is no such tower, or no image and the model embeds captions in its own way.
    """
    model = encoder.model
    backend = PytorchBackend(model, encoder.family)
    if image_embeds is None and has_own_method(type(model), "embed_captions"):
        raise ValueError(
            f"The embeddings of {type(model).__name__}, which has an `embed_captions` of its own, all have length 1: "
            "name an image that the text is compared with."
        )
    with gradients_from(input_embeddings(model, "text")) as outputs:
        if image_embeds is None:
            features = backend.text_features(inputs)
            check_finite(features, "features")
            score = features.float().norm(dim=-1)
        else:
            score = similarities(backend.embed_texts(inputs, is_long), image_embeds[:, None])
        (gradient,) = torch.autograd.grad(score.sum(), outputs)
    return (gradient * outputs[0]).detach().float().sum(dim=-1)


def input_embeddings(model: PreTrainedModel, tower: str) -> nn.Module:
    """
    Returns the layer of the `"text"` or `"vision"` tower of a dual encoder that embeds tokens or patches.

    Raises:
        `ValueError`: if there is no such tower, or it has none.
    """
    try:
        embeddings = getattr(model, f"{tower}_model").get_input_embeddings()
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(f"{type(model).__name__} has no {tower} tower with embeddings of its inputs.") from error
    if embeddings is None:  # as timm's models say
        raise ValueError(f"{type(model).__name__} has no {tower} tower with embeddings of its inputs.")
    return embeddings


@contextmanager
def gradients_from(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """
    Cuts the graph of gradients after a layer: within it gradients reach the outputs of `module`, tensors of any
    shape, which are put into the list, and nothing before them.
    """
    outputs = []

    def detach(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        """Replaces an output by one of the same shape where gradients end."""
        if not isinstance(output, torch.Tensor):
            raise ValueError(f"{type(module).__name__} returns no embeddings alone: it has no maps.")
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    handle = module.register_forward_hook(detach)
    try:
        with torch.enable_grad():
            yield outputs
    finally:
        handle.remove()


def similarities(features: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    """
    Multiplies normalized features with embeddings of the other tower: the cosine where these are normalized. Where
    these were cut to their first dimensions, features are too.

    Args:
        features (`torch.Tensor` of shape `(batch, whole_dim)`): Not normalized.
        embeds (`torch.Tensor` of shape `(batch, count, dim)`): What each of the features is compared with.

    Returns:
        `torch.Tensor` of shape `(batch, count)`.
    """
    check_finite(features, "features")
    check_finite(embeds, "embeds")
    features = nn.functional.normalize(features.float()[..., : embeds.shape[-1]], dim=-1)
    embeds = embeds.to(features).clone()  # what was computed in inference mode takes no part in gradients
    return (embeds @ features[..., None]).squeeze(-1)


def patch_grid(model: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[int, int]:
    """
    Counts the rows and columns of patches of images of shape `(batch, channels, height, width)`.

    Raises:
        `ValueError`: if the image tower is not one of patches, or takes them one by one (NaFlex).
    """
    patch_size = getattr(model.config.vision_config, "patch_size", None)
    if patch_size is None or pixel_values.dim() != 4:
        raise ValueError(f"The image tower of {type(model).__name__} does not cut images of pixels into patches.")
    if isinstance(patch_size, int):
        patch_size = (patch_size, patch_size)
    return pixel_values.shape[2] // patch_size[0], pixel_values.shape[3] // patch_size[1]


def patch_relevance(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    text_embeds: torch.Tensor,
) -> torch.Tensor:
    """
    Computes how relevant each patch of images is for their similarity with texts: Grad-CAM (Selvaraju et al., 2017,
    https://arxiv.org/abs/1610.02391) on the tokens that go into the last layer, activations weighted with the mean of
    their gradients over the patches, where that is positive. The patches that come out of the last layer would not do:
    a class token that is pooled depends on them no more.

    Args:
        model (`PreTrainedModel`):
            A dual encoder.
        pixel_values (`torch.Tensor` of shape `(batch_size, channels, height, width)`):
            The images.
        text_embeds (`torch.Tensor` of shape `(batch_size, num_texts, dim)`):
            The embeddings of the texts of each image, or directions such as those of [`sub_caption_directions`].

    Returns:
        `torch.Tensor` of shape `(batch_size, num_texts, rows, columns)` in float32, on the CPU.

    Raises:
        `ValueError`: if there is no image tower, it is not one of patches, it returns no states (some whose code
            comes with them return embeddings alone), or the model embeds images in its own way.

    Example:

    ```python
    >>> import torch
    >>> from modeling_lotlip import LotlipConfig, LotlipModel
    >>> from modeling_lotlip.evaluation.relevance import patch_relevance

    >>> vision_config = {"num_hidden_layers": 1, "image_size": 32}
    >>> model = LotlipModel(LotlipConfig(text_config={"num_hidden_layers": 1}, vision_config=vision_config)).eval()
    >>> patch_relevance(model, torch.randn(1, 3, 32, 32), torch.randn(1, 5, 768)).shape
    torch.Size([1, 5, 2, 2])
    ```"""
    if has_own_method(type(model), "embed_images"):
        raise ValueError(f"{type(model).__name__} has an `embed_images` of its own: it has no heat maps.")
    embeddings = input_embeddings(model, "vision")
    pixel_values = pixel_values.to(model.device, model.dtype)
    rows, columns = patch_grid(model, pixel_values)
    with gradients_from(embeddings):
        outputs = model.get_image_features(pixel_values=pixel_values, output_hidden_states=True)
        if isinstance(outputs, torch.Tensor):
            raise ValueError(f"{type(model).__name__} returns no states of its patches: it has no heat maps.")
        scores = similarities(outputs.pooler_output, text_embeds)
        hidden_states = outputs.hidden_states[-2]
        if hidden_states.dim() != 3 or hidden_states.shape[1] < rows * columns:
            raise ValueError(f"The image tower of {type(model).__name__} joins or drops patches: it has no heat maps.")
        gradients = []
        for score in scores.sum(dim=0):
            (gradient,) = torch.autograd.grad(score, hidden_states, retain_graph=True)
            gradients.append(gradient)

    # the tokens of the patches come last, after a class token and others
    num_patches = rows * columns
    patches = hidden_states.detach()[:, -num_patches:]  # shape = (images, patches, width)
    gradients = torch.stack(gradients, dim=1)[:, :, -num_patches:]  # shape = (images, texts, patches, width)
    weights = gradients.mean(dim=2)
    relevance = weights @ patches.transpose(1, 2)
    relevance = relevance.float().clamp(min=0).cpu()
    return relevance.unflatten(-1, (rows, columns))


def sub_caption_directions(encoder: DualEncoder, sub_captions: list[str], is_long: bool = False) -> torch.Tensor:
    """
    Computes what each sub-caption adds to a text: the embedding of the whole, less that of the text without it.

    The similarity of an image with it is what the image's similarity with the text loses without the sub-caption, and
    the relevance of patches for it is that of the sub-caption in its context. A long caption is embedded as a whole,
    and a model that was trained on such has hardly seen a sentence alone.

    Returns:
        `torch.Tensor` of shape `(num_sub_captions, dim)`: not normalized; zero for one that is beyond the limit. The
        embedding itself where there is one only.
    """
    if len(sub_captions) == 1:
        return encoder.encode_text(sub_captions, convert_to_tensor=True, is_long=is_long)
    texts = [join_sub_captions(sub_captions)]
    for index in range(len(sub_captions)):
        others = sub_captions[:index] + sub_captions[index + 1 :]
        texts.append(join_sub_captions(others))
    embeds = encoder.encode_text(texts, convert_to_tensor=True, is_long=is_long)
    return embeds[0] - embeds[1:]


def denormalize(processor: ProcessorMixin, pixel_values: torch.Tensor) -> Image.Image:
    """Makes an image again of pixel values of shape `(channels, height, width)`: what the model sees of it."""
    image_processor = processor.image_processor
    pixels = pixel_values.float().cpu()
    if getattr(image_processor, "do_normalize", True):
        mean = torch.tensor(image_processor.image_mean, dtype=torch.float32)[:, None, None]
        std = torch.tensor(image_processor.image_std, dtype=torch.float32)[:, None, None]
        pixels = pixels * std + mean
    levels = (255 * pixels.clamp(0, 1)).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def heat_map(image: Image.Image, relevance: torch.Tensor, largest: float | None = None) -> Image.Image:
    """
    Draws the relevance of patches, where it is positive, in red over a pale image in gray.

    Args:
        image (`Image.Image`): The image.
        relevance (`torch.Tensor` of shape `(rows, columns)`): That of each patch.
        largest (`float`, *optional*): What has the darkest red. Default: the largest one of the map.
    """
    relevance = relevance.clamp(min=0)
    if largest is None:
        largest = relevance.max().item()
    relevance = relevance / max(largest, 1e-12)
    scale = max(1, HEAT_MAP_SIZE / max(image.size))
    size = (round(scale * image.width), round(scale * image.height))
    levels = Image.fromarray((255 * relevance).byte().numpy()).resize(size, Image.BICUBIC)
    gray = image.convert("L").convert("RGB").resize(size, Image.BICUBIC)
    pale = Image.blend(gray, Image.new("RGB", size, "white"), 0.35)
    colors = colormaps["YlOrRd"](np.asarray(levels))[..., :3]  # without the alpha channel
    heat = Image.fromarray((255 * colors).astype("uint8"))
    return Image.composite(heat, pale, levels.point(lambda level: 0.85 * level))
