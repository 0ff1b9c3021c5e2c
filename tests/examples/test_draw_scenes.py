from datasets import load_dataset

from examples.draw_scenes import NOUNS, WORDS, describe_in_german, draw_scenes
from modeling_lotlip.data.scenes import COLORS, FRAMES, GROUNDS, LIGHTS, OTHER_SIDES, PLACES, SHAPES, make_scene


def test_drawn_scenes_are_a_dataset(tmp_path):
    draw_scenes(tmp_path / "scenes", 5, seed=3)
    dataset = load_dataset("imagefolder", data_dir=str(tmp_path / "scenes"), split="train")
    assert dataset[4]["caption"] == make_scene(3, 4).caption
    assert len(dataset) == 5
    assert dataset[4]["image"].tobytes() == make_scene(3, 4).draw().tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_a_scene_in_two_languages(tmp_path):
    draw_scenes(tmp_path / "scenes", 2, seed=3, languages=("english", "german"))
    row = load_dataset("imagefolder", data_dir=str(tmp_path / "scenes"), split="train")[0]
    assert row["caption"] == ["a photo of a red boat", "auf dem Foto ist ein rotes Boot"]
    for name in ("caption", "long_captions"):
        assert row[name] == [row[f"{name}_english"], row[f"{name}_german"]]

    scene = make_scene(3, 0)
    caption, long_caption = describe_in_german(scene)
    assert (caption, long_caption) == (row["caption_german"], row["long_captions_german"])
    assert long_caption.count(".") == len(scene.sub_captions)
    assert " ein großes braunes Zelt" in long_caption
    # every word that a scene may need is there, and no two have the same translation
    assert NOUNS.keys() == SHAPES.keys()
    assert len(set(NOUNS.values())) == len(NOUNS)
    assert WORDS.keys() == {*COLORS, *OTHER_SIDES, *PLACES, *GROUNDS, *LIGHTS, *FRAMES}
    assert len(set(WORDS.values())) == len(WORDS)
