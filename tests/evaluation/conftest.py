"""Data of the evaluations' tests."""

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from modeling_lotlip.data.scenes import load_scenes
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def evaluation_dir(tmp_path_factory) -> Path:
    """Ten images with 1 to 3 short captions and 0 to 2 long ones, saved with `save_to_disk`."""
    rows = []
    for index, scene in enumerate(load_scenes(10, seed=4)):
        short = []
        for number in range(1 + index % 3):
            first = WORDS[(index + number) % len(WORDS)]
            second = WORDS[(3 * index + number) % 7]
            short.append(f"a photo of {first} {second}")
        long = []
        for number in range(index % 3):
            sentences = f"the ground is {WORDS[index]}. the {WORDS[-index - 1]} is red."
            long.append(f"{sentences}\nblue sea {number}")
        row = {"image": scene["image"], "caption": short, "long_captions": long, "label": index % 4}
        rows.append(row)
    features = Features(
        image=Image(),
        caption=List(Value("string")),
        long_captions=List(Value("string")),
        label=ClassLabel(names=["red_boat", "green car", "blue house", "yellow tree"]),
    )
    folder = tmp_path_factory.mktemp("data")
    Dataset.from_list(rows, features=features).save_to_disk(folder)
    return folder
