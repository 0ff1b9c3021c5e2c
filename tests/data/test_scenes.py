"""Tests of the embedded dataset: what is said of an image is in the image."""

import hashlib
import json

import datasets
import numpy as np
import pytest

from modeling_lotlip.data import scenes


# The side that is the brightest
SIDES = {"above": np.s_[0], "below": np.s_[-1], "the left": np.s_[:, 0], "the right": np.s_[:, -1]}


def test_texts_are_pinned():
    """
    A change of the generator changes every number measured on the scenes: make it knowingly. Each process of tests has
    another hash seed.
    """
    assert scenes.load_scenes(4, seed=3)["caption"][:] == scenes.load_scenes(9, seed=3)["caption"][:4]
    scene = scenes.make_scene(0, 0)
    assert scene.caption == "a photo of a red boat"
    assert scene.long_caption == (
        "It has a copper frame. The east has a small pink box. In the northwest is a big blue heart. "
        "Everything lies on snow. The west has a big red arrow. Five things are around it. A big blue ball is "
        "in the southeast. The light comes from the right. In the north is a small purple bow."
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_said_is_in_the_image(seed):
    for index in range(0, 384, 5):
        scene = scenes.make_scene(seed, index)
        pixels = np.asarray(scene.draw()).astype(float)
        light = np.asarray(scenes._light_map(scene.light)) / 255
        frame = scenes.FRAMES[scene.frame]
        assert pixels.shape == (64, 64, 3)
        assert (pixels[[0, -1]] == frame).all()
        assert (pixels[:, [0, -1]] == frame).all()
        assert light.max() == 1 == light[SIDES[scene.light]].min()
        assert light.min() == pytest.approx(0.7, abs=0.01)
        free = np.ones((64, 64), dtype=bool)
        for thing in (scene.salient, *scene.others):
            left, top, right, bottom = thing.box
            assert free[top : bottom + 1, left : right + 1].all(), "things are at least a pixel apart"
            free[top : bottom + 1, left : right + 1] = False
            is_thing = np.abs(pixels - np.array(scenes.COLORS[thing.color]) * light).max(-1) <= 3
            assert is_thing[top:bottom, left:right].sum() >= 5
        free[:2] = free[-2:] = free[:, :2] = free[:, -2:] = False
        assert np.abs(pixels - np.array(scenes.GROUNDS[scene.ground]) * light)[free].max() <= 3

        assert scene.caption.endswith(f"{scene.salient.color} {scene.salient.kind}")
        assert len(scene.sub_captions) == len(scene.others) + 4
        assert scene.salient.kind not in scene.long_caption.lower().replace(".", "").split()
        for thing in scene.others:
            (told,) = [part for part in scene.sub_captions if thing.place in part.split()]
            assert {thing.size, thing.color, thing.kind} <= {*told.split()}
            center = np.add(thing.box[:2], thing.box[2:]) / 2
            assert np.abs(center - scenes.PLACES[thing.place]).max() <= 2
            assert thing.box[2] - thing.box[0] == scenes.OTHER_SIDES[thing.size]
        for word in (scene.ground, scene.frame, f"from {scene.light}", scenes.NUMBERS[len(scene.others)]):
            assert sum(word in part for part in scene.sub_captions) == 1


def test_dataset_columns_and_values():
    dataset = scenes.load_scenes(130, seed=1)
    names = [f"{color} {kind}" for color, kind in scenes.SALIENT_PAIRS]
    assert dataset.features == datasets.Features(
        image=datasets.Image(),
        caption=datasets.Value("string"),
        long_captions=datasets.List(datasets.Value("string")),
        label=datasets.ClassLabel(names=names),
    )
    for index in (0, 129):
        row = dataset[index]
        scene = scenes.make_scene(1, index)
        assert row["image"].mode == "RGB"
        assert row["image"].tobytes() == scene.draw().tobytes()
        assert row["caption"] == scene.caption == f"a photo of a {names[row['label']]}"
        assert row["long_captions"] == [scene.long_caption]


def test_saved_scenes_are_read_as_a_folder_of_images(tmp_path):
    scenes.save_scenes(tmp_path / "train", num_scenes=3, seed=4)
    loaded = datasets.load_dataset("imagefolder", data_dir=tmp_path, split="train")
    expected = scenes.load_scenes(3, seed=4)
    assert loaded["long_captions"][:] == expected["long_captions"][:]
    assert loaded[2]["caption"] == expected[2]["caption"]
    np.testing.assert_array_equal(loaded[2]["image"], expected[2]["image"])


def test_scenes_are_saved_again_but_never_over_other_captions(tmp_path):
    scenes.save_scenes(tmp_path, num_scenes=2)
    scenes.save_scenes(tmp_path, num_scenes=2)
    with pytest.raises(FileExistsError, match=r"metadata\.jsonl has other captions: name a new folder"):
        scenes.save_scenes(tmp_path, num_scenes=3)
    assert not (tmp_path / "0002.png").exists()


def test_what_scenes_are_made_of_is_pinned():
    """Another color, place or size is another dataset, on which earlier results do not hold."""
    tables = [scenes.COLORS, scenes.GROUNDS, scenes.FRAMES, scenes.SHAPES, scenes.PLACES, scenes.LIGHTS]
    sizes = [scenes.IMAGE_SIZE, scenes.FRAME_WIDTH, scenes.OVERSAMPLING, scenes.SALIENT_SIDES, scenes.OTHER_SIDES]
    content = json.dumps([tables, sizes, scenes.DARKEST, list(scenes.NUMBERS)])
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == "597f61812bf136f6"
