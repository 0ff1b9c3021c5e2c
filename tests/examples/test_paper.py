"""The scripts that answer the paper's questions, where the answers are known, and run once in miniature."""

import json
import random
import sys

import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer, Dinov2Config, Dinov2Model

from examples.paper import (
    captions,
    copies,
    corner_attention,
    flops,
    no_match,
    relevance,
    sentences,
    token_search,
    views,
)
from modeling_lotlip import LotlipConfig
from modeling_lotlip.benchmarking import frozen_towers
from modeling_lotlip.benchmarking.flops import measure_towers
from modeling_lotlip.data.scenes import Scene, make_scene
from modeling_lotlip.evaluation.relevance import PATCH_METHODS
from modeling_lotlip.search.index import Index
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


@pytest.fixture
def towers(tmp_path) -> list:
    """The arguments that name an image and a text tower."""
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**tower, image_size=28, patch_size=14)).save_pretrained(tmp_path / "vision")
    BertModel(BertConfig(**tower, intermediate_size=16, vocab_size=8)).save_pretrained(tmp_path / "text")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "boat", "ground"]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path / "text")
    names = ["--vision_model_name_or_path", tmp_path / "vision", "--text_model_name_or_path", tmp_path / "text"]
    return [*names, "--image_size", 28, "--steps", 2, "--seeds", 2, "--dtype", "float32"]


def test_an_output_file_that_cannot_be_written_is_refused_first(model_dir, tmp_path, run, capsys):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "out.txt", "must end in"),
        (tmp_path / "file" / "out.json", "cannot be written"),
    ):
        for script in (relevance, corner_attention):
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


def describe(scene: Scene) -> sentences.Described:
    return sentences.Described(scene.draw(), scene.caption, list(scene.sub_captions), "scenes", scene)


def test_sentences_are_true_of_their_own_scene_and_not_of_others():
    scenes = [make_scene(3, index) for index in range(30)]
    kinds = {sentences.is_true_of_scene(sentence, scene)[0] for scene in scenes for sentence in scene.sub_captions}
    assert kinds == {"thing", "ground", "light", "frame", "count"}
    for scene in scenes:
        assert all(sentences.is_true(sentence, describe(scene)) for sentence in scene.sub_captions)
    first = scenes[0]
    other = next(scene for scene in scenes if scene.ground != first.ground)
    told = dict(sentences.is_true_of_scene(sentence, other) for sentence in first.sub_captions)
    assert told["ground"] is False
    photo = sentences.Described(first.draw(), "a photo", ["It is red", "It is old"], "photos")
    assert sentences.is_true("It is old", photo) and not sentences.is_true("It is new", photo)


def test_half_of_the_sentences_are_exchanged_for_false_ones():
    described = [describe(make_scene(3, index)) for index in range(20)]
    num_true, num_sentences = 0, 0
    for own in described:
        texts, truths = sentences.exchange(own, described, random.Random(0))
        assert [sentences.is_true(text, own) for text in texts] == truths and len(texts) == len(own.sentences)
        assert [text == before for text, before in zip(texts, own.sentences)] == truths
        num_true, num_sentences = num_true + sum(truths), num_sentences + len(truths)
    assert 0.3 < num_true / num_sentences < 0.7


def test_area_under_curve_by_counting():
    scores = torch.randn(60, generator=torch.manual_seed(0)).round(decimals=1)  # with equals
    truths = torch.arange(60) % 3 == 0
    pairs = [(own, other) for own in scores[truths] for other in scores[~truths]]
    better = sum(1.0 * (own > other).item() + 0.5 * (own == other).item() for own, other in pairs)
    assert sentences.area_under_curve(scores, truths) == pytest.approx(100 * better / len(pairs))


