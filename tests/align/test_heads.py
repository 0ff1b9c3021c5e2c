"""Heads learn what two sides have in common, and no more than was asked for."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from modeling_lotlip.align import heads as heads_module
from modeling_lotlip.align.arguments import HeadArguments
from modeling_lotlip.align.features import Features
from modeling_lotlip.align.heads import (
    MAX_LOGIT_SCALE,
    CaptionSampler,
    Heads,
    HeadSettings,
    compute_loss,
    contrast,
    has_stopped_rising,
    measure_epochs,
    measure_rank,
    run_epochs,
    train_heads,
)


FAST = HeadSettings(
    head="mlp",
    projection_dim=16,
    hidden_dim=32,
    captions=("short", "long"),
    num_epochs=20,
    learning_rate=1e-2,
)


def make_features(num_images=80, first=0):
    """Images and two captions of each that share eight hidden dimensions, the rest being noise."""
    generator = torch.Generator().manual_seed(0)
    to_image = torch.randn(8, 12, generator=generator)
    to_text = torch.randn(8, 10, generator=generator)
    hidden = torch.randn(200, 8, generator=generator)[first : first + num_images]
    texts = torch.cat([hidden @ to_text, hidden @ to_text + 0.1])
    captions = []
    for image in range(num_images):
        captions += [[image, image, 0], [image, num_images + image, 1]]
    return Features(5 + 3 * hidden @ to_image, texts, torch.tensor(captions))


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("keep", [None, "text", "image"])
def test_heads_find_images_that_they_have_not_seen(head, keep):
    settings = dataclasses.replace(FAST, head=head, keep=keep, num_epochs=100)
    trained_heads = train_heads(make_features(120), settings)
    unseen = make_features(40, first=120)
    assert measure_rank(trained_heads.heads, unseen, ("short", "long")) > 0.5


@pytest.mark.parametrize(("keep", "head"), [(None, "linear"), ("text", "mlp"), ("image", "linear")])
def test_the_default_head_depends_on_the_side_that_is_kept(keep, head):
    assert HeadArguments(keep=keep).head == head


@pytest.mark.parametrize("keep", ["text", "image"])
def test_the_side_that_is_kept_stays_bit_for_bit(keep):
    features = make_features()
    trained_heads = train_heads(features, dataclasses.replace(FAST, keep=keep))
    side = features.texts if keep == "text" else features.images
    assert torch.equal(trained_heads.heads.embed(keep, side), torch.nn.functional.normalize(side, dim=-1))
    assert trained_heads.heads.to_dense(keep) == []


def test_a_seed_gives_the_same_heads_and_another_one_others():
    features = make_features()
    trained = []
    for seed in (1, 1, 2):
        torch.rand(1)  # the state of the global generator is another one each time
        trained.append(train_heads(features, dataclasses.replace(FAST, seed=seed)).heads)
    first, again, other = trained
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(*[heads.heads["image"].layers[-1].weight for heads in (first, other)])


def test_heads_that_were_measured_after_an_epoch_are_in_training_in_the_next():
    """Without dropout the losses of later epochs would be others."""
    plain = [loss for _, loss in run_epochs(make_features(), FAST, 3, "cpu")]
    measured = []
    for heads, loss in run_epochs(make_features(), FAST, 3, "cpu"):
        measured.append(loss)
        heads.eval()
    assert measured == plain


def test_random_numbers_of_others_stay_as_they_are():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_heads(make_features(), FAST)
    assert torch.equal(torch.rand(1), expected)


def test_the_number_of_epochs_is_that_of_the_best_rank_of_images_held_out():
    trained_heads = train_heads(make_features(30), dataclasses.replace(FAST, num_epochs=None))
    best = trained_heads.held_out[trained_heads.num_epochs - 1]
    assert best == max(trained_heads.held_out)
    assert len(trained_heads.losses) == trained_heads.num_epochs


def test_equal_captions_are_no_negatives():
    embeds = torch.eye(3)
    texts = torch.tensor([7, 7, 8])
    two_pairs = contrast(embeds[1:], embeds[1:], texts[1:], torch.tensor(2.0))
    # the first and the second row are compared with the third alone, this with both of them
    own = torch.tensor(2.0).exp()
    expected = (2 * (own / (own + 1)).log() + (own / (own + 2)).log()) / -3
    torch.testing.assert_close(contrast(embeds, embeds, texts, torch.tensor(2.0)), expected)
    torch.testing.assert_close(two_pairs, -(own / (own + 1)).log())


def test_every_caption_of_an_image_is_sampled_and_none_of_another():
    captions = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 2, 1], [2, 3, 0]])
    features = Features(torch.zeros(3, 1), torch.zeros(4, 1), captions)
    sampler = CaptionSampler(features, "short")
    generator = torch.Generator().manual_seed(0)
    found = set()
    for _ in range(30):
        has_caption, texts = sampler.sample(torch.tensor([2, 1, 0]), generator)
        assert has_caption.tolist() == [True, False, True]
        assert texts[0] == 3
        found.add(texts[1].item())
    assert found == {0, 1}


def test_missing_captions_are_an_error():
    with pytest.raises(ValueError, match="no captions of sub"):
        train_heads(make_features(), dataclasses.replace(FAST, captions=("sub",)))


def test_captions_that_are_all_the_same_are_an_error():
    features = make_features()
    features.captions[:, 1] = 0
    with pytest.raises(ValueError, match="All images of the training data have the same captions"):
        train_heads(features, FAST)


def test_images_that_all_have_the_same_several_captions_are_an_error():
    """There are several texts, and none of them says anything of one image alone."""
    captions = []
    for image in range(80):
        captions += [[image, 0, 0], [image, 1, 1], [image, 2, 2], [image, 3, 2]]
    features = dataclasses.replace(make_features(), captions=torch.tensor(captions))
    with pytest.raises(ValueError, match="All images of the training data have the same captions"):
        train_heads(features, dataclasses.replace(FAST, captions=("short", "long", "sub")))


def test_what_is_the_same_in_all_rows_is_not_blown_up_in_others():
    features = make_features()
    features.images[:, 0] = 3
    heads = train_heads(features, FAST).heads
    assert heads.heads["image"].std[0] == 1


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_as_modules_of_the_library_is_the_head(head):
    """With the standardization folded into its first layer."""
    features = make_features()
    heads = train_heads(features, dataclasses.replace(FAST, head=head)).heads
    dense = torch.nn.Sequential(*heads.to_dense("image"))
    assert len(dense) == {"linear": 1, "mlp": 2}[head]
    found = dense({"sentence_embedding": features.images})["sentence_embedding"]
    torch.testing.assert_close(found, heads.heads["image"](features.images), rtol=1e-5, atol=1e-5)


def test_the_rank_is_one_more_than_the_count_of_more_similar_images():
    heads = SimpleNamespace(eval=lambda: None, embed=lambda side, features: features)
    captions = torch.tensor([[image, 0, 0] for image in range(3)])
    features = Features(torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(1, 1), captions)
    assert measure_rank(heads, features, ("short",)) == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)


def test_ranks_of_equal_similarities_are_means():
    """Of a text that is as near to all of four images, its own is at the middle of ranks 1 to 4."""
    heads = SimpleNamespace(eval=lambda: None, embed=lambda side, features: features)
    captions = torch.tensor([[image, 0, 0] for image in range(4)])
    features = Features(torch.ones(4, 1), torch.ones(1, 1), captions)
    assert measure_rank(heads, features, ("short",)) == pytest.approx(1 / 2.5)


def test_a_search_for_epochs_goes_on_while_the_best_is_late():
    assert not has_stopped_rising([0.1] * 20 + [0.2] + [0.1] * 20)
    assert has_stopped_rising([0.1] * 9 + [0.2] + [0.1] * 25)


@pytest.mark.parametrize(
    ("num_measured", "best", "has_stopped"),
    [(29, 0, False), (30, 0, True), (30, 9, False), (31, 9, True), (60, 19, False), (61, 19, True)],
)
def test_a_search_takes_thirty_epochs_and_three_times_the_best(num_measured, best, has_stopped):
    measured = [0.1] * num_measured
    measured[best] = 0.2
    assert has_stopped_rising(measured) == has_stopped


@pytest.fixture
def searched(monkeypatch):
    """Searches for the number of epochs by ranks that are given; and what would be trained on."""
    runs = []

    def run_epochs(features, settings, num_epochs, device):
        runs.append((features.images.flatten().tolist(), num_epochs))
        for epoch in range(num_epochs):
            yield epoch, 0.0

    def search(num_images, ranks, **settings):
        images = torch.arange(num_images)[:, None].float()
        captions = torch.tensor([[image, 0, 0] for image in range(num_images)])
        measured = iter([rank for fold_ranks in ranks for rank in fold_ranks])
        ends = [len(fold_ranks) for fold_ranks in ranks]
        monkeypatch.setattr(heads_module, "run_epochs", run_epochs)
        monkeypatch.setattr(heads_module, "measure_rank", lambda *_: next(measured))
        monkeypatch.setattr(heads_module, "has_stopped_rising", lambda done: len(done) == ends[len(runs) - 1])
        features = Features(images, torch.zeros(1, 1), captions)
        return measure_epochs(features, dataclasses.replace(FAST, **settings), "cpu"), runs

    return search


def test_each_of_few_images_is_held_out_once(searched, monkeypatch):
    monkeypatch.setattr(heads_module, "FEW_IMAGES", 31)
    means, runs = searched(30, [[0.1, 0.5, 0.9], [0.3, 0.1], [0.2, 0.6, 0.3, 0.4]])
    assert means == pytest.approx([0.2, 0.4])
    held_out = [set(range(30)) - set(images) for images, _ in runs]
    assert [len(images) for images in held_out] == [10, 10, 10]
    assert set.union(*held_out) == set(range(30))


@pytest.mark.parametrize(("max_held_out", "num_held_out"), [(2000, 3), (2, 2)])
def test_of_many_images_a_tenth_is_held_out(searched, monkeypatch, max_held_out, num_held_out):
    monkeypatch.setattr(heads_module, "FEW_IMAGES", 30)
    monkeypatch.setattr(heads_module, "MAX_HELD_OUT", max_held_out)
    means, runs = searched(30, [[0.1, 0.5]])
    assert means == pytest.approx([0.1, 0.5])
    assert [len(images) for images, _ in runs] == [30 - num_held_out]


@pytest.mark.parametrize(("batch_size", "num_epochs"), [(20, 100), (10, 50), (1, 30)])
def test_a_search_takes_a_hundred_steps_or_thirty_epochs_at_most(searched, batch_size, num_epochs):
    _, runs = searched(30, [[0.1]] * 3, batch_size=batch_size)
    assert {epochs for _, epochs in runs} == {num_epochs}


def test_heads_take_four_images_or_more():
    settings = dataclasses.replace(FAST, num_epochs=1)
    assert train_heads(make_features(4), settings).num_epochs == 1
    with pytest.raises(ValueError, match="The training data has 3 images with captions"):
        train_heads(make_features(3), settings)


def test_a_training_that_diverges_is_an_error_that_names_the_rate():
    with pytest.raises(ValueError, match=r"not finite: a `--learning_rate` of 1e\+30 is too high"):
        train_heads(make_features(), dataclasses.replace(FAST, learning_rate=1e30, num_epochs=3))


def test_the_temperature_begins_and_ends_as_in_clip():
    features = make_features()
    assert Heads(features, FAST).logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    heads = train_heads(features, dataclasses.replace(FAST, learning_rate=0.5, num_epochs=20)).heads
    assert heads.logit_scale.item() <= MAX_LOGIT_SCALE + 1e-6
    assert math.log(100) == pytest.approx(MAX_LOGIT_SCALE)


def test_matrices_alone_decay():
    features = make_features()
    torch.manual_seed(FAST.seed)
    before = Heads(features, FAST)
    # the whole of what decays is gone after a step
    settings = dataclasses.replace(FAST, learning_rate=1e-3, weight_decay=1000.0)
    ((after, _),) = run_epochs(features, settings, 1, "cpu")
    trained = dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        if parameter.dim() > 1:
            assert trained[name].abs().max() < 0.0011
        else:
            torch.testing.assert_close(trained[name], parameter, atol=0.0011, rtol=0)


@pytest.mark.parametrize(("num_captioned", "has_loss"), [(1, False), (2, True)])
def test_a_loss_takes_two_captions(num_captioned, has_loss):
    features = make_features(4)
    features.captions = features.captions[features.captions[:, 2] == 0][:num_captioned]
    sampler = CaptionSampler(features, "short")
    generator = torch.Generator().manual_seed(0)
    loss = compute_loss(Heads(features, FAST), features, torch.arange(4), [sampler], generator, "cpu")
    assert (loss is not None) == has_loss


@pytest.mark.parametrize(
    ("captions", "expected"),
    [(("short", "long", "sub"), (1 + 1 / 2) / 2), (("long", "sub"), 1 / 2), (("sub",), 1 / 3)],
)
def test_sentences_count_in_a_rank_only_where_they_alone_are_trained_on(captions, expected):
    heads = SimpleNamespace(eval=lambda: None, embed=lambda side, features: features)
    images = torch.tensor([[3.0], [2.0], [1.0]])
    features = Features(images, torch.ones(1, 1), torch.tensor([[0, 0, 0], [1, 0, 1], [2, 0, 2]]))
    assert measure_rank(heads, features, captions) == pytest.approx(expected)
