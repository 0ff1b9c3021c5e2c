"""Losses: value and gradients against single rows in float64, and what every loss has without a line in it."""

import math
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import logsigmoid, normalize

from modeling_lotlip.losses import (
    LOSSES,
    BatchLoss,
    Pairs,
    Slots,
    check_loss,
    contrastive_loss,
    global_loss,
    image_logits,
    in_blocks,
)
from modeling_lotlip.losses.check import LargestSavedTensor, draw_pairs
from modeling_lotlip.losses.global_loss import average_losses, check_dims, check_weights
from modeling_lotlip.modeling_lotlip import LotlipCaptionEmbeddings, image_text_contrastive_loss


PAIRS_MODULE = sys.modules["modeling_lotlip.losses.pairs"]
DIM = 8
NUM_COMPONENTS = 3
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
    query = query[(query != 0).any(dim=-1)]
    key = key[(key != 0).any(dim=-1)]
    return (query @ key.t()).amax(dim=1).mean()


def weigh(losses: dict[int, torch.Tensor], short_weight: float, long_weight: float) -> torch.Tensor:
    """The weighted mean of the losses of slots, the first of which is that of short captions."""
    weights = {slot: short_weight if slot == 0 else long_weight for slot in losses}
    total = sum(weights.values())
    return sum(weights[slot] * loss for slot, loss in losses.items()) / total if total > 0 else torch.tensor(0.0)


def by_single_rows(name, images, texts, groups, logit_scale, logit_bias=0.0, weights=(1.0, 1.0)) -> torch.Tensor:
    """A loss with all rows, columns and tokens that do not count taken out."""
    present = (texts.detach() != 0).flatten(2).any(dim=2)
    losses = {}
    for slot in range(texts.shape[1]):
        rows = present[:, slot].nonzero()[:, 0].tolist()
        slot_images = images
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
            of_texts = [similarity(slot_images[row], text) for text in texts[[row, *others], slot]]
            of_images = [similarity(texts[row, slot], image) for image in slot_images[[row, *others]]]
            logits = (logit_scale * torch.stack(values) + logit_bias for values in (of_texts, of_images))
            terms.append(OF_A_ROW[name](*logits))
        losses[slot] = torch.stack(terms).mean()
    nothing = 0 * (images.sum() + texts.sum() + logit_scale + logit_bias)
    return nothing + weigh(losses, *weights)


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


def name_captions(texts: torch.Tensor) -> LotlipCaptionEmbeddings:
    """Texts side by side, the short one first, as what a model gives: no corner tokens."""
    present = (texts.detach() != 0).flatten(2).any(dim=2)
    long = {"long": texts[:, 1:], "long_mask": present[:, 1:]} if texts.shape[1] > 1 else {}
    return LotlipCaptionEmbeddings(short=texts[:, 0], short_mask=present[:, 0], **long)


def compute(name: str, images, texts, scalars: dict, **options) -> BatchLoss:
    function = LOSSES[name.split()[0]]
    return global_loss(function, images, name_captions(texts), **scalars, **OPTIONS.get(name, {}), **options)


