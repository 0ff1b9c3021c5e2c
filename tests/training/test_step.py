"""One step of training, on a model by hand."""

import math
from functools import partial

import pytest
import torch

from modeling_lotlip import LotlipModel
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss, stack_slots
from modeling_lotlip.training.batch import CaptionBatch, Texts
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.step import LossOptions, ObjectiveLoss, StepOptions, train_step
from tests.conftest import tiny_config


@pytest.fixture
def make_step(make_accelerator):
    """A function that makes a step of gradient descent on a small batch, and its model."""

    def make(
        accumulation: int = 1,
        scaler: torch.amp.GradScaler | None = None,
        max_grad_norm: float = 1.0,
        are_equal: bool = False,
        keep_duplicate_negatives: bool = False,
    ):
        accelerator = make_accelerator(gradient_accumulation_steps=accumulation)
        accelerator.scaler = scaler
        torch.manual_seed(0)
        loss = ObjectiveLoss(
            OBJECTIVES["lotlip"], options=LossOptions(keep_duplicate_negatives=keep_duplicate_negatives)
        )
        model = ContrastiveModel(LotlipModel(tiny_config(dropout=0.0)), loss).eval()
        batch = CaptionBatch(
            images={"pixel_values": torch.randn(4, 3, 32, 32)},
            short=Texts(torch.randint(5, 64, (4, 6)), torch.ones(4, 6, dtype=torch.long)),
            long=Texts(torch.randint(5, 64, (4, 1, 12)), torch.ones(4, 1, 12, dtype=torch.long)),
        )
        if are_equal:
            batch.short.input_ids[:] = batch.short.input_ids[0].clone()
        optimizer = torch.optim.SGD if scaler is None else partial(torch.optim.AdamW, fused=True)
        model, optimizer = accelerator.prepare(model, optimizer(model.parameters(), lr=1.0))
        if scaler is not None:  # float16, which accelerate has on accelerators only
            accelerator.native_amp = True
            accelerator.state._mixed_precision = "fp16"
        options = StepOptions(max_grad_norm=max_grad_norm)
        return model, lambda: train_step(model, batch, optimizer, accelerator, options)

    return make


def get_weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("max_grad_norm, expected", [(1e-3, 1e-3), (0, None)])
def test_gradients_are_clipped(make_step, max_grad_norm, expected):
    model, step = make_step(max_grad_norm=max_grad_norm)
    before = get_weights(model)
    result = step()
    assert result.is_update
    assert result.is_taken
    assert result.gradient_norm > 0.1
    moved = (get_weights(model) - before).norm().item()
    assert moved == pytest.approx(result.gradient_norm if expected is None else expected, rel=1e-2)


@pytest.mark.parametrize("keep", [False, True])
def test_equal_short_captions_are_no_negatives_unless_they_are_to_be(make_step, keep):
    _, step = make_step(keep_duplicate_negatives=keep, are_equal=True)
    loss = step().loss
    assert len(loss.slot_losses) == 4
    assert loss.loss.item() == pytest.approx(loss.slot_losses.mean().item(), rel=1e-5)
    assert loss.slot_losses[0] > 1 if keep else loss.slot_losses[0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("start, end", [(9.0, math.log(100)), (-3.0, 0.0)])
def test_the_temperature_is_kept_within_its_bounds(make_step, start, end):
    model, step = make_step(max_grad_norm=1e-6)
    with torch.no_grad():
        model.model.logit_scale.fill_(start)
    assert step().is_taken
    assert model.model.logit_scale.item() == pytest.approx(end, abs=1e-4)


def test_the_step_is_taken_after_the_last_batch_of_an_accumulation(make_step):
    model, step = make_step(accumulation=2)
    before = get_weights(model)
    first = step()
    assert not first.is_update
    assert not first.is_taken
    assert torch.equal(get_weights(model), before)
    assert step().is_taken
    assert not torch.equal(get_weights(model), before)


def test_a_step_that_is_not_finite_is_not_taken(make_step):
    model, step = make_step()
    with torch.no_grad():
        model.model.text_projection.weight[0, 0] = math.inf
    before = get_weights(model)
    result = step()
    assert result.is_update
    assert not result.is_taken
    assert torch.equal(get_weights(model), before)
    assert all(parameter.grad is None for parameter in model.parameters()), "no gradient is left for the next one"


def test_a_fused_step_that_is_not_finite_under_a_scaler_is_counted_as_skipped(make_step):
    """The optimizer skips inside of its step, so that accelerate takes it for done."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024)
    model, step = make_step(scaler=scaler)
    assert step().is_taken
    with torch.no_grad():
        model.model.text_projection.weight[0, 0] = math.inf
    before = get_weights(model)
    for number in (1, 2):
        result = step()
        assert result.is_update
        assert not result.is_taken
        assert not math.isfinite(result.gradient_norm)
        assert scaler.get_scale() == 1024 / 2**number
        assert torch.equal(get_weights(model), before)


def draw_batch(seed: int) -> CaptionBatch:
    """A batch in which a short and a long caption are absent."""
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.ones(5, 6, dtype=torch.long), torch.ones(5, 2, 9, dtype=torch.long)]
    masks[0][3] = 0
    masks[1][1, 0] = 0
    short, long = (Texts(torch.randint(5, 64, mask.shape, generator=generator), mask) for mask in masks)
    return CaptionBatch({"pixel_values": torch.randn(5, 3, 32, 32, generator=generator)}, short, long)


def compute_by_hand(model: LotlipModel, batches: list[CaptionBatch], dtype: torch.dtype) -> torch.Tensor:
    """The gradient, of all parameters side by side, of the mean loss of batches, by the model's own plain loss."""
    for batch in batches:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            images = model.embed_images(batch.images["pixel_values"])
            captions = model.embed_captions(
                short_input_ids=batch.short.input_ids,
                short_attention_mask=batch.short.attention_mask,
                long_input_ids=batch.long.input_ids,
                long_attention_mask=batch.long.attention_mask,
            )
        slots, present = stack_slots(captions)
        loss = image_text_contrastive_loss(images, slots, model.logit_scale.exp(), present)
        (loss / len(batches)).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return gradient


@pytest.mark.parametrize("tokens_per_chunk", [None, 60])
@pytest.mark.parametrize("mixed_precision, dtype", [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_a_step_is_the_plain_computation(make_accelerator, mixed_precision, dtype, tokens_per_chunk):
    """Of two batches of an accumulation, some captions absent; at a rate of 1 weights move by the gradient."""
    accelerator = make_accelerator(gradient_accumulation_steps=2, mixed_precision=mixed_precision)
    torch.manual_seed(0)
    model = LotlipModel(tiny_config(dropout=0.0, initializer_range=0.1)).eval()
    batches = [draw_batch(1), draw_batch(2)]
    expected = compute_by_hand(model, batches, dtype)
    contrastive_model = ContrastiveModel(model, ObjectiveLoss(OBJECTIVES["lotlip"])).eval()
    wrapped, optimizer = accelerator.prepare(
        contrastive_model, torch.optim.SGD(contrastive_model.parameters(), lr=1.0)
    )
    before = get_weights(model)
    options = StepOptions(tokens_per_chunk, max_grad_norm=0)
    for batch in batches:
        result = train_step(wrapped, batch, optimizer, accelerator, options)
    assert result.is_taken
    error = (before - get_weights(model) - expected).norm() / expected.norm()
    assert error < (1e-4 if dtype == torch.float32 else 0.03)
