"""The retrieval metric against brute force, and what it refuses."""

import doctest
import itertools
from collections import Counter
from fractions import Fraction
from statistics import median

import evaluate
import numpy as np
import pytest
import torch

from modeling_lotlip.metrics import IMAGE_TEXT_RETRIEVAL, ImageTextRetrieval, retrieval_metrics, retrieval_ranks
from modeling_lotlip.metrics.image_text_retrieval.image_text_retrieval import similarity_blocks
from tests.conftest import ROOT


FOLDER = ROOT / "modeling_lotlip" / "metrics" / "image_text_retrieval"


@pytest.fixture
def metric(tmp_path):
    return ImageTextRetrieval(cache_dir=str(tmp_path))


def captions_of(rng, num_images, num_texts):
    """A random map in which every image has a caption."""
    return rng.permutation(
        np.concatenate([np.arange(num_images), rng.integers(0, num_images, num_texts - num_images)])
    )


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def enumerate_orders(similarities, own, ks):
    """Exact hit rates and expected rank of the first match over all orders that sort by similarity."""
    hits = Counter()
    ranks = 0
    orders = 0
    for order in itertools.permutations(range(len(similarities))):
        if any(similarities[a] < similarities[b] for a, b in itertools.pairwise(order)):
            continue
        rank = 1 + next(place for place, candidate in enumerate(order) if candidate in own)
        orders += 1
        ranks += rank
        hits.update(k for k in ks if rank <= k)
    return {k: Fraction(hits[k], orders) for k in ks}, Fraction(ranks, orders)


@pytest.mark.parametrize("several_images", (False, True))
@pytest.mark.parametrize("seed", range(12))
def test_every_order_of_equals_counts_the_same(seed, several_images):
    rng = np.random.default_rng(seed)
    num_images = int(rng.integers(1, 5)) + several_images
    num_texts = int(rng.integers(num_images, 7))
    text_to_image = [[int(image)] for image in captions_of(rng, num_images, num_texts)]
    if several_images:
        for own in text_to_image:
            own += rng.integers(0, num_images, rng.integers(0, 4)).tolist()
    # few directions and several lengths: full of equals
    directions = np.array([[1, 0], [0, 1], [1, 1], [-1, 1]])
    images = directions[rng.integers(0, 4, num_images)] * rng.integers(1, 4, (num_images, 1))
    texts = directions[rng.integers(0, 4, num_texts)] * rng.integers(1, 4, (num_texts, 1))
    similarities = (unit(texts) @ unit(images).T).round(9)
    ks = [1, 2, 3, 5, 100]

    image_to_text = [set() for _ in range(num_images)]
    for text, own in enumerate(text_to_image):
        for image in own:
            image_to_text[image].add(text)
    expected = {}
    for direction, scores, matches in (
        ("t2i", similarities, text_to_image),
        ("i2t", similarities.T, image_to_text),
    ):
        hits, ranks = zip(*(enumerate_orders(row, own, ks) for row, own in zip(scores, matches)))
        for k in ks:
            num_hits = sum(hit[k] for hit in hits)
            expected[f"{direction}_recall@{k}"] = float(100 * num_hits / len(hits))
        expected[f"{direction}_median_rank"] = float(median(ranks))
    expected["mean_recall"] = np.mean([value for name, value in expected.items() if "recall" in name])

    results = retrieval_metrics(images, texts, text_to_image, ks)
    assert results == pytest.approx(expected, abs=1e-9)
    assert all(type(value) is float for value in results.values())
    if not several_images:
        assert retrieval_metrics(images, texts, [own[0] for own in text_to_image], ks) == results


def test_many_blocks_against_the_full_matrix():
    rng = np.random.default_rng(0)
    num_images = 4200
    num_texts = 4401
    text_to_image = captions_of(rng, num_images, num_texts)
    images = rng.standard_normal((num_images, 15)).astype(np.float32)
    texts = images[text_to_image] + rng.standard_normal((num_texts, 15)).astype(np.float32)
    images[4100] = images[3]  # equal to one in another block
    similarities = unit(texts) @ unit(images).T
    own = similarities[np.arange(num_texts), text_to_image]
    best = np.full(num_images, -np.inf)
    np.maximum.at(best, text_to_image, own)

    i2t, t2i = retrieval_ranks(images, texts, text_to_image)
    for ranks, scores, axis in ((t2i, own[:, None], 1), (i2t, best[None], 0)):
        # Exact counts on either side of the tolerance's own rounding.
        for count, sign in ((ranks.better, 1), (ranks.better + ranks.equal, -1)):
            threshold = scores + sign * 1e-6
            low = (similarities > threshold + 4e-7).sum(axis)
            high = (similarities > threshold - 4e-7).sum(axis)
            assert (low <= count.numpy()).all()
            assert (count.numpy() <= high).all()
    assert t2i.equal[text_to_image == 3].min() >= 2
    assert t2i.equal[text_to_image == 4100].min() >= 2


