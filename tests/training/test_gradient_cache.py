import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from modeling_lotlip import LotlipModel
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.losses.global_loss import GlobalLoss
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.gradient_cache import RandomState, backward_in_chunks
from modeling_lotlip.training.groups import BatchGroups
from tests.conftest import tiny_config


BATCH_SIZE = 10


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    return Accelerator(cpu=True)


def build(dropout: float, projection_dim: int | None = None) -> tuple[ContrastiveModel, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    config = tiny_config(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    config.vision_config.hidden_dropout_prob = dropout
    if projection_dim is not None:
        config.vision_config.projection_dim = config.projection_dim = config.text_config.projection_dim = (
            projection_dim
        )
    lengths = torch.randint(4, 12, (BATCH_SIZE, 2, 1))
    batch = {
        "pixel_values": torch.randn(BATCH_SIZE, 3, 32, 32),
        "input_ids": torch.randint(5, 64, (BATCH_SIZE, 2, 12)),
        "attention_mask": (torch.arange(12) < lengths).long(),
        "short_input_ids": torch.randint(5, 64, (BATCH_SIZE, 6)),
    }
    batch["attention_mask"][4, 1] = 0  # an absent caption
    return ContrastiveModel(LotlipModel(config)).train(), batch


def loss_function(image_embeds, text_embeds, logit_scale) -> GlobalLoss:
    return global_loss(contrastive_loss, image_embeds, text_embeds, logit_scale=logit_scale.exp())


def gradients(model: ContrastiveModel) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same_gradients(model: ContrastiveModel, expected: ContrastiveModel, rtol: float = 1e-5) -> None:
    ours, theirs = gradients(model), gradients(expected)
    assert ours.keys() == theirs.keys()
    total_norm = torch.stack([gradient.norm() for gradient in theirs.values()]).norm().item()
    for name, gradient in theirs.items():
        # the gradient of a key bias is zero but for rounding, which is relative to the others'
        difference = (ours[name] - gradient).norm().item()
        assert difference <= rtol * gradient.norm().item() + 0.01 * rtol * total_norm, name


def make_chunks(batch: dict, accelerator: Accelerator) -> BatchGroups:
    """Four chunks: a row of the longest captions has 6 tokens of a short one and twice 11 of long ones."""
    chunks = BatchGroups(batch, accelerator, tokens_per_group=70)
    assert len(chunks) == 4
    return chunks


@pytest.mark.parametrize("projection_dim", [None, 32, 24])  # none, of the tower's width, of another
@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_the_whole_batch(accelerator, is_frozen, checkpointing, projection_dim):
    model, batch = build(0.0, projection_dim)
    model.model.vision_model.requires_grad_(not is_frozen)
    expected = copy.deepcopy(model)
    loss = loss_function(*expected(**batch)[:2], expected.model.logit_scale).loss
    loss.backward()
    if checkpointing:
        model.model.activation_checkpointing_enable()
    calls = []
    model.model.vision_model.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(
        backward_in_chunks(model, make_chunks(batch, accelerator), loss_function, accelerator).loss,
        loss.detach(),
        rtol=1e-5,
        atol=0,
    )
    assert_same_gradients(model, expected)
    assert len(calls) == (4 if is_frozen else 8), "a frozen tower runs once"
    assert "pixel_values" in batch, "the batch is left as it is"


def test_dropout_draws_the_same_in_both_passes(accelerator):
    model, batch = build(dropout=0.3)
    expected = copy.deepcopy(model)
    torch.manual_seed(1)
    embeds = make_chunks(batch, accelerator).embed(expected, accelerator.device)
    loss = loss_function(*embeds, expected.model.logit_scale).loss
    loss.backward()
    after = torch.rand(())
    torch.manual_seed(1)
    cached = backward_in_chunks(model, make_chunks(batch, accelerator), loss_function, accelerator).loss
    assert torch.rand(()) == after, "the generator goes on as without the second pass"
    torch.testing.assert_close(cached, loss.detach(), rtol=1e-6, atol=0)
    assert_same_gradients(model, expected)
    torch.manual_seed(2)
    assert backward_in_chunks(model, make_chunks(batch, accelerator), loss_function, accelerator).loss != cached


def test_bfloat16(accelerator):
    model, batch = build(dropout=0.0)
    expected = copy.deepcopy(model)

    for trained, run in ((expected, None), (model, backward_in_chunks)):
        forward = trained.forward

        def in_bfloat16(*inputs, forward=forward, **kwargs):
            with torch.autocast("cpu", torch.bfloat16):
                return forward(*inputs, **kwargs)

        trained.forward = in_bfloat16
        if run is None:
            loss_function(*trained(**batch)[:2], trained.model.logit_scale).loss.backward()
        else:
            run(trained, make_chunks(batch, accelerator), loss_function, accelerator)
    assert_same_gradients(model, expected, rtol=1e-2)


def test_accumulates(accelerator):
    model, batch = build(dropout=0.0)
    backward_in_chunks(model, make_chunks(batch, accelerator), loss_function, accelerator)
    once = {name: gradient.clone() for name, gradient in gradients(model).items()}
    backward_in_chunks(model, BatchGroups(batch, accelerator), loss_function, accelerator)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, 2 * once[name], rtol=1e-4, atol=1e-6)


def test_random_state_is_replayed_and_left():
    state = RandomState(torch.zeros(1))
    first, second = torch.rand(3), torch.rand(3)
    with state.replay():
        assert torch.equal(torch.rand(3), first)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with state.replay():
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected) and not torch.equal(first, second)
