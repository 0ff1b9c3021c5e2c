"""Small random towers, a dataset of captioned scenes, and what the one makes of the other."""

import pytest
import torch
from transformers import ViTImageProcessor

from modeling_lotlip.align.features import FeatureComputer
from modeling_lotlip.align.towers import load_text_model, load_vision_model
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.towers import WORDS, save_bert, save_vit


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    torch.manual_seed(0)
    words = [*WORDS, "the", "green", "blue", "yellow", "is", "."]
    return save_bert(tmp_path_factory.mktemp("text"), words, len(words))


@pytest.fixture(scope="session")
def vision_folder(tmp_path_factory):
    torch.manual_seed(0)
    size = {"height": 32, "width": 32}
    return save_vit(tmp_path_factory.mktemp("vision"), ViTImageProcessor(size=size))


@pytest.fixture
def text_model(text_folder):
    return load_text_model(text_folder, max_length=128, device="cpu")


@pytest.fixture
def vision_model(vision_folder):
    return load_vision_model(vision_folder, device="cpu")


@pytest.fixture
def compute(text_model, vision_model, tmp_path):
    """Computes the features of a dataset, by default of 12 scenes, kept in a folder of the test."""

    def compute(dataset=None):
        dataset = load_scenes(12) if dataset is None else dataset
        reader = RowReader(dataset.column_names, CaptionArguments())
        computer = FeatureComputer(text_model, vision_model, tmp_path / "features", batch_size=4)
        return computer.compute(dataset, reader)

    return compute