@pytest.mark.parametrize("width", (64, 184, 513, 768))
@pytest.mark.parametrize("kind", ("constant", "binary", "normal"))
def test_blocks_do_not_split_equals(width, kind):
    generator = torch.Generator().manual_seed(width)
    vectors = torch.randn(2, width, generator=generator)
    vectors = {"constant": torch.ones(2, width), "binary": vectors.sign(), "normal": vectors}[kind]
    for num_rows in (513, 2049):
        same = vectors[:1].expand(num_rows, -1) * torch.rand(num_rows, 1, generator=generator).add(0.1)
        for ranks in retrieval_ranks(same, same):
            assert ranks.better.eq(0).all()
            assert ranks.equal.eq(num_rows).all()
            assert ranks.own.eq(1).all()

        if kind != "constant":
            group = torch.arange(num_rows) % 2
            for ranks in retrieval_ranks(vectors[group], vectors[group]):
                assert ranks.better.eq(0).all()
                assert ranks.equal.equal(torch.bincount(group)[group])


@pytest.mark.parametrize(("gap", "num_better", "num_equal"), ((4e-7, 0, 2), (2e-6, 1, 1)))
def test_similarities_within_the_tolerance_are_equal(gap, num_better, num_equal):
    images = [[np.cos(angle), np.sin(angle)] for angle in (np.arccos(0.5), np.arccos(0.5 + gap))]
    ranks = retrieval_ranks(images, [[1.0, 0.0], [0.0, 1.0]])[1]
    assert ranks.better[0] == num_better
    assert ranks.equal[0] == num_equal


def test_never_the_full_matrix():
    covered = torch.zeros(2500, 5000, dtype=torch.int64)
    for rows, columns, block in similarity_blocks(torch.ones(2500, 3), torch.ones(5000, 3)):
        assert block.numel() <= 2048 * 2048
        covered[rows, columns] += block.eq(3)
    assert covered.eq(1).all()


def test_kinds_of_input_agree():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 20, 8, generator=generator).bfloat16().float()
    expected = retrieval_metrics(images, texts)
    read_only = images.numpy().astype(">f4")
    read_only.flags.writeable = False

    for image_embeds, text_embeds in (
        (images.bfloat16(), texts.bfloat16()),
        (images.tolist(), list(texts.bfloat16())),
        (list(images.numpy()), texts.half().double().requires_grad_()),
        (read_only, texts.numpy()[::-1].copy()[::-1]),
        (images.double() * 1e300, texts.double().numpy() * 1e-300),
        (images * 1e-38, texts * 1e37),
    ):
        assert retrieval_metrics(image_embeds, text_embeds, torch.arange(20)) == pytest.approx(expected)

    signs = images.sign().to(torch.int8)
    expected = retrieval_metrics(signs.float(), signs.float())
    assert retrieval_metrics(signs, signs.numpy()) == pytest.approx(expected)


def test_reduced_precision_of_the_caller_changes_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(300, 512, generator=generator)
    texts = images + 8 * torch.randn(300, 512, generator=generator)
    expected = retrieval_metrics(images, texts)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert retrieval_metrics(images, texts) == expected
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


GOOD = np.eye(3, 4)


