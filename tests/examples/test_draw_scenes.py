from datasets import load_dataset

from examples.draw_scenes import draw_scenes
from modeling_lotlip.data.scenes import make_scene


def test_drawn_scenes_are_a_data_set(tmp_path):
    draw_scenes(tmp_path / "scenes", 5, seed=3)
    dataset = load_dataset("imagefolder", data_dir=str(tmp_path / "scenes"), split="train")
    assert dataset[4]["caption"] == make_scene(3, 4).caption and len(dataset) == 5
    assert dataset[4]["image"].tobytes() == make_scene(3, 4).draw().tobytes()
    assert not (tmp_path / "scenes.partial").exists()
