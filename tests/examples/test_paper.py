"""The scripts that answer the paper's questions, where the answers are known, and run once in miniature."""

import json
import sys

import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer, Dinov2Config, Dinov2Model

from examples.paper import corner_attention, flops, relevance, sentences, views
from modeling_lotlip import LotlipConfig
from modeling_lotlip.benchmarking.flops import measure_towers
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.evaluation.relevance import PATCH_METHODS
from tests.conftest import tiny_config


TEXT = "A red boat. The ground is sand. A green tree"


@pytest.fixture
def run(monkeypatch):
    """Runs a script in this process, on the CPU."""

    def run(script, *arguments) -> None:
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        script.main()

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return run


def test_an_output_file_that_cannot_be_written_is_refused_first(model_dir, tmp_path, run, capsys):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "out.txt", "must end in"),
        (tmp_path / "file" / "out.json", "cannot be written"),
    ):
        for script in (relevance, corner_attention, sentences):
            with pytest.raises(SystemExit):
                run(script, "--model_name_or_path", model_dir, "--output_file", path)
            assert message in capsys.readouterr().err.splitlines()[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Relevance on scenes


def test_what_is_a_hit():
    scene = make_scene(seed=4, index=5)
    for thing in scene.others:
        sentence = scene.sub_captions[relevance.find_sentence(scene, thing)]
        assert all(word in sentence for word in (thing.size, thing.colour, thing.kind, thing.place))
        left, top, right, bottom = thing.box
        pixels = torch.zeros(1, 64, 64)
        pixels[:, top:bottom, left:right] = 1
        assert torch.equal(relevance.cover_patches(thing.box, 8, 8), nn.functional.max_pool2d(pixels, 8)[0] > 0)
    interval = binomtest(31, 200).proportion_ci(method="wilson")
    assert relevance.wilson_interval(31, 200) == pytest.approx((100 * interval.low, 100 * interval.high))


def test_pointing_game_of_a_map_that_knows_and_of_one_that_does_not(loaded, monkeypatch):
    model, processor = loaded
    drawn = relevance.draw_large(60, seed=3)

    def play(find_maps):
        monkeypatch.setattr(relevance, "patch_relevance", find_maps)
        return relevance.play_pointing_game(model, processor, drawn, torch.zeros(60, 32), "occlusion", 60)

    maps = torch.stack([relevance.cover_patches(thing.box, 8, 8) for _, thing, _ in drawn]).float()
    known = play(lambda *_: maps[:, None])
    assert known["hits"] == 100 and known["other"] == 0 and known["chance"] == pytest.approx(100 * maps.mean().item())
    random_maps = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    unknown = play(lambda *_: random_maps)
    assert unknown["low"] < unknown["chance"] < unknown["high"]


def test_relevance(model_dir, tmp_path, run):
    path = tmp_path / "relevance.json"
    arguments = ["--model_name_or_path", model_dir, "--num_scenes", 3, "--output_file", path]
    run(relevance, *arguments)
    results = json.loads(path.read_text())
    assert all(list(results["over_image"][game]) == list(PATCH_METHODS) for game in ("large", "small"))
    assert path.with_suffix(".md").exists()
    assert 20 < results["over_text"]["gradient_input"]["chance"] < 34


def test_a_method_that_the_model_does_not_know_ends_before_anything_is_measured(model_dir, run, monkeypatch):
    def refuse(*_):
        raise ValueError("no class token")

    monkeypatch.setitem(PATCH_METHODS, "rollout", refuse)
    with pytest.raises(SystemExit, match="--methods rollout: no class token"):
        run(relevance, "--model", model_dir, "--num_scenes", 1)


# ---------------------------------------------------------------------------------------------------------------------
# Corner tokens


def test_kinds_and_locate_tokens(loaded):
    _, processor = loaded
    input_ids = processor.tokenizer(TEXT)["input_ids"]
    kinds = corner_attention.classify_tokens(input_ids, processor.tokenizer)
    assert kinds[:6] == ["[CLS]", "function words", "content words", "content words", "[SEP]", "function words"]
    places = corner_attention.locate_tokens(input_ids, kinds, processor.tokenizer)
    assert places == [None, *["first"] * 3, None, *["middle"] * 4, None, *["last"] * 3, None]


def test_corner_attention(model_dir, tmp_path, run):
    path = tmp_path / "corners.json"
    arguments = ["--model_name_or_path", model_dir, "--max_eval_samples", 5, "--output_file", path]
    run(corner_attention, *arguments)
    results = json.loads(path.read_text())
    for rows in (results["attention"]["last_layer"], results["attention"]["rollout"]):
        assert list(rows) == ["[CLS]", "corner 1", "corner 2"]
        for row in rows.values():
            assert sum(row[kind] for kind in corner_attention.KINDS) == pytest.approx(100, abs=1e-3)
            assert sum(row[place] for place in corner_attention.PLACES) == pytest.approx(100)
    assert results["attention"]["uniform"]["entropy"] > results["attention"]["last_layer"]["[CLS]"]["entropy"]
    for name in ("cosine", "attention_overlap"):
        matrix = torch.tensor(results[name])
        assert torch.allclose(matrix, matrix.t(), atol=1e-5) and torch.allclose(matrix.diagonal(), torch.ones(3))


# ---------------------------------------------------------------------------------------------------------------------
# Sentences


def test_ticks_that_are_right_and_true_ones_that_get_one():
    fits = torch.tensor([[0.95, 0.9, 0.5, 0.1], [0.95, 0.2, 0.3, 0.1]])
    truths = torch.tensor([[True, False, True, False], [True, True, True, False]])
    # of the three ticks two are right; of the five true ones two get a tick
    measured = sentences.measure_ticks(fits, truths)
    assert measured["precision"] == pytest.approx(100 * 2 / 3) and measured["recall"] == pytest.approx(100 * 2 / 5)
    assert measured["true"] == pytest.approx(100 * 5 / 8)
    assert measured["auc"] == pytest.approx((75 + 100) / 2)


def test_sentences_are_true_of_their_own_scene_and_not_of_others():
    scenes = [make_scene(3, index) for index in range(30)]
    kinds = {sentences.is_true(sentence, scene)[0] for scene in scenes for sentence in scene.sub_captions}
    assert kinds == {"thing", "ground", "light", "frame", "count"}
    for scene in scenes:
        assert all(sentences.is_true(sentence, scene)[1] for sentence in scene.sub_captions)
    first = scenes[0]
    other = next(scene for scene in scenes if scene.ground != first.ground)
    told = dict(sentences.is_true(sentence, other) for sentence in first.sub_captions)
    assert told["ground"] is False


def test_sentences(model_dir, tmp_path, run, capsys):
    path = tmp_path / "sentences.json"
    options = ["--num_scenes", 12, "--num_queries", 2, "--batch_size", 5, "--output_file", path]
    run(sentences, "--model_name_or_path", model_dir, *options)
    printed, results = capsys.readouterr().out, json.loads(path.read_text())
    assert list(results) == ["alone", "left_out"]
    for score, table in results.items():
        for kind, row in table.items():
            cells = [f"{row[name]:.1f}" for name in ("true", "precision", "recall", "auc")]
            assert f"| `{score}` | {kind} | {' | '.join(cells)} |" in printed
    with pytest.raises(SystemExit):
        run(sentences, "--model", model_dir, "--num_scenes", 2, "--num_queries", 3)
    assert "--num_queries must be at most --num_scenes 2" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# Operations


def test_flops(tmp_path, capsys, run):
    tiny_config().save_pretrained(tmp_path / "config")
    options = ["--lengths", 8, 126, "--output_file", tmp_path / "out" / "flops.json"]
    for arguments, config in (
        ([], LotlipConfig()),
        (["--config_name", tmp_path / "config"], tiny_config()),
    ):
        run(flops, *options, *arguments)
        towers = measure_towers(config, [8, 126])
        assert flops.format_table(towers) in capsys.readouterr().out
        written = json.loads((tmp_path / "out" / "flops.json").read_text())
        assert {name: written[name] for name in towers} == towers
        with Image.open(tmp_path / "out" / "flops.png") as picture:
            assert picture.convert("L").getextrema() != (255, 255)
    assert f"| a caption of 126 tokens | {towers['text']['captions'][1]['flops'] / 1e9:.4g} |" in flops.format_table(
        towers
    )


def test_views_of_wide_pictures():
    """A white middle between a red left and a blue right end."""
    picture = Image.new("RGB", (300, 150), "white")
    picture.paste("red", (0, 0, 75, 150))
    picture.paste("blue", (225, 0, 300, 150))
    seen = {name: view(picture) for name, view in views.make_views(112, 14).items()}
    (middle,), (whole,), (squeezed,) = seen["crop"], seen["whole, own aspect"], seen["whole, squeezed"]
    assert middle.size == squeezed.size == (112, 112) and middle.getcolors() == [(112 * 112, (255, 255, 255))]
    assert whole.size == (11 * 14, 5 * 14)
    for left, right in (seen["2 crops"], seen["2 crops, smaller"], (whole, whole), (squeezed, squeezed)):
        assert left.getpixel((0, 9)) == (255, 0, 0) and right.getpixel((right.width - 1, 9)) == (0, 0, 255)
    assert [part.size for part in seen["2 crops, smaller"]] == [(84, 84)] * 2
    assert views.crop(picture.rotate(90, expand=True), 112, 0).getpixel((9, 0)) == (0, 0, 255)


def test_a_wide_scene_holds_its_scene_as_it_is():
    places = set()
    for number in range(12):
        wide, scene = views.draw_wide(1.5, number), make_scene(7, number).draw()
        assert wide.size == (96, 64)
        places |= {left for left in range(33) if wide.crop((left, 0, left + 64, 64)).tobytes() == scene.tobytes()}
    assert min(places) < 8 and max(places) > 24


def test_ranks_and_intervals():
    similarities = torch.tensor([[0.5, 0.9, 0.1], [0.2, 0.7, 0.7], [0.3, 0.2, 0.1]])
    assert views.rank(similarities).tolist() == [2, 1.5, 3]
    assert views.bootstrap(torch.ones(20)) == (1, 1)
    low, high = views.bootstrap(torch.tensor([0.0, 1.0] * 50))
    assert 0.35 < low < 0.45 and 0.55 < high < 0.65


@pytest.fixture
def frozen_towers(tmp_path) -> list:
    """The arguments that name an image and a text tower."""
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**tower, image_size=28, patch_size=14)).save_pretrained(tmp_path / "vision")
    BertModel(BertConfig(**tower, intermediate_size=16, vocab_size=8)).save_pretrained(tmp_path / "text")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "boat", "ground"]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path / "text")
    names = ["--vision_model_name_or_path", tmp_path / "vision", "--text_model_name_or_path", tmp_path / "text"]
    return [*names, "--image_size", 28, "--steps", 2, "--seeds", 2, "--dtype", "float32"]


def test_views_in_miniature(frozen_towers, tmp_path, run, capsys):
    file = tmp_path / "views.json"
    run(views, *frozen_towers, "--scenes", 8, "--wide_scenes", 8, "--aspects", 2, "--output_file", file)
    rows = json.loads(file.read_text())["rows"]
    assert [row["view"] for row in rows] == list(views.make_views(28, 14))
    crop, *others = rows
    assert crop["cost"] == 1 and crop["gain"] == 0 and crop["interval"] == [0, 0]
    assert all(row["cost"] <= 2 and row["recall@10"] == 100 for row in others)

    pictures = tmp_path / "pictures"
    for split in ("train", "test"):
        (pictures / split).mkdir(parents=True)
        lines = []
        for number in range(3):
            make_scene(number, 1).draw().save(pictures / split / f"{number}.png")
            lines.append({"file_name": f"{number}.png", "caption": "red boat", "long_captions": ["ground"]})
        (pictures / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    capsys.readouterr()
    run(views, *frozen_towers, "--dataset_name", "imagefolder", "--data_dir", pictures)
    assert [line.split(" | ")[1] for line in capsys.readouterr().out.splitlines()[2:]] == ["short"] * 5 + ["long"] * 5