def changed(row, value):
    matrix = GOOD.copy()
    matrix[row] = value
    return matrix


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"image_embeds": changed((2, 1), np.nan)}, r"`image_embeds\[2\]` holds NaN"),
        ({"text_embeds": changed((1, 0), -np.inf)}, r"`text_embeds\[1\]` holds infinity"),
        ({"text_embeds": changed(0, 0.0)}, r"`text_embeds\[0\]` is all zeros"),
        ({"image_embeds": []}, "`image_embeds` has no rows"),
        ({"image_embeds": GOOD[0]}, r"shape \(rows, dim\), got \(4,\)"),
        ({"image_embeds": [[1.0, 2.0], [1.0]]}, "unequal width, row 0 .* row 1"),
        ({"image_embeds": [["a", "b"]]}, "real numbers"),
        ({"text_embeds": GOOD[:, :3]}, "4 wide and `text_embeds` 3"),
        ({"text_embeds": GOOD[:2]}, "has 3 rows and `text_embeds` 2.*`text_to_image`"),
        ({"text_embeds": None}, "`text_embeds` is missing"),
        ({"text_to_image": [0, 1]}, "has 2 entries.* 3 texts"),
        ({"text_to_image": {0: 1, 1: 0, 2: 2}}, "`text_to_image` is a dict, but must be a list"),
        ({"text_to_image": {0, 1, 2}}, "`text_to_image` is a set, but must be a list"),
        ({"text_to_image": [0, 1, 3]}, r"`text_to_image\[2\]` is 3, .*from 0 to 2"),
        ({"text_to_image": [0, 0, 2]}, "Image 1 has no caption"),
        ({"text_to_image": [0.0, 1.0, 2.0]}, r"`text_to_image\[0\]` is 0.0, .*whole number"),
        ({"text_to_image": [0, [1, 3], 2]}, r"`text_to_image\[1\]` is 3, .*from 0 to 2"),
        ({"text_to_image": [[0, 1], [], [2]]}, r"`text_to_image\[1\]` is \[\], "),
        ({"ks": []}, "`ks`"),
        ({"ks": [0, 1]}, "`ks`"),
        ({"ks": [True, 5]}, "`ks`"),
        ({"ks": ["5"]}, "`ks`"),
        ({"predictions": GOOD, "references": GOOD}, "not on both"),
    ),
)
def test_errors_say_what_and_where(metric, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(**{"image_embeds": GOOD, "text_embeds": GOOD} | arguments)


def test_first_bad_row_beyond_the_first_block():
    texts = torch.ones(3000, 2)
    texts[2100] = torch.nan
    with pytest.raises(ValueError, match=r"`text_embeds\[2100\]` holds NaN"):
        retrieval_ranks(torch.ones(3000, 2), texts)


def test_pairs_added_in_batches_give_the_results_of_arrays(metric):
    rng = np.random.default_rng(1)
    text_to_image = captions_of(rng, 30, 70)
    images = rng.standard_normal((30, 6))
    texts = images[text_to_image] + rng.standard_normal((70, 6))
    expected = metric.compute(image_embeds=images, text_embeds=texts, text_to_image=text_to_image, ks=[1, 4])
    pairs = images[text_to_image]

    for start in range(0, 69, 23):
        predictions = torch.tensor(pairs[start : start + 23])
        metric.add_batch(predictions=predictions, references=texts[start : start + 23])
    metric.add(prediction=pairs[69], reference=texts[69].tolist())
    assert len(metric) == 70
    assert metric.compute(text_to_image=text_to_image, ks=[1, 4]) == pytest.approx(expected)
    assert metric.compute(
        predictions=pairs, references=texts, text_to_image=text_to_image, ks=[1, 4]
    ) == pytest.approx(expected)
    # without a map each row is an image, and its copies are equal to it
    metric.add_batch(predictions=pairs, references=texts)
    assert metric.compute() == pytest.approx(retrieval_metrics(pairs, texts))


def test_pairs_of_one_image_are_compared_beyond_the_first_block(metric):
    text_to_image = np.arange(1500) % 5
    images = np.eye(5)
    pairs = images[text_to_image]
    expected = retrieval_metrics(images, pairs, text_to_image)
    assert metric.compute(predictions=pairs, references=pairs, text_to_image=text_to_image) == expected
    pairs[1402] = images[3]
    with pytest.raises(ValueError, match="rows 2 and 1402 share an image"):
        metric.compute(predictions=pairs, references=pairs, text_to_image=text_to_image)


def test_errors_of_pairs_leave_the_metric_usable(metric, tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        metric.compute()
    for predictions, references, message in (
        (GOOD, GOOD[:2], "has 3 rows and `references` 2"),
        (changed(1, np.nan), GOOD, r"`predictions\[1\]` holds NaN"),
        (GOOD, None, "`references` is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.add_batch(predictions=predictions, references=references)

    metric.add_batch(predictions=GOOD, references=GOOD)
    for map_, message in (
        ([0, 0, 1], "rows 0 and 1 share an image"),
        ([0, [1, 2], 2], "must give one image for each pair"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.compute(text_to_image=map_)
    assert metric.compute(text_to_image=[0, 1, 2])["t2i_recall@1"] == 100  # the rows are still there
    assert len(metric) == 0

    metric.add_batch(predictions=GOOD, references=GOOD)
    metric.add_batch(predictions=GOOD[:, :3], references=GOOD[:, :3])
    with pytest.raises(ValueError, match="`predictions` must hold rows .*unequal width, row 0 .* row 3"):
        metric.compute()
    metric.add_batch(predictions=GOOD, references=GOOD)
    with pytest.raises(ValueError, match="not on both"):
        metric.compute(image_embeds=GOOD, text_embeds=GOOD)
    assert metric.compute()["t2i_recall@1"] == 100
    assert not list(tmp_path.rglob("*.arrow"))


def test_loads_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
    loaded = evaluate.load(IMAGE_TEXT_RETRIEVAL, cache_dir=str(tmp_path))
    assert loaded.name == "image_text_retrieval"
    assert "text_to_image" in loaded.inputs_description
    assert "text_to_image" in loaded.compute.__doc__
    results = loaded.compute(image_embeds=GOOD, text_embeds=GOOD)
    assert list(results) == [
        "i2t_recall@1",
        "i2t_recall@5",
        "i2t_recall@10",
        "t2i_recall@1",
        "t2i_recall@5",
        "t2i_recall@10",
        "i2t_median_rank",
        "t2i_median_rank",
        "mean_recall",
    ]
    loaded.add_batch(predictions=GOOD, references=GOOD)
    assert loaded.compute() == results


def test_the_example_of_the_card_runs():
    card = (FOLDER / "README.md").read_text()
    example = doctest.DocTestParser().get_doctest(card, {}, "card", None, 0)
    assert len(example.examples) > 3
    results = doctest.DocTestRunner().run(example)
    assert results.failed == 0
