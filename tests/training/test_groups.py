"""Batches in groups of like length: the numbers of the padded batch, with less computed."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from modeling_lotlip import LotlipModel
from modeling_lotlip.encoder.lengths import group_by_length
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.training import step
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import convert_model
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.step import (
    count_image_tokens,
    embed_batch,
    group_short_captions,
    make_loss,
    split_batch,
    train_step,
)
from tests.conftest import tiny_config
from tests.training.conftest import assert_same_gradients, get_gradients


def make_batch(short_lengths: list[int], long_lengths: list[list[int]] | None = None) -> dict[str, torch.Tensor]:
    """A batch with captions of these lengths, padded to the longest of each kind; 0 is an absent one."""
    batch = {"pixel_values": torch.randn(len(short_lengths), 3, 32, 32)}
    for prefix, lengths in (("short_", short_lengths), ("", long_lengths)):
        if lengths is not None:
            lengths = torch.tensor(lengths)
            mask = torch.arange(int(lengths.max())) < lengths[..., None]
            batch[f"{prefix}attention_mask"] = mask.long()
            batch[f"{prefix}input_ids"] = torch.randint(5, 64, mask.shape) * mask
    return batch


BATCHES = {
    "mixed lengths": ([7, 3, 9, 4, 5, 12, 3, 8], [[20], [9], [33], [12], [6], [40], [14], [15]]),
    "one long caption among short ones": ([4] * 8, [[5], [5], [40], [5], [4], [5], [3], [5]]),
    "several long captions": ([7, 3, 9, 4, 5, 12, 3, 8], [[40, 5, 9]] + [[5, 20, 3], [12, 4, 33]] * 3 + [[6, 6, 6]]),
    "absent captions": ([7, 0, 9, 4, 0, 12, 0, 8], [[0], [9], [33], [0], [0], [40], [14], [0]]),
    "absent but for one": ([0, 0, 0, 3, 0, 4, 0, 0], [[0]] * 7 + [[40]]),
    "short captions alone": ([40, 3, 9, 4, 5, 12, 3, 8], None),
}


def step_in_groups(model: ContrastiveModel, batch: dict, loss_function, accelerator: Accelerator, **options):
    """The loss of a step whose gradients are kept, and the inputs of each call of the model."""
    calls = []
    hook = model.register_forward_hook(lambda _, args, inputs, output: calls.append(inputs), with_kwargs=True)
    result = train_step(model, batch, torch.optim.SGD(model.parameters()), loss_function, accelerator, **options)
    assert not result.is_update, "the gradients are still there"
    hook.remove()
    return result, calls


@pytest.mark.parametrize("objective, tokens_per_chunk", [("lotlip", 64), ("filip", None), ("long_clip", None)])
@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradients_are_those_of_the_padded_batch(accelerator, monkeypatch, name, objective, tokens_per_chunk):
    torch.manual_seed(0)
    loss_function = make_loss(objective)
    objective = OBJECTIVES[objective]
    config = tiny_config(dropout=0.0, initializer_range=0.1, num_corner_tokens=objective.num_corner_tokens)
    model = ContrastiveModel(convert_model(LotlipModel(config), objective)).train()
    batch = make_batch(*BATCHES[name])

    whole = copy.deepcopy(model)
    scale = whole.model.logit_scale.exp()
    padded = loss_function(*whole(**batch), logit_scale=scale, short_groups=group_short_captions(batch))
    accelerator.backward(padded[0])
    expected = get_gradients(whole)

    monkeypatch.setitem(step.TOKENS_PER_CALL, "cpu", 4)
    loss, calls = step_in_groups(model, batch, loss_function, accelerator, tokens_per_chunk=tokens_per_chunk)

    num_passes = 1 if tokens_per_chunk is None else 2
    assert len(calls) > num_passes
    assert sum(map(count_padded, calls)) < 0.8 * num_passes * count_padded(batch)
    torch.testing.assert_close(loss.loss.detach(), padded[0].detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.slot_losses, padded[1], rtol=1e-5, atol=0, equal_nan=True)
    assert_same_gradients(get_gradients(model), expected)


def count_padded(inputs: dict[str, torch.Tensor]) -> int:
    """Tokens of captions that a call of the model computes."""
    return sum(values.numel() for name, values in inputs.items() if name.endswith("input_ids"))


def test_a_batch_of_one_length_is_one_call_with_the_inputs_as_they_are(accelerator):
    batch = make_batch([6] * 70, [[40, 40]] * 70)
    ((group,), _) = split_batch(batch, accelerator)
    assert group.keys() == batch.keys() and all(torch.equal(group[name], batch[name]) for name in batch)
    without_masks = {name: values for name, values in batch.items() if "mask" not in name}
    ((group,), _) = split_batch(without_masks, accelerator)
    assert group.keys() == without_masks.keys() and torch.equal(group["input_ids"], batch["input_ids"])


def test_every_process_gets_as_many_groups(accelerator):
    batch = make_batch([6] * 5, [[40]] * 5)
    for most in (1, 2, 4, 5):
        others = SimpleNamespace(device=accelerator.device, gather=lambda own, most=most: torch.tensor([own, most]))
        parts = split_batch(batch, others)[0]
        assert len(parts) == most and all(len(part["pixel_values"]) > 0 for part in parts)
        assert torch.equal(torch.cat([part["pixel_values"] for part in parts]), batch["pixel_values"])


def test_a_group_has_no_more_tokens_than_it_may(accelerator):
    config = tiny_config().vision_config
    batch = make_batch([4, 6] * 20, [[length] for length in range(1, 41)])
    tokens_per_image = count_image_tokens(config, batch)
    assert tokens_per_image == 5  # four patches and the class token
    parts = split_batch(batch, accelerator, 120, tokens_per_image)[0]
    sizes = [count_padded(part) + 5 * len(part["pixel_values"]) for part in parts]
    assert max(sizes) <= 120 and len(parts) < 1.5 * sum(sizes) / 120
    batch["vision_output"] = batch.pop("pixel_values")
    assert count_image_tokens(config, batch) == 0
    assert {len(part["input_ids"]) for part in split_batch(batch, accelerator, 1)[0]} == {1}, "a row at least"


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
    found = group_by_length(lengths, tokens_per_call, most)
    assert sorted(itertools.chain(*found)) == list(range(num_texts))
    assert sum(len(group) * lengths[group[0]] + tokens_per_call for group in found) == min(work)
    assert all(lengths[group[0]] == max(lengths[place] for place in group) for group in found)
    assert group_by_length([], tokens_per_call, most) == []


# ---- embedded once more in the backward pass: the gradient cache


def build(dropout: float, projection_dim: int | None = None) -> tuple[ContrastiveModel, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    config = tiny_config(dropout=dropout)
    if projection_dim is not None:
        for part in (config, config.text_config, config.vision_config):
            part.projection_dim = projection_dim
    batch = make_batch([6] * 10, torch.randint(4, 12, (10, 2)).tolist())
    batch["attention_mask"][4, 1] = 0  # an absent caption
    return ContrastiveModel(LotlipModel(config)).train(), batch


def backward(model: ContrastiveModel, embeds: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    loss, _ = global_loss(contrastive_loss, *embeds, logit_scale=model.model.logit_scale.exp())
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize(
    "is_frozen, checkpointing, projection_dim",  # no projection, one of the tower's width, one of another
    [(False, False, None), (False, True, 32), (False, False, 24), (True, True, None), (True, False, 24)],
)
def test_chunks_have_the_gradients_of_the_whole_batch(accelerator, is_frozen, checkpointing, projection_dim):
    model, batch = build(0.0, projection_dim)
    model.model.vision_model.requires_grad_(not is_frozen)
    expected = copy.deepcopy(model)
    loss = backward(expected, expected(**batch))
    if checkpointing:
        model.model.activation_checkpointing_enable()
    num_chunks = len(split_batch(batch, accelerator, tokens_per_group=70)[0])
    calls, images = [], []
    model.model.text_model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.model.vision_model.register_forward_pre_hook(lambda *_: images.append(1))
    found = backward(model, embed_batch(model, batch, accelerator, recompute=True, tokens_per_group=70))
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=0)
    assert_same_gradients(get_gradients(model), get_gradients(expected))
    assert num_chunks > 2 and len(calls) == 4 * num_chunks, "short and long captions of each chunk, in both passes"
    assert len(images) == (1 if is_frozen else 2) * num_chunks, "a frozen tower runs once"


def test_activations_of_one_chunk_are_kept(accelerator):
    """What the graph of the first pass holds does not grow with the layers."""
    model, batch = build(0.0)
    held = []
    for recompute in (False, True):
        sizes = {}

        def note(tensor, sizes=sizes):
            if not isinstance(tensor, torch.nn.Parameter):
                sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            embeds = embed_batch(model, batch, accelerator, recompute, tokens_per_group=70)
        held.append(sum(sizes.values()))
        del embeds
    assert held[1] < 0.2 * held[0]


def test_dropout_draws_the_same_in_both_passes(accelerator):
    model, batch = build(dropout=0.3)
    results = []
    for recompute in (False, True):
        trained = copy.deepcopy(model)
        torch.manual_seed(1)
        loss = backward(trained, embed_batch(trained, batch, accelerator, recompute, tokens_per_group=70))
        results.append((loss, get_gradients(trained), torch.rand(())))
    assert results[0][2] == results[1][2], "the generator goes on as without the second pass"
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-6, atol=0)
    assert_same_gradients(results[1][1], results[0][1])
