"""Batches in groups of like length: the numbers of the padded batch, with less computed."""

import copy
import itertools
import weakref
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from modeling_lotlip import LotlipModel
from modeling_lotlip.encoder.lengths import partition_by_length
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.training import batch as batch_module
from modeling_lotlip.training.batch import (
    CaptionBatch,
    Texts,
    count_image_tokens,
    make_as_many,
    select_groups,
    sort_batch,
    split_by_length,
)
from modeling_lotlip.training.dual_encoder import BatchEmbeds, ContrastiveModel, ImageSide
from modeling_lotlip.training.models import convert_model
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.step import ObjectiveLoss, StepOptions, StepResult, embed_batch, size_groups, train_step
from tests.conftest import tiny_config
from tests.training.conftest import assert_same_gradients, get_gradients


def make_texts(lengths: list) -> Texts:
    """Random captions of these lengths, padded to the longest; 0 is an absent one."""
    lengths = torch.tensor(lengths)
    mask = torch.arange(int(lengths.max())) < lengths[..., None]
    return Texts(torch.randint(5, 64, mask.shape) * mask, mask.long())


def make_batch(short_lengths: list[int], long_lengths: list[list[int]] | None = None) -> CaptionBatch:
    """A batch with captions of these lengths."""
    images = {"pixel_values": torch.randn(len(short_lengths), 3, 32, 32)}
    long = make_texts(long_lengths) if long_lengths is not None else None
    return CaptionBatch(images, make_texts(short_lengths), long)


BATCHES = {
    "mixed lengths": ([7, 3, 9, 4, 5, 12, 3, 8], [[20], [9], [33], [12], [6], [40], [14], [15]]),
    "one long caption among short ones": ([4] * 8, [[5], [5], [40], [5], [4], [5], [3], [5]]),
    "several long captions": ([7, 3, 9, 4, 5, 12, 3, 8], [[40, 5, 9]] + [[5, 20, 3], [12, 4, 33]] * 3 + [[6, 6, 6]]),
    "absent captions": ([7, 0, 9, 4, 0, 12, 0, 8], [[0], [9], [33], [0], [0], [40], [14], [0]]),
    "absent but for one": ([0, 0, 0, 3, 0, 4, 0, 0], [[0]] * 7 + [[40]]),
    "short captions alone": ([40, 3, 9, 4, 5, 12, 3, 8], None),
}


def step_in_groups(
    model: ContrastiveModel, batch: CaptionBatch, accelerator: Accelerator, tokens_per_chunk: int | None
) -> tuple[StepResult, list[CaptionBatch]]:
    """The result of a step whose gradients are kept, and the batch of each call of the model."""
    calls = []
    hook = model.register_forward_hook(lambda _, args, output: calls.append(args[0]))
    optimizer = torch.optim.SGD(model.parameters())
    result = train_step(model, batch, optimizer, accelerator, StepOptions(tokens_per_chunk))
    assert not result.is_update, "the gradients are still there"
    hook.remove()
    return result, calls


