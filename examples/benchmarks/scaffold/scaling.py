# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a training on many images needs, counted on the model itself without computing it: the operations of the towers
and of the loss, the memory of the loss, and what processes exchange.
"""

import weakref
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from modeling_lotlip import LotlipConfig, LotlipModel
from modeling_lotlip.losses import blockwise_contrastive_loss


FLOAT32_BYTES, INT64_BYTES, BOOL_BYTES = 4, 8, 1


def build_meta_model(config: LotlipConfig) -> LotlipModel:
    """A model without weights, on the meta device and in evaluation mode, whose attention torch can count."""
    with torch.device("meta"):
        model = LotlipModel(config)
    model.set_attn_implementation("eager")  # the counter does not know every fused kernel
    return model.eval()


def count_flops(run: Callable[[], object]) -> tuple[int, object]:
    """The floating-point operations of a call, and what it returned."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result


def count_step_flops(run: Callable[[], torch.Tensor]) -> tuple[int, int]:
    """Operations of a call and of the backward pass of what it returns."""
    forward, embeds = count_flops(run)
    backward, _ = count_flops(embeds.sum().backward)
    return forward, backward


def count_operations(
    config: LotlipConfig, num_long_captions: int, short_length: int, long_length: int
) -> dict[str, int]:
    """
    Floating-point operations of a training step for each image, by what is trained and what is computed again.

    Args:
        config (`LotlipConfig`):
            The model, which is run on the meta device: nothing is computed.
        num_long_captions (`int`):
            Long captions of an image.
        short_length (`int`):
            Tokens of a short caption, padded to the longest of its batch.
        long_length (`int`):
            Tokens of a long caption, padded likewise, without corner tokens.

    Returns:
        `dict[str, int]`: of `image forward`, `image backward`, `text forward` and `text backward`.
    """
    model = build_meta_model(config).train()
    with torch.device("meta"):
        pixel_values = torch.zeros(1, 3, *model.vision_model.embeddings.image_size)
        short_input_ids = torch.zeros(1, short_length, dtype=torch.long)
        input_ids = torch.zeros(1, num_long_captions, long_length, dtype=torch.long)
        features = torch.zeros(1, config.vision_config.hidden_size)

    # the projection of image features, where there is one, is trained with the texts
    captions = {"short_input_ids": short_input_ids, "input_ids": input_ids, "vision_pooler_output": features}
    image = count_step_flops(lambda: model.vision_model(pixel_values).pooler_output)
    text = count_step_flops(lambda: model(**captions).text_embeds)
    return {
        "image forward": image[0],
        "image backward": image[1],
        "text forward": text[0],
        "text backward": text[1],
    }


def count_variants(operations: dict[str, int]) -> dict[str, int]:
    """Operations of a step for each image, of each way to train and of caching, from those of `count_operations`."""
    text = operations["text forward"] + operations["text backward"]
    image = operations["image forward"] + operations["image backward"]
    return {
        "frozen image tower": operations["image forward"] + text,
        "cached image features": text,
        "trained image tower": image + text,
        "frozen, in chunks": operations["image forward"] + text + operations["text forward"],
        "cached, in chunks": text + operations["text forward"],
        "trained, in chunks": image + text + operations["image forward"] + operations["text forward"],
        "the pass that caches a view": operations["image forward"],
    }


def count_slots(config: LotlipConfig, num_long_captions: int) -> int:
    """Text embeddings of an image: of the short caption, and of each long one with its corner tokens."""
    return 1 + num_long_captions * (1 + config.text_config.num_corner_tokens)


def loss_operations(num_own_rows: int, num_rows: int, num_slots: int, dim: int) -> int:
    """
    Operations of the loss in a process that has `num_own_rows` of all `num_rows`: the similarities of its images with
    all texts and of its texts with all images, these again in the backward pass, and the gradients of its embeddings.
    """
    return 3 * 2 * 2 * num_slots * num_own_rows * num_rows * dim


