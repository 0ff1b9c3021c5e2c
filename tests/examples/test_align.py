"""Heads by many settings on features of noise, and the commands that they are compared with as stand-ins."""

import json
import shutil
import sys

import pytest
import torch

from examples.paper import align
from examples.paper.align import FeatureDataset, join_features, measure_command, pool, sample_images
from modeling_lotlip.align.features import MODALITIES, Features
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval


SETTINGS = ["linear heads", "[CLS] alone", "linear heads, epochs chosen"]


def make_features(num_images: int, seed: int) -> Features:
    """Images with a short and a long caption each."""
    generator = torch.Generator().manual_seed(seed)
    captions = []
    for image in range(num_images):
        captions.append([image, 2 * image, MODALITIES.index("short")])
        captions.append([image, 2 * image + 1, MODALITIES.index("long")])
    images = torch.randn(num_images, 16, generator=generator)
    texts = torch.randn(2 * num_images, 8, generator=generator)
    contents = [f"text {index} of {seed}" for index in range(2 * num_images)]
    no_texts = torch.zeros(len(texts))
    return Features(images, texts, torch.tensor(captions), {"unreadable_images": 0}, contents, no_texts)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the script on features of noise, in this process, and returns what it wrote."""
    dataset = FeatureDataset("noise", make_features(12, seed=0), {"noise": make_features(6, seed=1)})
    monkeypatch.setattr(align, "load_features", lambda args: ([dataset], [{"data": "noise"}]))

    def run(*options) -> dict:
        file = tmp_path / "align.json"
        words = ["--output_file", file, "--data", "noise=", "--text_model", "text", "--vision_model", "vision"]
        monkeypatch.setattr(sys, "argv", ["align.py", *map(str, [*words, *options])])
        align.main()
        return json.loads(file.read_text())

    return run


def test_every_setting_is_measured_on_some_and_on_all_images(run):
    results = run("--settings", *SETTINGS, "--pairs", 8, 50, "--seeds", 3, "--num_train_epochs", 2)
    measured = [(row["setting"], row["pairs"]) for row in results["rows"]]
    assert measured == [(setting, pairs) for pairs in (12, 8) for setting in SETTINGS]
    assert all(0 < row["long_mrr"] <= 100 for row in results["rows"])


def test_what_is_measured_is_not_measured_again(run, monkeypatch):
    first = run("--settings", *SETTINGS, "--seeds", 3, "--num_train_epochs", 2)
    trained = []
    train_heads = align.train_heads

    def count(features, settings):
        trained.append(settings.seed)
        return train_heads(features, settings)

    monkeypatch.setattr(align, "train_heads", count)
    second = run("--settings", *SETTINGS, "--seeds", 3, 4, "--num_train_epochs", 2)
    assert trained == [4, 4, 4]
    assert second["rows"][:3] == first["rows"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--text_model", "tower"], "has results of text_model = .*text, not .*tower: name another"),
        (["--num_scenes", 9], "has results of data noise = 512 drawn .*, not 9 drawn"),
        (["--data", "noise=folder"], "has results of data noise = 512 drawn .*, not .*folder"),
    ],
    ids=["tower", "scenes", "folder"],
)
def test_results_of_other_towers_and_data_are_not_taken_for_those_of_these(run, capsys, changed, message):
    options = ["--settings", "linear heads", "--seeds", 3, "--num_train_epochs", 2]
    run(*options)
    with pytest.raises(ValueError, match=message):
        run(*options, *changed)


def test_results_of_unknown_towers_are_not_added_to(run, tmp_path):
    (tmp_path / "align.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match="does not say of which towers and data its results are"):
        run("--settings", "linear heads")


def test_images_that_are_sampled_keep_their_captions():
    features = make_features(12, seed=0)
    sampled = sample_images(features, 5, seed=1)
    assert len(sampled.images) == 5
    assert len(sampled.captions) == 10
    image, text, _ = sampled.captions[0].tolist()
    index = (features.images == sampled.images[image]).all(dim=1).nonzero().item()
    assert text in (2 * index, 2 * index + 1)


def test_the_first_half_of_a_feature_is_cls():
    features = make_features(2, seed=0)
    assert torch.equal(pool(features, "cls").images, features.images[:, :8])
    assert torch.equal(pool(features, "mean").images, features.images[:, 8:])


def test_datasets_that_are_joined_keep_their_captions():
    first = make_features(3, seed=0)
    second = make_features(3, seed=1)
    joined = join_features([first, second])
    image, text, _ = joined.captions[7].tolist()
    assert torch.equal(joined.images[image], second.images[0])
    assert joined.contents[text] == "text 1 of 1"
    assert torch.equal(joined.texts[text], second.texts[1])


@pytest.mark.skipif(sys.platform == "win32", reason="it measures with `os.wait4`")
def test_a_command_that_fails_is_named():
    with pytest.raises(ValueError, match="ended with status 3"):
        measure_command([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.skipif(sys.platform == "win32", reason="it measures with `os.wait4`")
def test_the_memory_of_a_command_counts():
    little = measure_command([sys.executable, "-c", "pass"])["peak_memory_mb"]
    much = measure_command([sys.executable, "-c", "text = 'a' * 100_000_000"])["peak_memory_mb"]
    assert 90 < much - little < 120


def test_a_training_is_measured_on_the_images_that_heads_find(run, monkeypatch, model_dir, encoder):
    """The stand-in for `lotlip train` writes a model that is trained already."""
    commands = []

    def train(command):
        commands.append(command)
        shutil.copytree(model_dir, command[command.index("--output_dir") + 1])
        return {"seconds": 5.0, "peak_memory_mb": 7.0}

    monkeypatch.setattr(align, "measure_command", train)
    results = run("--measure_training", "--num_unseen_scenes", 12, "--seeds", 3, 4)
    assert [command[-1] for command in commands] == ["1", "3", "4"]
    assert [row["seed"] for row in results["training"]] == [3, 4]
    row = results["training"][0]
    assert row["seconds"] == 5
    evaluated = evaluate_retrieval(encoder, load_scenes(12, seed=1))
    assert row["long_recall@1"] == pytest.approx(evaluated["long_t2i_recall@1"])


def test_commands_are_measured_one_after_another_with_the_same_features(run, monkeypatch):
    commands = []

    def measure(command):
        commands.append(command)
        return {"seconds": 5.0}

    monkeypatch.setattr(align, "measure_command", measure)
    results = run("--measure_commands", "--num_scenes", 8)
    assert [row["setting"] for row in results["commands"]] == list(align.COMMANDS)
    folders = {command[command.index("--features_dir") + 1] for command in commands}
    assert len(folders) == 1
    assert len({command[command.index("--output_dir") + 1] for command in commands}) == len(commands)
