"""Losses: value and gradients against single rows in float64, and what every loss has without a line in it."""

import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import logsigmoid, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_lotlip.losses import LOSSES, contrastive_loss, global_loss
from modeling_lotlip.modeling_lotlip import image_text_contrastive_loss


MODULE = sys.modules["modeling_lotlip.losses.global_loss"]  # the function has its name
DIM, NUM_COMPONENTS = 8, 3
OPTIONS = {"primary_component": {"num_components": NUM_COMPONENTS}}


def cross_entropies(of_texts: torch.Tensor, of_images: torch.Tensor) -> torch.Tensor:
    return -0.5 * (of_texts.log_softmax(0)[0] + of_images.log_softmax(0)[0])


# A new loss: its name, and that of a row, from its logits with texts and with images that count, its pair's first
OF_A_ROW = {
    "contrastive": cross_entropies,
    "contrastive of tokens": cross_entropies,
    "sigmoid": lambda of_texts, of_images: -logsigmoid(of_texts[0]) - logsigmoid(-of_texts[1:]).sum(),
    "primary_component": cross_entropies,
}


def test_every_loss_is_tested():
    assert LOSSES.keys() <= OF_A_ROW.keys()


def similarity(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    if query.dim() == 1:
        return query @ key
    query, key = (tokens[(tokens != 0).any(dim=-1)] for tokens in (query, key))
    return (query @ key.t()).amax(dim=1).mean()


def by_single_rows(name, images, texts, false, groups, logit_scale, logit_bias=0.0) -> torch.Tensor:
    """A loss with all rows, columns and tokens that do not count taken out."""
    present, false_present = ((embeds.detach() != 0).flatten(2).any(dim=2) for embeds in (texts, false))
    losses = [0 * (images.sum() + texts.sum() + false.sum() + logit_scale + logit_bias)]
    for slot in range(texts.shape[1]):
        rows, slot_images = present[:, slot].nonzero()[:, 0].tolist(), images
        if len(rows) < 2:
            continue
        if name == "primary_component" and slot == 0:
            mean = images.detach()[present.any(dim=1)].mean(dim=0)
            centered = images.detach()[present.any(dim=1)] - mean
            largest = torch.linalg.eigh(centered.t() @ centered).eigenvectors[:, -NUM_COMPONENTS:]
            slot_images = mean + (images - mean) @ largest @ largest.t()
        terms = []
        for row in rows:
            others = [other for other in rows if other != row and (slot > 0 or groups[other] != groups[row])]
            wrong = [] if slot == 0 else range(slot - 1, false.shape[1], texts.shape[1] - 1)
            wrong = [false[row, place] for place in wrong if false_present[row, place]]
            of_texts = [similarity(slot_images[row], text) for text in [*texts[[row, *others], slot], *wrong]]
            of_images = [similarity(texts[row, slot], image) for image in slot_images[[row, *others]]]
            logits = (logit_scale * torch.stack(values) + logit_bias for values in (of_texts, of_images))
            terms.append(OF_A_ROW[name](*logits))
        losses.append(torch.stack(terms).mean())
    return sum(losses) / max(1, len(losses) - 1)


def make_inputs(name: str, num_rows: int, num_slots: int, seed: int) -> tuple[list[torch.Tensor], dict, torch.Tensor]:
    """Embeddings, absent ones among them, scalars of a loss, and groups of equal short captions."""
    generator = torch.Generator().manual_seed(seed)
    lengths = ([5], [6]) if "tokens" in name else ([], [])
    shapes = (num_rows, *lengths[0], DIM), (num_rows, num_slots, *lengths[1], DIM)
    images, texts = (normalize(torch.randn(shape, generator=generator), dim=-1) for shape in shapes)
    texts[torch.rand(texts.shape[:2], generator=generator) < 0.3] = 0
    if "tokens" in name:
        texts *= (torch.arange(6) < torch.randint(1, 7, (num_rows, num_slots, 1), generator=generator))[..., None]
    scalars = {"logit_scale": 1 + 9 * torch.rand((), generator=generator)}
    if name == "sigmoid":
        scalars["logit_bias"] = torch.tensor(-3.0)
    return [images, texts], scalars, torch.randint(0, max(1, num_rows // 2), (num_rows,), generator=generator)


def train(*tensors: torch.Tensor, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


def compute(name: str, images, texts, scalars: dict, **options) -> tuple[torch.Tensor, torch.Tensor]:
    return global_loss(LOSSES[name.split()[0]], images, texts, **scalars, **OPTIONS.get(name, {}), **options)


def assert_same_gradients(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        largest = max(1e-3, *theirs.abs().flatten().tolist(), 0)
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    "num_rows, num_slots, num_hard_negatives", [(7, 4, 0), (9, 3, 2), (12, 1, 0), (2, 2, 0), (20, 3, 1), (1, 2, 0)]
)
@pytest.mark.parametrize("name", OF_A_ROW)
def test_value_and_gradients_are_those_of_single_rows_in_float64(
    monkeypatch, name, num_rows, num_slots, num_hard_negatives
):
    (images, texts), scalars, groups = make_inputs(name, num_rows, num_slots, seed=num_rows)
    num_false = num_hard_negatives * (num_slots - 1)
    false = make_inputs(name, num_rows, num_false, seed=7)[0][1]
    if num_rows == 20:
        texts[1:, 2] = 0  # one pair is no contrast
    monkeypatch.setattr(MODULE, "BLOCK_SIZE", 3 * texts.shape[:2].numel() * (30 if "tokens" in name else 1))
    trained, exact = (train(images, texts, false, *scalars.values(), dtype=t) for t in (torch.float32, torch.float64))
    embeds, values = (trained[0], torch.cat(trained[1:3], dim=1)), dict(zip(scalars, trained[3:]))
    options = {"short_groups": groups, "num_hard_negatives": num_hard_negatives}
    loss, slot_losses = compute(name, *embeds, values, **options)
    expected = by_single_rows(name, *exact[:3], groups, *exact[3:])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    if slot_losses.isfinite().any():
        torch.testing.assert_close(slot_losses.nanmean(), loss.detach())
    found = torch.autograd.grad(3 * loss, trained)
    assert_same_gradients(found, torch.autograd.grad(3 * expected, exact))
    assert not found[1][trained[1] == 0].any() and not found[2][trained[2] == 0].any(), "none for what is absent"


@pytest.mark.parametrize("name", OF_A_ROW)
def test_matryoshka_is_the_mean_over_prefixes(name):
    embeds, scalars, groups = make_inputs(name, 9, 3, seed=4)
    images, texts, *values = trained = train(*embeds, *scalars.values())
    scalars = dict(zip(scalars, values))
    loss, _ = compute(name, images, texts, scalars, short_groups=groups, matryoshka_dims=[4, DIM, 5])
    parts = [(images, texts), *([normalize(x[..., :dim], dim=-1) for x in (images, texts)] for dim in (5, 4))]
    expected = torch.stack([compute(name, *part, scalars, short_groups=groups)[0] for part in parts]).mean()
    torch.testing.assert_close(loss, expected)
    assert_same_gradients(torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained))


@pytest.mark.parametrize("dim", [0, DIM + 1])
def test_dims_that_are_not_there_are_refused(dim):
    embeds, scalars, _ = make_inputs("contrastive", 4, 2, seed=0)
    with pytest.raises(ValueError, match=f"must be from 1 to {DIM}, the dimensions of an embedding, got {dim}"):
        compute("contrastive", *embeds, scalars, matryoshka_dims=[dim])


def compute_share(name: str, rank: int | None, number: int) -> list[torch.Tensor]:
    """Loss and gradients of a process, with everything that every loss can have; the second one has shorter texts."""
    (images, texts), scalars, groups = make_inputs(name, 3 * number, 3, seed=number)
    texts = torch.cat([texts, make_inputs(name, 3 * number, 2, seed=5)[0][1]], dim=1)
    rows = slice(3 * rank, 3 * rank + 3) if rank is not None else slice(None)
    if "tokens" in name:
        texts[3:6, :, 4:] = 0
    texts = texts[rows, :, :4] if "tokens" in name and rank == 1 else texts[rows]
    trained = train(images[rows], texts, *scalars.values())
    options = {"short_groups": groups[rows], "num_hard_negatives": 1, "matryoshka_dims": [4]}
    loss, slot_losses = compute(name, *trained[:2], dict(zip(scalars, trained[2:])), **options)
    return [loss.detach(), slot_losses, *torch.autograd.grad(loss, trained)]


def work(rank: int, number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", number), rank=rank, world_size=number)
    torch.save({name: compute_share(name, rank, number) for name in OF_A_ROW}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("number", [2, 3])
def test_several_processes_share_a_loss_out(tmp_path, number):
    mp.start_processes(work, (number, str(tmp_path)), number, start_method="fork")
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(number)]
    for name in OF_A_ROW:
        loss, slot_losses, images, texts, *of_scalars = compute_share(name, None, number)
        for rank, result in enumerate(results):
            found, rows = result[name], slice(3 * rank, 3 * rank + 3)
            torch.testing.assert_close(found[:2], [loss, slot_losses], equal_nan=True)
            torch.testing.assert_close(found[4:], of_scalars, rtol=1e-4, atol=1e-6)
            # data parallelism averages over the processes
            torch.testing.assert_close(found[2], number * images[rows], rtol=1e-4, atol=1e-6)
            own = texts[rows, :, : found[3].shape[2]] if "tokens" in name else texts[rows]
            torch.testing.assert_close(found[3], number * own, rtol=1e-4, atol=1e-6)


def test_the_contrastive_loss_is_the_plain_one_of_the_model():
    (images, texts), scalars, _ = make_inputs("contrastive", 40, 4, seed=1)
    loss, _ = global_loss(contrastive_loss, images, texts, **scalars)
    plain = image_text_contrastive_loss(images, texts, scalars["logit_scale"], (texts != 0).any(dim=-1))
    torch.testing.assert_close(loss, plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss, global_loss(contrastive_loss, images, texts, **scalars)[0])
    assert global_loss(contrastive_loss, images, torch.zeros_like(texts), **scalars)[0] == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_primary_components_of_what_is_not_finite_are_not_either(value):
    """The training skips such a step and says so: it must get that far."""
    (images, texts), scalars, _ = make_inputs("primary_component", 20, 3, seed=0)
    images[4] = value
    loss, _ = compute("primary_component", images.requires_grad_(), texts, scalars)
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


@pytest.mark.parametrize("name", OF_A_ROW)
def test_memory_does_not_grow_with_the_square_of_the_batch(monkeypatch, name):
    monkeypatch.setattr(MODULE, "BLOCK_SIZE", 40_000)
    embeds, scalars, groups = make_inputs(name, 100 if "tokens" in name else 500, 2, seed=0)
    with LargestTensor() as mode:
        loss, _ = compute(name, *train(*embeds), scalars, short_groups=groups)
        loss.backward()
    assert mode.numel <= max(40_000, embeds[1].numel())


@pytest.mark.parametrize(("short_weight", "long_weight"), [(3.0, 1.0), (0.0, 2.0), (0.5, 0.0)])
def test_the_loss_is_a_mean_of_slots_by_weight(short_weight, long_weight):
    embeds, scalars, _ = make_inputs("contrastive", 6, 3, seed=0)
    weights = {"short_weight": short_weight, "long_weight": long_weight}
    loss, slots = global_loss(contrastive_loss, *embeds, **scalars, **weights)
    expected = (short_weight * slots[0] + long_weight * (slots[1] + slots[2])) / (short_weight + 2 * long_weight)
    torch.testing.assert_close(loss, expected)


def test_a_slot_without_pairs_has_no_weight():
    (images, texts), scalars, _ = make_inputs("contrastive", 6, 3, seed=0)
    texts[:, 1] = 0
    loss, slots = global_loss(contrastive_loss, images, texts, **scalars, short_weight=2.0)
    torch.testing.assert_close(loss, (2 * slots[0] + slots[2]) / 3)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"short_weight": -1.0}, "`short_weight` must be a number from 0 up, got -1.0"),
        ({"long_weight": float("nan")}, "`long_weight` must be a number from 0 up, got nan"),
        ({"short_weight": 0.0, "long_weight": 0.0}, "are both 0"),
    ],
)
def test_weights_that_are_no_weights_are_refused(weights, message):
    (images, texts), scalars, _ = make_inputs("contrastive", 6, 3, seed=0)
    with pytest.raises(ValueError, match=message):
        global_loss(contrastive_loss, images, texts, **scalars, **weights)