def test_judgements_of_sentences(monkeypatch):
    """Two groups of pictures; each sentence is the direction that it names."""
    monkeypatch.setattr(sentences, "NUM_NEAR", 3)
    directions = dict(zip(("boat", "house", "old"), torch.eye(3)))
    images = torch.tensor(
        [[1, 0, age] for age in (0.1, 0.2, 0.3, 0.4)] + [[0, 1, age] for age in (0.5, 0.6, 0.7, 0.8)]
    )

    def embed(texts: list[str]) -> torch.Tensor:
        return torch.stack([directions[next(word for word in directions if word in text)] for text in texts])

    judge = sentences.Judge(embed, torch.nn.functional.normalize(images, dim=1), ["boat", "house", "old"])
    judged = judge.judge(["old", "boat"], [3, 4])
    assert judge.find(["house"])[0] in (4, 5, 6, 7)
    # the oldest boat, among all and among those that are near it; the newest house is older than any boat
    assert judged["whole collection"][:, 0].tolist() == pytest.approx([3 / 8, 4 / 8])
    assert judged["near pictures"][:, 0].tolist() == [1, 0]
    assert judged["collection and near pictures"][:, 0].tolist() == pytest.approx([3 / 8, 0])
    assert judged["whole collection"][1, 1] == 0


