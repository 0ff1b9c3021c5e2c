"""A batch that is embedded in parts, and once more in the backward pass: the gradients of the whole batch."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from modeling_lotlip import LotlipModel
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.groups import embed_batch, split_batch
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


def loss_function(image_embeds, text_embeds, logit_scale) -> torch.Tensor:
    return global_loss(contrastive_loss, image_embeds, text_embeds, logit_scale=logit_scale.exp())[0]


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


def backward_in_chunks(model: ContrastiveModel, batch: dict, accelerator: Accelerator) -> torch.Tensor:
    """The loss of four chunks: a row of the longest captions has 6 tokens of a short one and twice 11 of long ones."""
    assert len(split_batch(batch, accelerator, tokens_per_group=70)[0]) == 4
    embeds = embed_batch(model, batch, accelerator, recompute=True, tokens_per_group=70)
    loss = loss_function(*embeds, model.model.logit_scale)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize(
    "is_frozen, checkpointing, projection_dim",  # no projection, one of the tower's width, one of another
    [(False, False, None), (False, True, 32), (False, False, 24), (True, True, None), (True, False, 24)],
)
def test_loss_and_gradients_are_those_of_the_whole_batch(accelerator, is_frozen, checkpointing, projection_dim):
    model, batch = build(0.0, projection_dim)
    model.model.vision_model.requires_grad_(not is_frozen)
    expected = copy.deepcopy(model)
    loss = loss_function(*expected(**batch), expected.model.logit_scale)
    loss.backward()
    if checkpointing:
        model.model.activation_checkpointing_enable()
    calls, images = [], []
    model.model.text_model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.model.vision_model.register_forward_pre_hook(lambda *_: images.append(1))
    found = backward_in_chunks(model, batch, accelerator)
    torch.testing.assert_close(found, loss.detach(), rtol=1e-5, atol=0)
    assert_same_gradients(model, expected)
    assert len(calls) == 16, "short and long captions of each chunk, in both passes"
    assert len(images) == (4 if is_frozen else 8), "a frozen tower runs once"


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
    expected = copy.deepcopy(model)
    torch.manual_seed(1)
    embeds = embed_batch(expected, batch, accelerator, tokens_per_group=70)
    loss = loss_function(*embeds, expected.model.logit_scale)
    loss.backward()
    after = torch.rand(())
    torch.manual_seed(1)
    cached = backward_in_chunks(model, batch, accelerator)
    assert torch.rand(()) == after, "the generator goes on as without the second pass"
    torch.testing.assert_close(cached, loss.detach(), rtol=1e-6, atol=0)
    assert_same_gradients(model, expected)


def test_bfloat16(accelerator):
    model, batch = build(dropout=0.0)
    expected = copy.deepcopy(model)
    for trained in (expected, model):
        forward = trained.forward

        def in_bfloat16(*inputs, forward=forward, **kwargs):
            with torch.autocast("cpu", torch.bfloat16):
                return forward(*inputs, **kwargs)

        trained.forward = in_bfloat16
    loss_function(*expected(**batch), expected.model.logit_scale).backward()
    backward_in_chunks(model, batch, accelerator)
    assert_same_gradients(model, expected, rtol=1e-2)
