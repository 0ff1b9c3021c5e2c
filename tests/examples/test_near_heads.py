"""What heads forget and keep, on features of noise."""

import argparse

import torch

from examples.paper.near_heads import Data, format_rows, join, keep_captions, run_seed, train_further
from modeling_lotlip.align.features import MODALITIES, Features
from modeling_lotlip.align.heads import HeadSettings, train_heads


ARGUMENTS = argparse.Namespace(num_train_epochs=3, learning_rate=1e-2, distill_weights=[10.0])


def make_features(seed: int) -> Features:
    """Twelve images with a short and a long caption each."""
    generator = torch.Generator().manual_seed(seed)
    captions = []
    for image in range(12):
        captions.append([image, 2 * image, MODALITIES.index("short")])
        captions.append([image, 2 * image + 1, MODALITIES.index("long")])
    images = torch.randn(12, 16, generator=generator)
    texts = torch.randn(24, 8, generator=generator)
    return Features(images, texts, torch.tensor(captions))


def make_data() -> Data:
    learned = make_features(0)
    return Data(
        start=join(make_features(1), keep_captions(learned, "short")),
        learned=learned,
        halves={
            "chosen_on": (make_features(2), make_features(3)),
            "reported_on": (make_features(4), make_features(5)),
        },
    )


def test_the_captions_of_two_collections_stay_with_their_images():
    first = make_features(0)
    second = keep_captions(make_features(1), "long")
    joined = join(first, second)
    image, text, modality = joined.captions[24].tolist()
    assert modality == MODALITIES.index("long")
    assert torch.equal(joined.images[image], second.images[0])
    assert torch.equal(joined.texts[text], second.texts[1])


def test_a_row_for_each_thing_that_was_done():
    rows = run_seed(ARGUMENTS, make_data(), seed=0)
    done = ["before", "after", "after, interpolated", "distilled, weight 10", "distilled, weight 10, interpolated"]
    assert [row["done"] for row in rows] == done
    assert rows[1]["alpha"] == 1
    assert "| after, interpolated |" in format_rows(rows)


def test_a_teacher_keeps_heads_near_their_start():
    data = make_data()
    start = train_heads(data.start, HeadSettings(num_epochs=3)).heads
    moved = []
    for weight in (0.0, 100.0):
        heads = train_further(start, data.learned, ARGUMENTS, seed=0, weight=weight)
        with torch.no_grad():
            before = start.embed("image", data.learned.images)
            moved.append((heads.embed("image", data.learned.images) - before).square().sum().item())
    assert moved[1] < 0.5 * moved[0]