@pytest.fixture
def photos(tmp_path):
    """An `imagefolder` of described scenes, twelve to train on and twelve to search."""
    for series, split in enumerate(("train", "test")):
        (tmp_path / "photos" / split).mkdir(parents=True)
        rows = []
        for index in range(12):
            scene = make_scene(4 + series, index)
            scene.draw().save(tmp_path / "photos" / split / f"{index}.png")
            rows.append({"file_name": f"{index}.png", "caption": scene.caption, "long_captions": [scene.long_caption]})
        (tmp_path / "photos" / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "photos"


def test_sentences(photos, tmp_path, run, capsys, towers):
    path = tmp_path / "sentences.json"
    small = ["--scenes", 8, "--searched_scenes", 10, "--draws", 10]
    run(sentences, *towers, "--data_dirs", photos, *small, "--output_file", path)
    printed, rows = capsys.readouterr().out, json.loads(path.read_text())["rows"]
    assert list(dict.fromkeys(row["collection"] for row in rows)) == ["scenes", "photos", "all together"]
    assert len(rows) == 3 * 8 and printed.strip() == sentences.format_table(rows).strip()
    for row in rows:
        low, high = row["interval"]
        assert low <= high and 0 <= row["auc"] <= 100 and 0 < row["found_true"] < row["exchanged_true"] < 100
    (photos / "test").rename(tmp_path / "test")
    with pytest.raises(ValueError, match="needs a split `train`, and another one"):
        run(sentences, *towers, "--data_dirs", photos)


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
    assert frozen_towers.crop(picture.rotate(90, expand=True), 112, 0).getpixel((9, 0)) == (0, 0, 255)


def test_a_wide_scene_holds_its_scene_as_it_is():
    places = set()
    for number in range(12):
        wide, scene = views.draw_wide(1.5, number), make_scene(7, number).draw()
        assert wide.size == (96, 64)
        places |= {left for left in range(33) if wide.crop((left, 0, left + 64, 64)).tobytes() == scene.tobytes()}
    assert min(places) < 8 and max(places) > 24


def test_ranks_and_intervals():
    similarities = torch.tensor([[0.5, 0.9, 0.1], [0.2, 0.7, 0.7], [0.3, 0.2, 0.1]])
    assert frozen_towers.rank(similarities).tolist() == [2, 1.5, 3]
    assert frozen_towers.bootstrap(torch.ones(20)) == (1, 1)
    low, high = frozen_towers.bootstrap(torch.tensor([0.0, 1.0] * 50))
    assert 0.35 < low < 0.45 and 0.55 < high < 0.65


def test_views_in_miniature(towers, tmp_path, run, capsys):
    file = tmp_path / "views.json"
    run(views, *towers, "--scenes", 8, "--wide_scenes", 8, "--aspects", 2, "--output_file", file)
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
    run(views, *towers, "--dataset_name", "imagefolder", "--data_dir", pictures)
    assert [line.split(" | ")[1] for line in capsys.readouterr().out.splitlines()[2:]] == ["short"] * 5 + ["long"] * 5


# ---------------------------------------------------------------------------------------------------------------------
# Captions beside the pictures


def test_no_query_is_stored():
    lamps = [
        frozen_towers.Captioned(None, "A lion on a rock with.", ["Red clay", "A lion on a rock with a tree", "Worn"]),
        frozen_towers.Captioned(None, "A dog.", ["A dog"]),
    ]
    pairs = captions.make_pairs(lamps)
    assert pairs["long, short stored"] == [(0, "A lion on a rock with.", "Red clay. Worn.")]
    assert pairs["short, long stored"] == [(0, "Red clay. Worn.", "A lion on a rock with.")]
    ((number, stored, query),) = pairs["other half"]
    halves = [part.strip(". ") for text in (stored, query) for part in text.split(". ")]
    assert number == 0 and sorted(halves) == sorted(lamps[0].sentences) and len(halves) == 3


def test_similarity_and_words_are_joined():
    similarities, words = torch.tensor([[[0.3, 0.2, 0.1]]]), torch.tensor([[0.0, 0.0, 5.0]])
    joined = captions.join_scores(similarities, words)
    assert joined["similarity"].equal(similarities) and joined["words"].equal(words[None])
    expected = [[[1 / 61, 1 / 62, 1 / 63 + 1 / 61]]]
    torch.testing.assert_close(joined["rank fusion"], torch.tensor(expected))
    # standardised: 1, 0, -1 and -0.577, -0.577, 1.155
    torch.testing.assert_close(
        joined["sum, words x 0.5"], torch.tensor([[[0.7113, -0.2887, -0.4226]]]), atol=1e-3, rtol=0
    )
    nothing = captions.join_scores(similarities, torch.zeros(1, 3))
    torch.testing.assert_close(nothing["sum, words x 1"], torch.tensor([[[1.0, 0, -1]]]))
    assert nothing["rank fusion"].argmax() == 0


def test_captions(photos, tmp_path, run, capsys, towers):
    path = tmp_path / "captions.json"
    run(captions, *towers, "--data_dirs", photos, "--output_file", path)
    printed, rows = capsys.readouterr().out, json.loads(path.read_text())["rows"]
    assert printed.strip() == captions.format_table(rows).strip() and len(rows) == 3 * 6
    for row in rows:
        low, high = row["interval"]
        assert row["num_pictures"] == 12 and low <= row["gain"] <= high
        assert 0 <= row["recall@1"] <= row["recall@10"] <= 100 and row["recall@1"] <= row["mrr"]
    assert [row["gain"] for row in rows if row["search"] == "similarity"] == [0] * 3


# ---------------------------------------------------------------------------------------------------------------------
# Weak results and copies


@pytest.fixture
def data_sets(tmp_path) -> list:
    """The argument that names two data sets of three pictures in a split."""
    for name in ("boats", "grounds"):
        for split in ("train", "test"):
            folder = tmp_path / name / split
            folder.mkdir(parents=True)
            lines = []
            for number in range(3):
                make_scene(number, 1).draw().save(folder / f"{number}.png")
                lines.append({"file_name": f"{number}.png", "caption": "red boat", "long_captions": ["ground"]})
            (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return ["--data_dirs", tmp_path / "boats", tmp_path / "grounds"]


def test_values_of_first_results_by_hand():
    """Two pictures, of which a text fits the first one; texts that fit no picture are between them."""
    pictures, texts = torch.eye(3)[:2], torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    background = nn.functional.normalize(torch.tensor([[1.0, 2, 3], [2, 1, 3], [1, 1, 3]]), dim=-1)
    values = no_match.compute_values(texts, pictures, background)
    assert values["similarity"].tolist() == [1, 0]
    median, spread = no_match.measure_tops((background @ pictures.T).amax(dim=1))
    assert values["above the background (the line)"].tolist() == pytest.approx(
        [(1 - median) / spread, -median / spread]
    )
    assert all(value[0] > value[1] or not value[1] == value[1] for value in values.values())


def test_thresholds_are_chosen_on_one_collection_and_told_on_others():
    right, near, far = torch.arange(100.0), torch.arange(50.0) - 20, torch.full((10,), -50.0)
    values = {"right": right, "near": near, "far": far}
    found = {
        (name, "long"): {
            value: {group: numbers + shift for group, numbers in values.items()}
            for value in ("similarity", "above the background (the line)")
        }
        for name, shift in (("one", 0), ("other", 1000))
    }
    rows = {(row["chosen_on"], row["collection"]): row for row in no_match.list_transfers(found)}
    assert rows["one", "one"]["kept"] == 95 and rows["one", "one"]["near_held_back"] == 50
    assert rows["one", "other"]["kept"] == 100 and rows["one", "other"]["far_held_back"] == 0
    assert rows["other", "one"]["kept"] == 0 and rows["other", "one"]["near_held_back"] == 100
    auc = no_match.list_auc(found)
    assert all(row["far"] == 100 and 80 < row["near"] < 100 for row in auc)
    curve = {row["line"]: row for row in no_match.list_curve(found) if row["collection"] == "one"}
    assert curve[0.0]["kept"] == 100 and curve[5.0]["kept"] == 95


def test_no_match_in_miniature(towers, data_sets, tmp_path, run, capsys):
    options = [
        "--train_scenes",
        8,
        "--eval_scenes",
        16,
        "--splits",
        2,
        "--plot_file",
        tmp_path / "plots" / "curve.png",
    ]
    run(no_match, *towers, *data_sets, *options, "--output_file", tmp_path / "no_match.json")
    results = json.loads((tmp_path / "no_match.json").read_text())
    assert {row["collection"] for row in results["curve"]} == {"scenes", "boats", "grounds"}
    assert all(0 <= row["near_held_back"] <= 100 for row in results["curve"])
    with Image.open(tmp_path / "plots" / "curve.png") as picture:
        assert picture.convert("L").getextrema() != (255, 255)
    assert "| scenes | long | similarity |" in capsys.readouterr().out


def test_copies_that_are_found_and_other_pictures():
    own = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.3], [0.0, 1.0], [-1.0, 0.0]]), dim=-1)
    found = dict.fromkeys(copies.COPIES, own) | {"trimmed": own.roll(1, dims=0)}
    rows = {row["together"]: row for row in copies.compare("four", own, found)}
    row = rows["cosine 0.95"]
    assert row["JPEG"] == 100 and row["trimmed"] == 25 and row["other pictures"] == 50
    assert rows["cosine 0.99"]["other pictures"] == 0


