"""Losses: value and gradients against single rows in float64, and what every loss has without a line in it."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import logsigmoid, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_lotlip.losses import LOSSES, contrastive_loss, global_loss, pairs
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss


DIM, NUM_COMPONENTS = 8, 3


def each_row(image_embeds, text_embeds, scale, present, groups) -> torch.Tensor:
    """The loss with the rows and columns that do not count taken out."""
    losses = []
    for slot in range(text_embeds.shape[1]):
        rows = present[:, slot].nonzero()[:, 0].tolist()
        if len(rows) < 2:
            continue
        logits = scale * text_embeds[:, slot] @ image_embeds.t()
        terms = []
        for row in rows:
            others = [other for other in rows if slot > 0 or other == row or groups[other] != groups[row]]
            terms.append(
                0.5 * (logits[row, others].logsumexp(0) + logits[others, row].logsumexp(0)) - logits[row, row]
            )
        losses.append(sum(terms) / len(rows))
    return sum(losses) / max(1, len(losses)) + 0 * (image_embeds.sum() + text_embeds.sum() + scale)


def pair_by_pair(image_embeds, text_embeds, scale, bias, present, groups) -> torch.Tensor:
    """The sigmoid loss of every pair that counts, one after the other."""
    losses = []
    for slot in range(text_embeds.shape[1]):
        rows = present[:, slot].nonzero()[:, 0].tolist()
        if len(rows) < 2:
            continue
        total = 0
        for row in rows:
            for other in rows:
                logit = scale * text_embeds[row, slot] @ image_embeds[other] + bias
                if row == other:
                    total = total - logsigmoid(logit)
                elif slot > 0 or groups[row] != groups[other]:
                    total = total - logsigmoid(-logit)
        losses.append(total / len(rows))
    return sum(losses) / max(1, len(losses)) + 0 * (image_embeds.sum() + text_embeds.sum() + scale + bias)


def token_by_token(images, texts, scale, present, groups) -> torch.Tensor:
    """FILIP's loss from the similarities of single pairs, without the tokens, rows and columns that do not count."""
    losses = []
    for slot in range(texts.shape[1]):
        rows = present[:, slot].any(dim=1).nonzero()[:, 0].tolist()
        if len(rows) < 2:
            continue
        terms = []
        for row in rows:
            others = [other for other in rows if slot > 0 or other == row or groups[other] != groups[row]]
            image_to_text, text_to_image = [], []
            for other in others:
                with_text = images[row] @ texts[other, slot][present[other, slot]].t()
                image_to_text.append(scale * with_text.max(dim=1).values.mean())
                with_image = images[other] @ texts[row, slot][present[row, slot]].t()
                text_to_image.append(scale * with_image.max(dim=0).values.mean())
            own = others.index(row)
            terms += [torch.stack(logits).logsumexp(0) - logits[own] for logits in (image_to_text, text_to_image)]
        losses.append(0.5 * sum(terms) / len(rows))
    return sum(losses) / max(1, len(losses)) + 0 * (images.sum() + texts.sum() + scale)


def with_components(images, texts, scale, present, groups) -> torch.Tensor:
    """Long-CLIP's loss: the first slot with images of which the primary components are left."""
    rows = images.detach()[present.any(dim=1)]
    centered = rows - rows.mean(dim=0)
    largest = torch.linalg.eigh(centered.t() @ centered).eigenvectors[:, -NUM_COMPONENTS:]
    coarse = rows.mean(dim=0) + (images - rows.mean(dim=0)) @ largest @ largest.t()
    slots = [each_row(coarse, texts[:, :1], scale, present[:, :1], groups)]
    for slot in range(1, texts.shape[1]):
        others = torch.arange(len(images))
        slots.append(each_row(images, texts[:, slot, None], scale, present[:, slot, None], others))
    is_counted = present.sum(dim=0) > 1
    return (torch.stack(slots) * is_counted).sum() / is_counted.sum().clamp(min=1)