def repeat_rows(num_processes: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """In place of a gather, as many rows as so many processes have: a process can then be counted alone."""
    return lambda rows: rows.detach().repeat(num_processes, *[1] * (rows.dim() - 1))


class MemoryCounter(TorchDispatchMode):
    """
    Counts the bytes of the tensors alive that were made inside it, with the most there were as `peak`, and as `moved`
    those that are read and written by operations other than matrix products.
    """

    def __init__(self):
        super().__init__()
        self.alive = set()
        self.current = self.peak = self.moved = 0

    def release(self, key: int, num_bytes: int) -> None:
        self.alive.discard(key)
        self.current -= num_bytes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        written = [tensor for tensor in tree_leaves(outputs) if isinstance(tensor, torch.Tensor)]
        read = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)]
        storages = {tensor.untyped_storage()._cdata for tensor in read}
        is_view = all(tensor.untyped_storage()._cdata in storages for tensor in written)
        if func.overloadpacket not in flop_registry and (func._schema.is_mutable or not is_view):
            self.moved += sum(tensor.nbytes for tensor in read + written)
        for tensor in written:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.alive:
                self.alive.add(storage._cdata)
                self.current += storage.nbytes()
                self.peak = max(self.peak, self.current)
                weakref.finalize(storage, self.release, storage._cdata, storage.nbytes())
        return outputs


def count_loss_memory(num_own_rows: int, num_processes: int, num_slots: int, dim: int) -> tuple[int, int]:
    """
    The most bytes that the blockwise loss holds in one of the processes, its inputs, their gradients and what is
    gathered included, and the bytes that it moves beside its matrix products. Nothing is computed.
    """
    with FakeTensorMode(), MemoryCounter() as memory:
        image_embeds = torch.zeros(num_own_rows, dim, requires_grad=True)
        text_embeds = torch.zeros(num_own_rows, num_slots, dim, requires_grad=True)
        logit_scale = torch.ones((), requires_grad=True)
        short_groups = torch.zeros(num_own_rows, dtype=torch.long)
        gather = repeat_rows(num_processes)
        blockwise_contrastive_loss(
            image_embeds, text_embeds, logit_scale, short_groups=short_groups, gather=gather
        ).backward()
    return memory.peak, memory.moved


def exchanged_bytes(
    num_images: int, num_slots: int, dim: int, short_length: int, num_gradients: int
) -> dict[str, int]:
    """
    What a process contributes to the exchange of a training step. Of the parameters' gradients every process receives
    the mean over the processes; of everything else, the contributions of all.

    Args:
        num_images (`int`):
            Images in the batch of a process.
        num_slots (`int`):
            Text embeddings of an image.
        dim (`int`):
            Width of the embeddings, which are exchanged in float32.
        short_length (`int`):
            Tokens of the short captions, padded to the longest of all processes.
        num_gradients (`int`):
            Trained parameters. Their gradients are in float32, also with `--mixed_precision bf16`.

    Returns:
        `dict[str, int]`: the bytes of `embeddings`, `ids` (and of the two lengths that padding is agreed on with, and
        the number of calls of the model), `groups` of equal short captions, `present` captions, `sums` (the logarithms
        of the sums of exponentials of an image's and a text's similarities, and the similarity of the pair), `scale
        gradient` (and that of a bias) and `gradients`.
    """
    return {
        "embeddings": FLOAT32_BYTES * num_images * (1 + num_slots) * dim,
        "ids": INT64_BYTES * (num_images * short_length + 3),
        "groups": INT64_BYTES * num_images,
        "present": BOOL_BYTES * num_images * num_slots,
        "sums": 3 * FLOAT32_BYTES * num_images * num_slots,
        "scale gradient": 2 * FLOAT32_BYTES,
        "gradients": FLOAT32_BYTES * num_gradients,
    }


def gathered_bytes(exchanged: dict[str, int]) -> int:
    """Of the `exchanged_bytes` of a process, those that every other process receives."""
    return sum(exchanged.values()) - exchanged["gradients"]