def assert_same_gradients(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        largest = max(1e-3, *theirs.abs().flatten().tolist(), 0)
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    "num_rows, num_slots, weights",
    [
        (7, 4, (1, 1)),
        (9, 3, (3, 1)),
        (12, 1, (1, 1)),
        (2, 2, (1, 1)),
        (20, 3, (0.5, 2)),
        (1, 2, (1, 1)),
        (5, 3, (0, 1)),
    ],
)
@pytest.mark.parametrize("name", OF_A_ROW)
def test_value_and_gradients_are_those_of_single_rows_in_float64(monkeypatch, name, num_rows, num_slots, weights):
    (images, texts), scalars, groups = make_inputs(name, num_rows, num_slots, seed=num_rows)
    if num_rows == 20:
        texts[1:, 2] = 0  # one pair is no contrast
    similarities_per_row = texts.shape[:2].numel() * (30 if "tokens" in name else 1)
    monkeypatch.setattr(PAIRS_MODULE, "BLOCK_SIZE", 3 * similarities_per_row)
    trained = train(images, texts, *scalars.values())
    exact = train(images, texts, *scalars.values(), dtype=torch.float64)
    options = {"short_groups": groups, "short_weight": weights[0], "long_weight": weights[1]}
    found = compute(name, *trained[:2], dict(zip(scalars, trained[2:])), **options)
    expected = by_single_rows(name, *exact[:2], groups, *exact[2:], weights=weights)
    torch.testing.assert_close(found.loss.double(), expected, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(3 * found.loss, trained)
    assert_same_gradients(gradients, torch.autograd.grad(3 * expected, exact))
    assert not gradients[1][trained[1] == 0].any(), "none for what is absent"


def test_the_loss_is_the_weighted_mean_of_the_losses_of_slots():
    (images, texts), scalars, _ = make_inputs("contrastive", 9, 4, seed=3)
    plain = compute("contrastive", images, texts, scalars)
    torch.testing.assert_close(plain.loss, plain.slot_losses.mean())
    half = compute("contrastive", images, texts, scalars, short_weight=3.0)
    torch.testing.assert_close(half.loss, plain.slot_losses[0] / 2 + plain.slot_losses[1:].mean() / 2)


@pytest.mark.parametrize("weights", [(-1, 1), (1, math.nan), (math.inf, 1), (0, 0)])
def test_weights_that_leave_no_loss_are_refused(weights):
    embeds, scalars, _ = make_inputs("contrastive", 4, 2, seed=0)
    with pytest.raises(ValueError, match="short_weight|long_weight"):
        compute("contrastive", *embeds, scalars, short_weight=weights[0], long_weight=weights[1])


def test_a_term_is_added_by_its_name():
    """The mean over the images that have any text; an image without has no part in it."""
    (images, texts), scalars, _ = make_inputs("contrastive", 6, 3, seed=2)
    texts[:, 0] = images
    texts[4] = 0
    values = torch.arange(6.0).requires_grad_()
    terms = {"mine": (0.5, lambda pairs, all_pairs: values)}
    plain = compute("contrastive", images, texts, scalars)
    found = compute("contrastive", images, texts, scalars, terms=terms)
    expected = (values.detach().sum() - 4) / 5
    torch.testing.assert_close(found.terms["mine"], expected)
    torch.testing.assert_close(found.loss, plain.loss + 0.5 * expected)
    (gradient,) = torch.autograd.grad(found.loss, values)
    torch.testing.assert_close(gradient, torch.tensor([0.1, 0.1, 0.1, 0.1, 0, 0.1]))
    assert found.by_name()["loss_mine"] == pytest.approx(expected.item())


@pytest.mark.parametrize("shape", [(6, 1), (), (6, 2)])
def test_a_term_of_another_shape_is_refused(shape):
    """A value for each long caption, of which there is one, would be counted as often as there are images."""
    (images, texts), scalars, _ = make_inputs("contrastive", 6, 2, seed=2)
    terms = {"mine": (0.5, lambda pairs, all_pairs: torch.ones(shape))}
    with pytest.raises(ValueError, match=r"The term `mine` is of shape \(.*\(rows,\), \(6,\)"):
        compute("contrastive", images, texts, scalars, terms=terms)


@pytest.mark.parametrize("change", [torch.Tensor.t, torch.sum, lambda losses: losses.mean(dim=0)])
def test_a_loss_of_another_shape_is_refused(change):
    (images, texts), scalars, _ = make_inputs("contrastive", 6, 2, seed=2)

    def changed(*arguments, **scalars):
        return change(contrastive_loss(*arguments, **scalars))

    with pytest.raises(ValueError, match=r"The loss is of shape .* return one of shape \(slots, rows\), \(2, 6\)"):
        global_loss(changed, images, name_captions(texts), **scalars)


@pytest.mark.parametrize("name", OF_A_ROW)
def test_matryoshka_is_the_mean_over_prefixes(name):
    embeds, scalars, groups = make_inputs(name, 9, 3, seed=4)
    images, texts, *values = trained = train(*embeds, *scalars.values())
    scalars = dict(zip(scalars, values))
    found = compute(name, images, texts, scalars, short_groups=groups, matryoshka_dims=[4, DIM, 5]).loss
    losses = []
    for dim in (DIM, 5, 4):
        prefixes = [normalize(embeds[..., :dim], dim=-1) if dim < DIM else embeds for embeds in (images, texts)]
        losses.append(compute(name, *prefixes, scalars, short_groups=groups).loss)
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(found, expected)
    assert_same_gradients(torch.autograd.grad(found, trained), torch.autograd.grad(expected, trained))


@pytest.mark.parametrize("dim", [0, DIM + 1, True, "4", 2.5])
def test_dims_that_are_not_there_are_refused(dim):
    embeds, scalars, _ = make_inputs("contrastive", 4, 2, seed=0)
    with pytest.raises(ValueError, match=f"must be an integer from 1 to {DIM}, .*, got {dim!r}"):
        compute("contrastive", *embeds, scalars, matryoshka_dims=[dim])


def term_of_images(pairs: Pairs, all_pairs: Pairs) -> torch.Tensor:
    return (pairs.images * all_pairs.images.mean(dim=0)).flatten(1).sum(dim=1)


def compute_share(name: str, rank: int | None, number: int) -> list[torch.Tensor]:
    """Loss and gradients of a process, with everything that every loss can have; the second one has shorter texts."""
    (images, texts), scalars, groups = make_inputs(name, 3 * number, 3, seed=number)
    rows = slice(3 * rank, 3 * rank + 3) if rank is not None else slice(None)
    if "tokens" in name:
        texts[3:6, :, 4:] = 0
    texts = texts[rows, :, :4] if "tokens" in name and rank == 1 else texts[rows]
    trained = train(images[rows], texts, *scalars.values())
    options = {"short_groups": groups[rows], "matryoshka_dims": [4], "short_weight": 2.0}
    options["terms"] = {"of images": (0.3, term_of_images)}
    found = compute(name, *trained[:2], dict(zip(scalars, trained[2:])), **options)
    return [found.loss.detach(), found.slot_losses, *torch.autograd.grad(found.loss, trained)]


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
            found = result[name]
            rows = slice(3 * rank, 3 * rank + 3)
            torch.testing.assert_close(found[:2], [loss, slot_losses], equal_nan=True)
            torch.testing.assert_close(found[4:], of_scalars, rtol=1e-4, atol=1e-6)
            # data parallelism averages over the processes
            torch.testing.assert_close(found[2], number * images[rows], rtol=1e-4, atol=1e-6)
            own = texts[rows, :, : found[3].shape[2]] if "tokens" in name else texts[rows]
            torch.testing.assert_close(found[3], number * own, rtol=1e-4, atol=1e-6)


def test_the_contrastive_loss_is_the_plain_one_of_the_model():
    (images, texts), scalars, _ = make_inputs("contrastive", 40, 4, seed=1)
    found = compute("contrastive", images, texts, scalars)
    plain = image_text_contrastive_loss(images, texts, scalars["logit_scale"], (texts != 0).any(dim=-1))
    torch.testing.assert_close(found.loss, plain)
    with torch.autocast("cpu", torch.bfloat16):
        again = compute("contrastive", images, texts, scalars)
    assert torch.equal(found.loss, again.loss)


def test_a_batch_without_texts_has_no_loss():
    (images, texts), scalars, _ = make_inputs("contrastive", 4, 2, seed=1)
    assert compute("contrastive", images, torch.zeros_like(texts), scalars).loss == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_primary_components_of_what_is_not_finite_are_not_either(value):
    """The training skips such a step and says so: it must get that far."""
    (images, texts), scalars, _ = make_inputs("primary_component", 20, 3, seed=0)
    images[4] = value
    loss = compute("primary_component", images.requires_grad_(), texts, scalars).loss
    loss.backward()
    assert not loss.isfinite()


@pytest.mark.parametrize("name", OF_A_ROW)
def test_memory_does_not_grow_with_the_square_of_the_batch(monkeypatch, name):
    monkeypatch.setattr(PAIRS_MODULE, "BLOCK_SIZE", 40_000)
    embeds, scalars, groups = make_inputs(name, 100 if "tokens" in name else 500, 2, seed=0)
    saved = LargestSavedTensor()
    with saved:
        compute(name, *train(*embeds), scalars, short_groups=groups).loss.backward()
    assert saved.numel <= max(40_000, embeds[1].numel())


# ---- what losses read


def test_texts_are_read_by_name():
    captions = {"short": torch.rand(3, 4), "long": torch.rand(3, 2, 4), "corners": torch.rand(3, 2, 5, 4)}
    long_mask = torch.tensor([[True, False], [False, True], [True, True]])
    pairs = Pairs.from_embeds(torch.rand(3, 4), **captions, long_mask=long_mask)
    corners = [f"corner_{number}" for number in range(1, 6)]
    assert pairs.slots.names == ("short", "long", *corners, "long", *corners)
    for name, values in captions.items():
        assert torch.equal(getattr(pairs, name), values)
    assert torch.equal(pairs.long_mask, long_mask)
    assert torch.equal(pairs.present[:, 8], long_mask[:, 1]), "a corner token is there if its caption is"
    assert pairs.short_mask.all()


def test_what_is_not_there_is_none():
    short = Pairs.from_embeds(torch.rand(3, 4), short=torch.rand(3, 4))
    assert short.long is None
    assert short.corners is None
    assert short.long_mask is None
    long = Pairs.from_embeds(torch.rand(3, 4), long=torch.rand(3, 1, 4))
    assert long.short is None
    assert long.corners is None
    assert long.slots == Slots(has_short=False, num_long=1)
    with pytest.raises(ValueError, match="give `short`, `long` or both"):
        Pairs.from_embeds(torch.rand(3, 4))


def test_a_gradient_reaches_what_is_read_by_name():
    corners = torch.rand(3, 1, 2, 4, requires_grad=True)
    pairs = Pairs.from_embeds(torch.rand(3, 4), long=torch.rand(3, 1, 4), corners=corners)
    (pairs.corners[:, :, 0] * pairs.corners[:, :, 1]).sum().backward()
    torch.testing.assert_close(corners.grad, corners.detach().flip(2))


# ---- the check of a loss


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_of_the_package_pass_the_check(name):
    bias = {"logit_bias": torch.tensor(-3.0)} if name == "sigmoid" else {}
    check_loss(LOSSES[name], **OPTIONS.get(name, {}), **bias)


def of_all_rows(pairs, all_pairs, logit_scale):
    return contrastive_loss(all_pairs, all_pairs, logit_scale)


def of_the_mean_image(pairs, all_pairs, logit_scale):
    return (logit_scale * pairs.texts @ pairs.images.mean(dim=0)).t()


def with_a_constant_gradient(pairs, all_pairs, logit_scale):
    return contrastive_loss(pairs, all_pairs, logit_scale.detach())


def of_one_slot(pairs, all_pairs, logit_scale):
    return contrastive_loss(pairs, all_pairs, logit_scale)[:1]


@in_blocks
def of_absent_texts(pairs, all_pairs, logit_scale):
    return (logit_scale * pairs.images @ all_pairs.texts.transpose(0, 1).mT).logsumexp(dim=-1)


def without_the_gradient_of_others(pairs, all_pairs, logit_scale):
    if len(pairs.images) < len(all_pairs.images):
        all_pairs = all_pairs.map(torch.Tensor.detach)
    return contrastive_loss(pairs, all_pairs, logit_scale)


@in_blocks
def of_absent_texts_as_zero(pairs, all_pairs, logit_scale):
    logits = logit_scale * pairs.images @ all_pairs.texts.transpose(0, 1).mT
    return logits.masked_fill(~all_pairs.present.t()[:, None], 0).logsumexp(dim=-1)


def divided_by_all_rows(pairs, all_pairs, logit_scale):
    return contrastive_loss(pairs, all_pairs, logit_scale) / len(all_pairs.images)


def of_corners(pairs, all_pairs, logit_scale):
    return contrastive_loss(pairs, all_pairs, logit_scale) + pairs.corners.sum()


def of_constants_alone(pairs, all_pairs, logit_scale):
    pairs = pairs.map(torch.Tensor.detach)
    all_pairs = all_pairs.map(torch.Tensor.detach)
    return contrastive_loss(pairs, all_pairs, logit_scale.detach())


def without_blocks(pairs, all_pairs, logit_scale):
    return contrastive_loss.__wrapped__(pairs, all_pairs, logit_scale)


@pytest.mark.parametrize(
    "loss, message",
    [
        (of_all_rows, "losses of two processes are not those of all rows"),
        (of_the_mean_image, "losses of two processes are not those of all rows"),
        (with_a_constant_gradient, "gradients of the loss are not those of differences"),
        (of_one_slot, r"is of shape \(1, 5\): return one of shape \(slots, rows\)"),
        (of_absent_texts, "An absent text has a gradient"),
        (without_the_gradient_of_others, "gradients of two processes do not add up to those of all rows"),
        (of_absent_texts_as_zero, "losses of others depend on images without any text"),
        (divided_by_all_rows, "losses of others depend on images without any text"),
        (of_constants_alone, "The loss has no gradient"),
        (of_corners, "With the slots short the loss cannot be computed: AttributeError"),
        (without_blocks, "decorate it with `modeling_lotlip.losses.in_blocks`"),
    ],
)
def test_the_check_says_what_is_wrong_with_a_loss(loss, message):
    with pytest.raises(ValueError, match=message):
        check_loss(loss)


def test_a_loss_may_hold_something_constant():
    def of_constants(pairs, all_pairs, logit_scale):
        has_text = all_pairs.present.any(dim=1)
        weights = (pairs.images @ all_pairs.images[has_text].mean(dim=0)).detach().exp()
        return weights * contrastive_loss(pairs, all_pairs, logit_scale)

    check_loss(of_constants, has_constants=True)
    with pytest.raises(ValueError, match="not those of differences"):
        check_loss(of_constants)


@in_blocks
def with_constant_targets(pairs, all_pairs, logit_scale, temperature):
    """As the soft targets of the page about one's own method."""
    logits = image_logits(pairs, all_pairs, logit_scale)
    is_compared = logits > -1e30
    similarities = (pairs.images @ all_pairs.images.t()).detach()
    targets = (similarities / temperature).softmax(dim=-1) * is_compared
    targets = targets / targets.sum(dim=-1, keepdim=True).clamp(min=1e-9)
    return -(targets * logits.log_softmax(dim=-1).masked_fill(~is_compared, 0)).sum(dim=-1)


@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.5])
def test_constant_targets_are_found_at_any_temperature(temperature):
    """Of embeddings far from each other they are one-hot to rounding: constant or not."""
    check_loss(with_constant_targets, has_constants=True, temperature=temperature)
    with pytest.raises(ValueError, match="not those of differences"):
        check_loss(with_constant_targets, temperature=temperature)