def make_inputs(
    name: str, num_rows: int, num_slots: int, seed: int
) -> tuple[list[torch.Tensor], list[str], torch.Tensor]:
    """Embeddings, absent ones among them, with scalars and options of a loss; and groups of equal short captions."""
    generator = torch.Generator().manual_seed(seed)
    lengths = ([5], [6]) if name == "token_wise" else ([], [])
    shapes = (num_rows, *lengths[0], DIM), (num_rows, num_slots, *lengths[1], DIM)
    images, texts = (normalize(torch.randn(shape, generator=generator), dim=-1) for shape in shapes)
    texts[torch.rand(texts.shape[:2], generator=generator) < 0.3] = 0
    if name == "token_wise":
        texts *= (torch.arange(6) < torch.randint(1, 7, (num_rows, num_slots, 1), generator=generator))[..., None]
    scalars = {"logit_scale": 1 + 9 * torch.rand((), generator=generator)}
    if name == "sigmoid":
        scalars["logit_bias"] = torch.tensor(-3.0)
    groups = torch.randint(0, max(1, num_rows // 2), (num_rows,), generator=generator)
    return [images, texts, *scalars.values()], list(scalars), groups


OPTIONS = {"primary_component": {"num_components": NUM_COMPONENTS}}
# A new loss: its name, and the same by single rows
BY_SINGLE_ROWS = {
    "contrastive": each_row,
    "sigmoid": pair_by_pair,
    "token_wise": token_by_token,
    "primary_component": with_components,
}


def test_every_loss_is_tested():
    assert LOSSES.keys() == BY_SINGLE_ROWS.keys()


def compute(name: str, inputs: list[torch.Tensor], scalars: list[str], **options) -> tuple[torch.Tensor, torch.Tensor]:
    images, texts, *values = inputs
    return global_loss(LOSSES[name], images, texts, **dict(zip(scalars, values)), **OPTIONS.get(name, {}), **options)


def assert_same_gradients(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        largest = theirs.abs().max().clamp(min=1e-3).item()
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("num_rows, num_slots", [(7, 4), (12, 1), (2, 2), (20, 3), (1, 2)])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradients_are_those_of_single_rows_in_float64(monkeypatch, name, num_rows, num_slots):
    inputs, scalars, groups = make_inputs(name, num_rows, num_slots, seed=num_rows)
    if num_rows == 20:
        inputs[1][1:, 2] = 0  # one pair is no contrast
    monkeypatch.setattr(pairs, "BLOCK_SIZE", 3 * inputs[1].shape[:2].numel() * (30 if name == "token_wise" else 1))
    trained = [x.requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in trained]
    loss, slot_losses = compute(name, trained, scalars, short_groups=groups)
    present = trained[1].detach() != 0
    present = present.any(dim=-1) if name == "token_wise" else present.flatten(2).any(dim=-1)
    expected = BY_SINGLE_ROWS[name](*exact, present, groups)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    if slot_losses.isfinite().any():
        torch.testing.assert_close(slot_losses.nanmean(), loss.detach())
    found = torch.autograd.grad(3 * loss, trained)
    assert_same_gradients(found, torch.autograd.grad(3 * expected, exact))
    assert not found[1][trained[1] == 0].any(), "none for what is absent"


@pytest.mark.parametrize("name", LOSSES)
def test_hard_negatives_are_further_columns_of_their_own_image(name):
    """As if each image were alone with them, in a loss whose images have them as texts."""
    inputs, scalars, _ = make_inputs(name, 6, 3, seed=1)
    inputs[1][:] = make_inputs(name, 6, 3, seed=2)[0][1]
    images, texts, *values = [x.requires_grad_() for x in inputs]
    false = make_inputs(name, 6, 4, seed=3)[0][1].requires_grad_()  # two of each of two long captions
    trained = [images, torch.cat([texts, false], dim=1), *values]
    plain, with_negatives = (
        compute(name, [images, texts, *values], scalars),
        compute(name, trained, scalars, num_hard_negatives=2),
    )
    torch.testing.assert_close(with_negatives.slot_losses[0], plain.slot_losses[0], equal_nan=True)
    assert (with_negatives.slot_losses[1:] > plain.slot_losses[1:]).all(), "they are no positives"
    gradient = torch.autograd.grad(with_negatives.loss, false)[0]
    assert gradient[(false != 0)].abs().sum() > 0 and not gradient[false == 0].any()
    without = compute(
        name, [images, torch.cat([texts, torch.zeros_like(false)], dim=1), *values], scalars, num_hard_negatives=2
    )
    torch.testing.assert_close(without.loss, plain.loss)


@pytest.mark.parametrize("number", [1, 2])
def test_hard_negatives_of_the_contrastive_loss_are_those_of_float64(number):
    inputs, scalars, groups = make_inputs("contrastive", 9, 3, seed=number)
    false = make_inputs("contrastive", 9, 2 * number, seed=7)[0][1]
    trained = [x.requires_grad_() for x in (*inputs, false)]
    exact = [x.detach().double().requires_grad_() for x in trained]
    embeds = [trained[0], torch.cat([trained[1], trained[3]], dim=1), trained[2]]
    loss = compute("contrastive", embeds, scalars, short_groups=groups, num_hard_negatives=number).loss

    images, texts, factor, false = exact
    present = (texts != 0).any(dim=-1)
    expected = each_row(images, texts, factor, present, groups) + 0 * false.sum()
    counted = [slot for slot in range(3) if present[:, slot].sum() > 1]
    for slot in {1, 2}.intersection(counted):
        rows = present[:, slot].nonzero()[:, 0]
        logits = factor * images[rows] @ texts[rows, slot].t()
        for row, own in zip(rows.tolist(), logits):
            of_row = false[row].reshape(number, 2, -1)[:, slot - 1]
            of_row = factor * of_row[(of_row != 0).any(dim=-1)] @ images[row]
            added = torch.cat([own, of_row]).logsumexp(0) - own.logsumexp(0)
            expected = expected + 0.5 * added / len(rows) / len(counted)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    assert_same_gradients(torch.autograd.grad(loss, trained), torch.autograd.grad(expected, exact))


def test_hard_negatives_of_other_slots_are_refused():
    inputs, scalars, _ = make_inputs("contrastive", 4, 4, seed=0)
    with pytest.raises(ValueError, match="has 4 slots: the 3 behind the first must divide by 2"):
        compute("contrastive", inputs, scalars, num_hard_negatives=1)


@pytest.mark.parametrize("name", LOSSES)
def test_matryoshka_is_the_mean_over_prefixes(name):
    inputs, scalars, groups = make_inputs(name, 9, 3, seed=4)
    images, texts, *values = trained = [x.requires_grad_() for x in inputs]
    loss = compute(name, trained, scalars, short_groups=groups, matryoshka_dims=[4, DIM, 5]).loss
    prefixes = [[normalize(x[..., :dim], dim=-1) for x in (images, texts)] for dim in (5, 4)]
    parts = [
        compute(name, [*embeds, *values], scalars, short_groups=groups).loss for embeds in ([images, texts], *prefixes)
    ]
    expected = torch.stack(parts).mean()
    torch.testing.assert_close(loss, expected)
    assert_same_gradients(torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained))


@pytest.mark.parametrize("dim", [0, DIM + 1])
def test_dims_that_are_not_there_are_refused(dim):
    inputs, scalars, _ = make_inputs("contrastive", 4, 2, seed=0)
    with pytest.raises(ValueError, match=f"must be from 1 to {DIM}, the dimensions of an embedding, got {dim}"):
        compute("contrastive", inputs, scalars, matryoshka_dims=[dim])


def cut_rows(name: str, rank: int | None, number: int) -> tuple[list[torch.Tensor], list[str], dict]:
    """The inputs of a process, with everything that every loss can have; the second one has shorter texts."""
    inputs, scalars, groups = make_inputs(name, 3 * number, 3, seed=number)
    false = make_inputs(name, 3 * number, 2, seed=5)[0][1]
    if name == "token_wise":
        inputs[1][3:6, :, 4:], false[3:6, :, 4:] = 0, 0
    rows = slice(3 * rank, 3 * rank + 3) if rank is not None else slice(None)
    texts = torch.cat([inputs[1], false], dim=1)[rows]
    if name == "token_wise" and rank == 1:
        texts = texts[:, :, :4]
    trained = [inputs[0][rows], texts, *inputs[2:]]
    options = {"short_groups": groups[rows], "num_hard_negatives": 1, "matryoshka_dims": [4]}
    return [x.clone().requires_grad_() for x in trained], scalars, options


def work(rank: int, number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", number), rank=rank, world_size=number)
    results = {}
    for name in LOSSES:
        trained, scalars, options = cut_rows(name, rank, number)
        loss, slot_losses = compute(name, trained, scalars, **options)
        results[name] = [loss.detach(), slot_losses, *torch.autograd.grad(loss, trained)]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("number", [2, 3])
def test_several_processes_share_a_loss_out(tmp_path, number):
    mp.start_processes(work, (number, str(tmp_path)), number, start_method="fork")
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(number)]
    for name in LOSSES:
        trained, scalars, options = cut_rows(name, None, number)
        loss, slot_losses = compute(name, trained, scalars, **options)
        images, texts, *of_scalars = torch.autograd.grad(loss, trained)
        for found in results:
            torch.testing.assert_close(found[name][:2], [loss.detach(), slot_losses], equal_nan=True)
            torch.testing.assert_close(found[name][4:], of_scalars, rtol=1e-4, atol=1e-6)
        # data parallelism averages over the processes
        torch.testing.assert_close(torch.cat([r[name][2] for r in results]), number * images, rtol=1e-4, atol=1e-6)
        for rank, found in enumerate(results):
            own = texts[3 * rank : 3 * rank + 3, :, : found[name][3].shape[2]] if name == "token_wise" else None
            own = texts[3 * rank : 3 * rank + 3] if own is None else own
            torch.testing.assert_close(found[name][3], number * own, rtol=1e-4, atol=1e-6)


def test_the_contrastive_loss_is_the_plain_one_of_the_model():
    images, texts, scale = make_inputs("contrastive", 40, 4, seed=1)[0]
    present = (texts != 0).any(dim=-1)
    loss = global_loss(contrastive_loss, images, texts, logit_scale=scale).loss
    torch.testing.assert_close(loss, image_text_contrastive_loss(images, texts, scale, present))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss, global_loss(contrastive_loss, images, texts, logit_scale=scale).loss)
    assert global_loss(contrastive_loss, images, torch.zeros_like(texts), logit_scale=scale).loss == 0


def test_primary_components_of_what_is_not_finite_are_not_either():
    """The training skips such a step and says so: it must get that far."""
    images, texts, scale = make_inputs("primary_component", 20, 3, seed=0)[0]
    for value in (torch.nan, torch.inf):
        broken = images.index_fill(0, torch.tensor([4]), value).requires_grad_()
        loss, _ = compute("primary_component", [broken, texts, scale], ["logit_scale"])
        loss.backward()
        assert not loss.isfinite()


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
            if isinstance(output, torch.Tensor):
                self.numel = max(self.numel, output.numel())
        return outputs


@pytest.mark.parametrize("name", LOSSES)
def test_memory_does_not_grow_with_the_square_of_the_batch(monkeypatch, name):
    monkeypatch.setattr(pairs, "BLOCK_SIZE", 40_000)
    largest = {}
    for num_rows in (250, 500):
        inputs, scalars, groups = make_inputs(name, num_rows, 2, seed=0)
        with LargestTensor() as mode:
            loss, _ = compute(name, [x.requires_grad_() for x in inputs], scalars, short_groups=groups)
            loss.backward()
        largest[num_rows] = mode.numel
    assert max(largest.values()) <= max(40_000, inputs[1].numel())