def test_copies_are_of_the_same_picture():
    picture = make_scene(7, 3).draw()
    changed = {kind: change(picture) for kind, change in copies.COPIES.items()}
    assert changed["half size"].size == (32, 32) and changed["trimmed"].size == (60, 60)
    assert changed["JPEG"].size == changed["brighter"].size == (64, 64)
    means = {kind: torch.tensor(list(made.convert("L").getdata())).float().mean() for kind, made in changed.items()}
    assert means["brighter"] > 1.1 * means["JPEG"] and changed["JPEG"].tobytes() != picture.tobytes()


def test_copies_in_miniature(towers, data_sets, tmp_path, run):
    arguments = [*towers, *data_sets, "--num_pictures", 4, "--output_file", tmp_path / "copies.json"]
    run(copies, *arguments)
    rows = json.loads((tmp_path / "copies.json").read_text())["rows"]
    assert list(dict.fromkeys(row["pictures"] for row in rows)) == ["scenes", "boats", "grounds", "all"]
    assert all(0 <= row["JPEG"] <= 100 for row in rows)


# ---------------------------------------------------------------------------------------------------------------------
# Search by tokens


def test_the_first_results_are_put_in_the_order_of_their_tokens():
    single = torch.tensor([[0.9, 0.1, 0.8, 0.7], [-0.9, -0.1, -0.8, -0.7]])
    tokens = torch.tensor([[-0.5, 0.9, 0.3, 0.8], [0.0, 0.1, 0.2, 0.3]])
    assert token_search.rerank(single, tokens, 2).argsort(descending=True).tolist() == [[2, 0, 3, 1], [3, 1, 2, 0]]
    assert token_search.rerank(single, tokens, 9).argsort().equal(tokens.argsort())