@pytest.mark.parametrize("objective, tokens_per_chunk", [("lotlip", 64), ("filip", None), ("long_clip", None)])
@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradients_are_those_of_the_padded_batch(accelerator, monkeypatch, name, objective, tokens_per_chunk):
    torch.manual_seed(0)
    objective = OBJECTIVES[objective]
    config = tiny_config(dropout=0.0, initializer_range=0.1, num_corner_tokens=objective.num_corner_tokens)
    lotlip = convert_model(LotlipModel(config), objective)
    model = ContrastiveModel(lotlip, ObjectiveLoss(objective)).train()
    batch = make_batch(*BATCHES[name])

    whole = copy.deepcopy(model)
    padded = whole.loss(whole(batch), batch.group_short_captions(), **whole.scalars)
    accelerator.backward(padded.loss)
    expected = get_gradients(whole)

    monkeypatch.setitem(batch_module.TOKENS_PER_CALL, "cpu", 4)
    result, calls = step_in_groups(model, batch, accelerator, tokens_per_chunk)

    assert len(calls) > 1
    assert sum(map(count_padded, calls)) < 0.8 * count_padded(batch)
    torch.testing.assert_close(result.loss.loss.detach(), padded.loss.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(result.loss.slot_losses, padded.slot_losses, rtol=1e-5, atol=0, equal_nan=True)
    assert_same_gradients(get_gradients(model), expected)


def count_padded(batch: CaptionBatch) -> int:
    """Tokens of captions that a call of the model computes."""
    return sum(texts.input_ids.numel() for texts in batch.texts)


def split(batch: CaptionBatch, tokens_per_group: int | None = None, tokens_per_image: int = 0) -> list[CaptionBatch]:
    ordered, _, _ = sort_batch(batch)
    sizes = split_by_length(ordered, torch.device("cpu"), tokens_per_group, tokens_per_image)
    return select_groups(ordered, sizes)


def test_a_batch_of_one_length_is_one_call_with_the_inputs_as_they_are():
    batch = make_batch([6] * 70, [[40, 40]] * 70)
    (group,) = split(batch)
    assert torch.equal(group.images["pixel_values"], batch.images["pixel_values"])
    assert torch.equal(group.short.input_ids, batch.short.input_ids)
    assert torch.equal(group.long.attention_mask, batch.long.attention_mask)


@pytest.mark.parametrize("number", [1, 2, 4, 5])
def test_every_process_gets_as_many_groups(number):
    batch = make_batch([6] * 5, [[40]] * 5)
    sizes = make_as_many([5], number)
    parts = select_groups(batch, sizes)
    assert len(parts) == number
    assert min(sizes) > 0
    joined = torch.cat([part.images["pixel_values"] for part in parts])
    assert torch.equal(joined, batch.images["pixel_values"])


def test_a_group_has_no_more_tokens_than_it_may():
    config = tiny_config().vision_config
    batch = make_batch([4, 6] * 20, [[length] for length in range(1, 41)])
    tokens_per_image = count_image_tokens(config, batch)
    assert tokens_per_image == 5  # four patches and the class token
    sizes = [count_padded(part) + 5 * len(part) for part in split(batch, 120, tokens_per_image)]
    assert max(sizes) <= 120
    assert len(sizes) < 1.5 * sum(sizes) / 120
    known = replace(batch, images={}, image_features=torch.ones(40, 8))
    assert count_image_tokens(config, known) == 0
    assert {len(part) for part in split(known, 1)} == {1}, "a row at least"


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_those_of_the_least_work(seed):
    generator = torch.Generator().manual_seed(seed)
    num_texts, tokens_per_call, most = (int(torch.randint(1, high, (), generator=generator)) for high in (9, 16, 40))
    lengths = torch.randint(0, 12, (num_texts,), generator=generator).tolist()
    most = None if seed % 2 else most
    work = []
    for cuts in itertools.product([False, True], repeat=num_texts - 1):
        parts = [[]]
        for length, is_cut in zip(sorted(lengths, reverse=True), (False, *cuts)):
            parts += [[]] if is_cut else []
            parts[-1].append(length)
        if most is None or all(len(part) == 1 or len(part) * part[0] <= most for part in parts):
            work.append(sum(len(part) * part[0] + tokens_per_call for part in parts))
    found = partition_by_length(lengths, tokens_per_call, most)
    assert sorted(itertools.chain(*found)) == list(range(num_texts))
    assert sum(len(group) * lengths[group[0]] + tokens_per_call for group in found) == min(work)
    assert all(lengths[group[0]] == max(lengths[place] for place in group) for group in found)
    assert partition_by_length([], tokens_per_call, most) == []


# ---- embedded once more in the backward pass: the gradient cache


def build(dropout: float, projection_dim: int | None = None) -> tuple[ContrastiveModel, CaptionBatch]:
    torch.manual_seed(0)
    config = tiny_config(dropout=dropout)
    if projection_dim is not None:
        for part in (config, config.text_config, config.vision_config):
            part.projection_dim = projection_dim
    lengths = torch.randint(4, 12, (10, 2))
    lengths[4, 1] = 0  # an absent caption
    return ContrastiveModel(LotlipModel(config)).train(), make_batch([6] * 10, lengths.tolist())


def backward(model: ContrastiveModel, embeds: BatchEmbeds) -> torch.Tensor:
    loss = global_loss(contrastive_loss, embeds.images, embeds, **model.scalars).loss
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize(
    "image_side, checkpointing, projection_dim",  # no projection, one of the tower's width, one of another
    [
        (ImageSide.TRAINED, False, None),
        (ImageSide.TRAINED, True, 32),
        (ImageSide.TRAINED, False, 24),
        (ImageSide.FROZEN, True, None),
        (ImageSide.PROJECTION, False, 24),
    ],
)
def test_chunks_have_the_gradients_of_the_whole_batch(image_side, checkpointing, projection_dim):
    model, batch = build(0.0, projection_dim)
    model.model.vision_model.requires_grad_(image_side is ImageSide.TRAINED)
    model.image_side = image_side
    expected = copy.deepcopy(model)
    loss = backward(expected, expected(batch))
    if checkpointing:
        model.model.gradient_checkpointing_enable()
    sizes = size_groups(model, batch, tokens_per_group=70)
    calls = []
    images = []
    model.model.text_model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.model.vision_model.register_forward_pre_hook(lambda *_: images.append(1))
    found = backward(model, embed_batch(model, batch, sizes, recompute=True))
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=0)
    assert_same_gradients(get_gradients(model), get_gradients(expected))
    assert len(sizes) > 2
    assert len(calls) == 4 * len(sizes), "short and long captions of each chunk, in both passes"
    num_passes = 2 if image_side is ImageSide.TRAINED else 1
    assert len(images) == num_passes * len(sizes), "a frozen tower runs once"


