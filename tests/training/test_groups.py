"""Batches in groups of like length: the numbers of the padded batch, with less computed."""

import copy
import itertools
import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from modeling_lotlip import LotlipModel
from modeling_lotlip.embedding.lengths import group_by_length
from modeling_lotlip.training import groups
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.groups import count_image_tokens, split_batch
from modeling_lotlip.training.models import convert_model
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.outputs import list_checkpoints
from modeling_lotlip.training.step import group_short_captions, make_loss, train_step
from tests.conftest import tiny_config


@pytest.fixture
def accelerator():
    """One whose gradients are kept: no step of the optimizer is due."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    return Accelerator(cpu=True, gradient_accumulation_steps=1000)


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


def get_gradients(model: ContrastiveModel) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


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
    fields = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
    objective, *dims = objective.split()
    loss_function = make_loss(objective, objective == "siglip", matryoshka_dims=list(map(int, dims)))
    objective = OBJECTIVES[objective]
    config = tiny_config(**fields, num_corner_tokens=objective.num_corner_tokens)
    config.vision_config.hidden_dropout_prob = 0.0
    model = ContrastiveModel(convert_model(LotlipModel(config), objective)).train()
    batch = make_batch(*BATCHES[name])

    whole = copy.deepcopy(model)
    scale = whole.model.logit_scale.exp()
    padded = loss_function(*whole(**batch), logit_scale=scale, short_groups=group_short_captions(batch))
    accelerator.backward(padded[0])
    expected = get_gradients(whole)

    monkeypatch.setitem(groups.TOKENS_PER_CALL, "cpu", 4)
    loss, calls = step_in_groups(model, batch, loss_function, accelerator, tokens_per_chunk=tokens_per_chunk)
    gradients = get_gradients(model)

    num_passes = 1 if tokens_per_chunk is None else 2
    assert len(calls) > num_passes
    assert sum(map(count_padded, calls)) < 0.8 * num_passes * count_padded(batch)
    torch.testing.assert_close(loss.loss.detach(), padded[0].detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.slot_losses, padded[1], rtol=1e-5, atol=0, equal_nan=True)
    assert gradients.keys() == expected.keys()
    total_norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm().item()
    for key, gradient in expected.items():
        # the gradient of a key bias is zero but for rounding, which is relative to the others'
        difference = (gradients[key] - gradient).norm().item()
        assert difference <= 1e-5 * gradient.norm().item() + 1e-7 * total_norm, key


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


@pytest.mark.parametrize("grad_cache_tokens", [None, 150])
def test_a_resumed_run_draws_dropout_as_the_uninterrupted_one(train, tmp_path, monkeypatch, grad_cache_tokens):
    monkeypatch.setitem(groups.TOKENS_PER_CALL, "cpu", 4)
    num_groups = []

    def count(*args, **kwargs):
        parts = split_batch(*args, **kwargs)
        num_groups.append(len(parts[0]))
        return parts

    monkeypatch.setattr(groups, "split_batch", count)
    options = {"max_train_steps": 4, "checkpointing_steps": 2, "eval_steps": 100}
    options["grad_cache_tokens"] = grad_cache_tokens
    whole = train("whole", **options)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(whole / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    weights = load_file(train("resumed", **options, resume_from_checkpoint="latest") / "model.safetensors")
    assert len(num_groups) == 6 and min(num_groups) > 1 and num_groups[2:4] == num_groups[4:]
    expected = load_file(whole / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_run_that_was_out_of_memory_resumes_with_chunks(train, tmp_path):
    options = {"max_train_steps": 4, "checkpointing_steps": 2, "eval_steps": 100}
    whole = train("whole", **options)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(whole / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = train("resumed", **options, grad_cache_tokens=200, resume_from_checkpoint="latest")
    assert [path.name for path in list_checkpoints(resumed)] == ["checkpoint-2", "checkpoint-4"]


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