def test_patches_side_by_side_are_merged():
    """16 patches in which the quarters of the picture have a direction each; the class token stays."""
    quarters = torch.eye(5)[1:].reshape(2, 2, 5)
    patches = quarters.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1).reshape(16, 5)
    image = torch.cat((torch.eye(5)[:1], patches))[None]
    assert token_search.merge_neighbours(image, 4)[0].equal(torch.eye(5))
    halves = token_search.merge_neighbours(image, 2)[0, 1:]
    torch.testing.assert_close(halves, torch.tensor([[0, 1.0, 1, 0, 0], [0, 0, 0, 1, 1]]) / 2**0.5)
    alike = token_search.merge_alike(image, 4)[0]
    assert sorted(alike.argmax(dim=1).tolist()) == [0, 1, 2, 3, 4] and alike.sum().item() == pytest.approx(5)


def test_tokens_are_learned_and_padding_does_not_count(run):
    """Each text names three to five of the five words that its picture is of."""
    generator = torch.manual_seed(0)
    words, images, texts = token_search.draw(16, 16), [], []
    for _ in range(40):
        chosen = torch.randperm(16, generator=generator)[:5]
        images.append(words[chosen])
        texts.append(words[chosen[: torch.randint(3, 6, (1,), generator=generator)]])
    features = token_search.Features(["a"] * 40, torch.stack(images), {"short": texts, "long": texts})
    args = token_search.TokenSearchArguments(steps=150, seeds=1, width=16, token_batch_size=40)
    heads = token_search.train_token_heads(features, args, seed=0)
    embeds, is_token = heads.embed_texts(texts)
    images = heads.embed_images(features.images)
    similarities = token_search.compare_tokens(images, embeds, is_token)
    assert frozen_towers.rank(similarities).mean() < 2
    length = len(texts[0])
    alone = token_search.compare_tokens(images, embeds[:1, :length], is_token[:1, :length])
    torch.testing.assert_close(alone[0], similarities[0])


def test_an_index_finds_in_two_steps_what_the_scores_say(tmp_path):
    torch.manual_seed(0)
    vectors, tokens = token_search.draw(60, 8), token_search.draw(60, 5, 8)
    indices = []
    for name, embeds in (("single", vectors), ("tokens", tokens)):
        indices.append(Index.make(tmp_path / name, 8, {}, of_tokens=embeds.ndim == 3))
        indices[-1].write([{"name": f"{row:02}", "embedding": embedding} for row, embedding in enumerate(embeds)])
    query, text = token_search.draw(1, 8), token_search.draw(1, 3, 8)
    found = token_search.search_first(*indices, query[0], text[0], 20)
    by_tokens = token_search.compare_tokens(tokens, text, torch.ones(1, 3, dtype=torch.bool))
    expected = token_search.rerank(query @ vectors.T, by_tokens, 20)[0].argsort(descending=True)[:10]
    assert [int(name) for name in found] == expected.tolist()


def test_token_search_in_miniature(towers, data_sets, tmp_path, run, capsys):
    options = ["--train_scenes", 8, "--eval_scenes", 12, "--width", 8, "--token_batch_size", 6, "--num_first", 5]
    path = tmp_path / "tokens.json"
    run(token_search, *towers, *data_sets, *options, "--num_timed", 20, "--output_file", path)
    results = json.loads(path.read_text())
    ways = ["one embedding", "all tokens", "one embedding, then the tokens of the first 5"]
    ways += ["merged, neighbours", "merged, alike"]
    for name in ("scenes", "boats", "grounds"):
        for kind in ("short", "long"):
            rows = [row for row in results["rows"] if (row["pictures"], row["texts"]) == (name, kind)]
            assert [row["way"] for row in rows] == ways and [row["tokens"] for row in rows] == [None, 5, 5, 2, 2]
            assert rows[0]["gain"] == 0 and all(row["from"] <= row["gain"] <= row["to"] for row in rows)
    assert [row["way"] for row in results["times"]] == [ways[0], ways[2], ways[1]]
    assert results["times"][0]["MB"] == 2 * 20 * 32 / 2**20 and results["times"][2]["MB"] == 2 * 20 * 5 * 8 / 2**20
    assert "| scenes | long | all tokens | 5 |" in capsys.readouterr().out