def hold(model: ContrastiveModel, batch: CaptionBatch, recompute: bool) -> int:
    """The bytes that the graph of the first pass holds, parameters apart."""
    sizes = {}

    def note(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        embeds = embed_batch(model, batch, size_groups(model, batch, 70), recompute)
    del embeds
    return sum(sizes.values())


def test_activations_of_one_chunk_are_kept():
    """What the graph of the first pass holds does not grow with the layers, nor with the pixels."""
    model, batch = build(0.0)
    held = hold(model, batch, recompute=True)
    assert held < 0.2 * hold(model, batch, recompute=False)
    assert held < batch.images["pixel_values"].nbytes


class HostPixels(torch.Tensor):
    """Pixels in the memory of the host, whose copies on a device are noted."""

    copies: list[weakref.ref] = []

    def to(self, *args, **kwargs) -> torch.Tensor:
        copied = self.as_subclass(torch.Tensor).clone()
        self.copies.append(weakref.ref(copied))
        return copied


@pytest.mark.parametrize("image_side", [ImageSide.TRAINED, ImageSide.FROZEN])
def test_pixels_are_on_the_device_for_one_group_at_a_time(monkeypatch, image_side):
    """Twice if the image tower is trained: none is left there between the two passes."""
    monkeypatch.setattr(HostPixels, "copies", [])
    model, batch = build(0.0)
    model.model.vision_model.requires_grad_(image_side is ImageSide.TRAINED)
    model.image_side = image_side
    batch = replace(batch, images={"pixel_values": batch.images["pixel_values"].as_subclass(HostPixels)})
    sizes = size_groups(model, batch, tokens_per_group=70)
    embeds = embed_batch(model, batch, sizes, recompute=True)
    assert len(HostPixels.copies) == len(sizes)
    assert not [copy for copy in HostPixels.copies if copy() is not None]
    backward(model, embeds)
    num_passes = 2 if image_side is ImageSide.TRAINED else 1
    assert len(HostPixels.copies) == num_passes * len(sizes)


def test_dropout_draws_the_same_in_both_passes():
    model, batch = build(dropout=0.3)
    results = []
    for recompute in (False, True):
        copied = copy.deepcopy(model)
        torch.manual_seed(1)
        loss = backward(copied, embed_batch(copied, batch, size_groups(copied, batch, 70), recompute))
        results.append((loss, get_gradients(copied), torch.rand(())))
    assert results[0][2] == results[1][2], "the generator goes on as without the second pass"
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-6, atol=0)
    assert_same_gradients(results[1][1], results[0][1])