def test_pairs_to_try_a_loss_on_have_what_was_asked_for():
    pairs = draw_pairs(50, num_long=2, num_corners=1, absent=0.5)
    assert pairs.slots == Slots(num_long=2, num_corners=1)
    assert 0 < pairs.present.float().mean() < 1
    assert not pairs.texts[~pairs.present].any()


def test_losses_of_a_step_are_means_over_its_batches():
    """A slot without pairs in a batch counts in the others alone."""
    slots = Slots(num_long=1)
    first = BatchLoss(torch.tensor(1.0), torch.tensor([1.0, 3.0]), slots)
    second = BatchLoss(torch.tensor(2.0), torch.tensor([2.0, torch.nan]), slots)
    assert average_losses([first, second]) == {"loss": 1.5, "loss_short": 1.5, "loss_long": 3.0}


@pytest.mark.parametrize("dim", [1, DIM])
def test_the_smallest_and_the_largest_dim_are_there(dim):
    check_dims([dim], DIM)


@pytest.mark.parametrize("weights", [(0, 1), (1, 0), (0.5, 2)])
def test_one_of_two_weights_may_be_zero(weights):
    check_weights(*weights)


@pytest.mark.parametrize(
    ("slots", "names", "weights"),
    [
        (Slots(), ("short",), [2.0]),
        (Slots(num_long=2), ("short", "long", "long"), [2.0, 3.0, 3.0]),
        (Slots(False, 1, 2), ("long", "corner_1", "corner_2"), [3.0, 3.0, 3.0]),
    ],
)
def test_slots_have_names_and_weights(slots, names, weights):
    assert slots.names == names
    assert slots.weigh(2.0, 3.0) == weights
    assert len(slots) == len(names)


@pytest.mark.parametrize(("num_images", "is_reduced"), [(NUM_COMPONENTS + 1, False), (NUM_COMPONENTS + 2, True)])
def test_as_many_components_as_there_are_directions_are_all(num_images, is_reduced):
    pairs = draw_pairs(num_images, num_long=0)
    scale = torch.tensor(5.0, dtype=torch.float64)
    reduced = LOSSES["primary_component"](pairs, pairs, scale, num_components=NUM_COMPONENTS)
    is_equal = torch.allclose(reduced, contrastive_loss(pairs, pairs, scale))
    assert is_equal != is_reduced
