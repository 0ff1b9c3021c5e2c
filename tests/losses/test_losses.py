import threading
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_lotlip.losses import (
    blockwise_contrastive_loss,
    blockwise_sigmoid_loss,
    primary_component_contrastive_loss,
    token_wise_contrastive_loss,
)
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss


def random_inputs(batch_size: int, slots: int, seed: int, dim: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(batch_size, 1 + slots, dim, generator=generator)
    embeds = torch.nn.functional.normalize(embeds, dim=-1)
    scale = 1 + 99 * torch.rand((), generator=generator)
    present = torch.rand(batch_size, slots, generator=generator) > 0.3
    groups = torch.randint(0, max(1, batch_size // 2), (batch_size,), generator=generator)
    return [embeds[:, 0].clone(), embeds[:, 1:].clone(), scale, present, groups]


def row_by_row(image_embeds, text_embeds, scale, present, groups) -> torch.Tensor:
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
                    total = total - torch.nn.functional.logsigmoid(logit)
                elif slot > 0 or groups[row] != groups[other]:
                    total = total - torch.nn.functional.logsigmoid(-logit)
        losses.append(total / len(rows))
    return sum(losses) / max(1, len(losses)) + 0 * (image_embeds.sum() + text_embeds.sum() + scale + bias)


def assert_same_loss_and_gradients(loss, trained, expected, exact) -> None:
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    (3 * loss).backward()
    (3 * expected).backward()
    for ours, theirs in zip(trained, exact):
        largest = theirs.grad.abs().max().clamp(min=1e-3).item()
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("seed", range(4))
def test_hard_negatives_are_further_columns_of_their_own_image(seed):
    """Value and gradients, row by row in float64, also where one or the whole caption is absent."""
    batch_size, slots, number = [(7, 4, 1), (9, 3, 2), (3, 2, 3), (12, 2, 1)][seed]
    image_embeds, text_embeds, scale, present, groups = random_inputs(batch_size, slots, seed)
    false_embeds = random_inputs(batch_size, number * (slots - 1), 100 + seed)[1]
    false_embeds[1, 0], false_embeds[2] = 0, 0
    trained = [x.requires_grad_() for x in (image_embeds, text_embeds, false_embeds, scale / 10)]
    exact = [x.detach().double().requires_grad_() for x in trained]
    all_present = torch.cat([present, (trained[2] != 0).any(dim=-1)], dim=1)
    loss = blockwise_contrastive_loss(
        trained[0],
        torch.cat(trained[1:3], dim=1),
        trained[3],
        all_present,
        groups,
        num_hard_negatives=number,
        block_size=3 * slots * batch_size,
    )

    images, texts, false, factor = exact
    expected = row_by_row(images, texts, factor, present, groups) + 0 * false.sum()
    counted = [slot for slot in range(slots) if present[:, slot].sum() > 1]
    for slot in counted:
        rows = present[:, slot].nonzero()[:, 0]
        logits = factor * images[rows] @ texts[rows, slot].t()
        for row, own in zip(rows.tolist(), logits):
            if slot > 0:
                of_row = false[row].reshape(number, slots - 1, -1)[:, slot - 1]
                of_row = factor * of_row[(of_row != 0).any(dim=-1)] @ images[row]
                added = torch.cat([own, of_row]).logsumexp(0) - own.logsumexp(0)
                expected = expected + 0.5 * added / len(rows) / len(counted)
    assert_same_loss_and_gradients(loss, trained, expected, exact)


def test_hard_negatives_of_other_slots_are_refused():
    image_embeds, text_embeds, scale, *_ = random_inputs(4, 4, 0)
    with pytest.raises(ValueError, match="has 4 slots: the 3 behind the first must divide by 2"):
        blockwise_contrastive_loss(image_embeds, text_embeds, scale, num_hard_negatives=1)


@pytest.mark.parametrize("seed", range(4))
def test_sigmoid_loss_is_that_of_float64(seed):
    batch_size, slots = [(7, 4), (12, 1), (2, 2), (9, 3)][seed]
    image_embeds, text_embeds, scale, present, groups = random_inputs(batch_size, slots, seed)
    trained = [x.requires_grad_() for x in (image_embeds, text_embeds, scale / 10, torch.tensor(-3.0))]
    exact = [x.detach().double().requires_grad_() for x in trained]
    loss, slot_losses = blockwise_sigmoid_loss(
        *trained, present, groups, block_size=3 * slots * batch_size, return_slot_losses=True
    )
    expected = pair_by_pair(*exact, present, groups)
    torch.testing.assert_close(slot_losses.nanmean().detach(), loss.detach())
    assert_same_loss_and_gradients(loss, trained, expected, exact)


def random_tokens(batch_size: int, slots: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of five tokens of each image and of up to six of each text, and which tokens of texts there are."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch_size, 5, 4, generator=generator)
    texts = torch.randn(batch_size, slots, 6, 4, generator=generator)
    lengths = torch.randint(0, 7, (batch_size, slots, 1), generator=generator)
    images, texts = (torch.nn.functional.normalize(embeds, dim=-1) for embeds in (images, texts))
    return images, texts, torch.arange(6) < lengths


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


@pytest.mark.parametrize("seed", range(4))
def test_token_wise_loss_is_that_of_float64(seed):
    batch_size, slots = [(7, 3), (12, 1), (2, 2), (9, 4)][seed]
    images, texts, present = random_tokens(batch_size, slots, seed)
    _, _, scale, _, groups = random_inputs(batch_size, slots, seed)
    trained = [x.requires_grad_() for x in (images, texts, scale)]
    exact = [x.detach().double().requires_grad_() for x in trained]
    loss = token_wise_contrastive_loss(*trained, present, groups, block_size=2 * batch_size * slots * 30)
    expected = token_by_token(*exact, present, groups)
    assert_same_loss_and_gradients(loss, trained, expected, exact)


@pytest.mark.parametrize("slots", [1, 3])
def test_primary_component_loss_is_that_of_float64(slots):
    image_embeds, text_embeds, scale, present, groups = random_inputs(20, slots, seed=slots)
    trained = [x.requires_grad_() for x in (image_embeds, text_embeds, scale)]
    exact = [x.detach().double().requires_grad_() for x in trained]
    loss, slot_losses = primary_component_contrastive_loss(
        *trained, present, groups, num_components=3, return_slot_losses=True
    )

    rows = exact[0].detach()[present.any(dim=1)]
    largest = torch.linalg.eigh((rows - rows.mean(dim=0)).t() @ (rows - rows.mean(dim=0))).eigenvectors[:, -3:]
    coarse = rows.mean(dim=0) + (exact[0] - rows.mean(dim=0)) @ largest @ largest.t()
    expected = row_by_row(coarse, exact[1][:, :1], exact[2], present[:, :1], groups)
    if slots > 1:
        of_long_captions = row_by_row(exact[0], exact[1][:, 1:], exact[2], present[:, 1:], torch.arange(20))
        expected = (expected + (slots - 1) * of_long_captions) / slots
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slot_losses.mean().detach(), loss.detach())
    loss.backward()
    expected.backward()
    for ours, theirs in zip(trained, exact):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0, atol=1e-5 * theirs.grad.abs().max().item())


def test_primary_components_of_what_is_not_finite_are_not_either():
    """The training skips such a step and says so: it must get that far."""
    image_embeds, text_embeds, scale, *_ = random_inputs(20, 3, seed=0)
    for value in (torch.nan, torch.inf):
        broken = image_embeds.index_fill(0, torch.tensor([4]), value).requires_grad_()
        loss = primary_component_contrastive_loss(broken, text_embeds, scale, num_components=3)
        loss.backward()
        assert not loss.isfinite()


class Together:
    """Threads instead of processes: each gathers what all have brought."""

    def __init__(self, number: int):
        self.barrier, self.brought = threading.Barrier(number), [None] * number

    def gather(self, own: torch.Tensor, index: int) -> torch.Tensor:
        self.brought[index] = own.detach()
        self.barrier.wait(timeout=60)
        everyone = torch.cat(self.brought)
        self.barrier.wait(timeout=60)
        return everyone


@pytest.mark.parametrize("num_processes", [2, 5])
@pytest.mark.parametrize(
    "function",
    [
        blockwise_contrastive_loss,
        blockwise_sigmoid_loss,
        token_wise_contrastive_loss,
        partial(primary_component_contrastive_loss, num_components=4),
    ],
)
def test_processes_share_a_loss_out(function, num_processes):
    image_embeds, text_embeds, scale, present, groups = random_inputs(3 * num_processes, 4, seed=num_processes)
    scalars = [scale / 10] + [torch.tensor(-2.0)] * (function is blockwise_sigmoid_loss)
    is_token_wise = function is token_wise_contrastive_loss
    if is_token_wise:
        image_embeds, text_embeds, present = random_tokens(3 * num_processes, 4, seed=num_processes)
        present[3:6, :, 4:] = False  # the second process has shorter texts

    def run(rows: slice, index: int = 0, **arguments) -> list[torch.Tensor]:
        own_texts, own_present = text_embeds[rows], present[rows]
        if is_token_wise and index == 1:
            own_texts, own_present = own_texts[:, :, :4], own_present[:, :, :4]
        trained = [x.clone().requires_grad_() for x in (image_embeds[rows], own_texts, *scalars)]
        arguments |= {"present": own_present, "short_groups": groups[rows], "process_index": index}
        if not isinstance(function, partial):
            arguments["block_size"] = 2 * present.numel()
        loss = function(*trained, **arguments)
        loss.backward()
        gradients = [x.grad for x in trained]
        if is_token_wise and index == 1:
            gradients[1] = torch.nn.functional.pad(gradients[1], (0, 0, 0, 2))
        return [loss.detach(), *gradients]

    together, results = Together(num_processes), [None] * num_processes

    def work(index: int) -> None:
        rows = slice(3 * index, 3 * index + 3)
        results[index] = run(rows, index, gather=partial(together.gather, index=index))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(num_processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    loss, image_gradient, text_gradient, *scalar_gradients = run(slice(None))
    for own in results:
        torch.testing.assert_close(own[0], loss)
        torch.testing.assert_close(own[3:], scalar_gradients, rtol=1e-4, atol=1e-6)
    for place, whole in ((1, image_gradient), (2, text_gradient)):
        torch.testing.assert_close(torch.cat([own[place] for own in results]), whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", range(8))
def test_value_and_gradients_are_those_of_float64(seed):
    batch_size, slots = [(7, 4), (33, 1), (2, 2), (12, 7), (1, 2), (20, 4), (9, 3), (64, 4)][seed]
    inputs = random_inputs(batch_size, slots, seed)
    if seed == 3:
        inputs[3][:, 2] = torch.arange(batch_size) == 3  # one pair is no contrast
    trained = [tensor.requires_grad_() for tensor in inputs[:3]]
    exact = [tensor.detach().double().requires_grad_() for tensor in trained]
    loss = blockwise_contrastive_loss(*inputs, block_size=5 * slots * batch_size + 1)
    expected = row_by_row(*exact, *inputs[3:])
    assert_same_loss_and_gradients(loss, trained, expected, exact)
    absent = ~inputs[3]
    assert not trained[1].grad[absent].any()


def test_equals_the_plain_loss_of_the_model():
    image_embeds, text_embeds, scale, present, _ = random_inputs(40, 4, seed=1)
    for presence in (None, present):
        loss = blockwise_contrastive_loss(image_embeds, text_embeds, scale, presence, block_size=2500)
        torch.testing.assert_close(loss, image_text_contrastive_loss(image_embeds, text_embeds, scale, presence))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            loss, blockwise_contrastive_loss(image_embeds, text_embeds, scale, present, block_size=2500)
        )
    none = torch.zeros_like(present)
    assert blockwise_contrastive_loss(image_embeds, text_embeds, scale, none) == 0


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
            if isinstance(output, torch.Tensor):
                self.numel = max(self.numel, output.numel())
        return outputs


def test_memory_does_not_grow_with_the_square_of_the_batch():
    largest = {}
    for batch_size in (500, 1000):
        inputs = random_inputs(batch_size, 2, seed=0)
        with LargestTensor() as mode:
            blockwise_contrastive_loss(
                *[x.requires_grad_() for x in inputs[:3]], *inputs[3:], block_size=40_000
            ).backward()
        largest[batch_size] = mode.numel
    assert largest == {500: 40_000, 1000: 40_000}
