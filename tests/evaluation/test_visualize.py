"""Attention and relevance over texts and images, and what of a text embeddings use: on cases whose answer is known."""

import json
import random
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import nn
from transformers import AutoModel, AutoProcessor, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from examples.paper import corner_attention
from examples.paper import relevance as evaluate_relevance
from modeling_lotlip.data.scenes import COLOURS, make_scene
from modeling_lotlip.embedding.batches import embed_corpus, tokenize
from modeling_lotlip.embedding.families import padding_of
from modeling_lotlip.embedding.models import text_limit
from modeling_lotlip.evaluation import maps as visualize
from modeling_lotlip.evaluation import sensitivity as text_sensitivity
from modeling_lotlip.evaluation.relevance import (
    PATCH_METHODS,
    attention_rollout,
    gradient_weighted_rollout,
    patch_relevance,
    sub_caption_directions,
    sub_caption_numbers,
    token_attention,
    token_relevance,
)
from modeling_lotlip.sub_captions import join_sub_captions
from tests.embedding.test_dual_encoders import build_clip, build_siglip


TEXT = "A red boat. The ground is sand. A green tree"


@pytest.fixture
def loaded(model_dir):
    model = AutoModel.from_pretrained(model_dir, attn_implementation="eager").eval()
    return model.requires_grad_(False), AutoProcessor.from_pretrained(model_dir)


def run_main(monkeypatch, script, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    script.main()


# ---------------------------------------------------------------------------------------------------------------------
# Attention


def test_rollouts_of_attention():
    torch.manual_seed(0)
    attentions = tuple(torch.rand(2, 3, 5, 5) for _ in range(3))
    for attention in attentions:
        attention[..., 4] = 0  # nothing attends to the last one
        attention /= attention.sum(dim=-1, keepdim=True)
    rollout = attention_rollout(attentions)
    assert torch.allclose(rollout.sum(dim=-1), torch.ones(2, 5))
    assert (rollout[:, :4, 4] == 0).all()

    gradients = tuple(torch.randn(2, 3, 5, 5) for _ in range(3))
    relevance = gradient_weighted_rollout(attentions, gradients)
    assert (relevance >= 0).all() and (relevance[:, :4, 4] == 0).all() and (relevance[:, :4, :4] > 0).any()
    weighted = [(attention * gradient).clamp(min=0).mean(dim=1) for attention, gradient in zip(attentions, gradients)]
    product = torch.eye(5)
    for layer in weighted:
        product = (torch.eye(5) + layer) @ product
    assert torch.allclose(relevance, product.expand(2, -1, -1))


def test_corner_tokens_attend_to_themselves_and_the_text(loaded):
    model, processor = loaded
    inputs = tokenize(processor, [TEXT, "A red boat"])
    attentions = token_attention(model, inputs)
    for attention in attentions.values():
        assert attention.shape == (2, 3, inputs["input_ids"].shape[1])
        assert (attention[1, :, inputs["attention_mask"][1] == 0] == 0).all()
        assert torch.allclose(attention[:, 0].sum(dim=-1), torch.ones(2)), "[CLS] sees no corner"
        assert (attention[:, 1:].sum(dim=-1) < 1).all(), "a corner sees itself"
    assert (attentions["last_layer"][:, 1:, 0] == 0).all(), "a corner does not see [CLS]"

    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="set_attn_implementation"):
        token_attention(model, inputs)


def test_sub_captions_of_tokens(loaded):
    _, processor = loaded
    inputs = tokenize(processor, ["A red boat", TEXT])
    numbers = [sub_caption_numbers(ids, processor.tokenizer) for ids in inputs["input_ids"].tolist()]
    assert numbers[0][:5] == [None, 0, 0, 0, 0] and set(numbers[0][5:]) == {None}
    assert numbers[1] == [None, *[0] * 4, *[1] * 5, *[2] * 4]

    words = ["<s>", "a</w>", "boat</w>", ".</w>", "the</w>", "sea</w>", "<end>", "<end>"]
    clip = SimpleNamespace(
        all_special_tokens=["<s>", "<end>"],
        unk_token="<end>",  # as CLIP's
        eos_token="<end>",
        sep_token=None,
        convert_ids_to_tokens=lambda ids: [words[index] for index in ids],
    )
    assert sub_caption_numbers(range(8), clip) == [None, 0, 0, 0, 1, 1, None, None]


# ---------------------------------------------------------------------------------------------------------------------
# Relevance


class LinearEncoder(nn.Module):
    """A dual encoder that adds up what a linear map makes of tokens, or of patches of 4 pixels."""

    def __init__(self):
        super().__init__()
        self.text_model = self.vision_model = self
        self.words, self.patches = nn.Embedding(9, 6), nn.Conv2d(3, 6, 4, 4, bias=False)
        self.config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=4))
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def get_input_embeddings(self):
        return self.words

    def get_text_features(self, input_ids):
        return SimpleNamespace(pooler_output=self.words(input_ids).sum(dim=1))

    def get_image_features(self, pixel_values):
        return SimpleNamespace(pooler_output=1 + self.patches(pixel_values).flatten(2).sum(dim=-1))


def test_token_relevance_is_complete_and_right(loaded):
    torch.manual_seed(0)
    linear = LinearEncoder()
    input_ids = torch.tensor([[1, 2, 3, 3], [4, 5, 6, 7]])
    length = linear.get_text_features(input_ids).pooler_output.norm(dim=-1)
    relevance = token_relevance(linear, {"input_ids": input_ids})
    assert torch.allclose(relevance.sum(dim=-1), length) and relevance[0, 2] == relevance[0, 3]
    assert linear.words.weight.grad is None

    # against a small step along a word embedding
    model, processor = loaded
    model.double().set_attn_implementation("sdpa")  # "eager" rounds the attention to float32
    inputs, image = tokenize(processor, [TEXT]), nn.functional.normalize(torch.randn(1, 32, dtype=torch.float64))
    relevance = token_relevance(model, inputs, image)
    embeds = model.text_model.get_input_embeddings()(inputs["input_ids"])

    def similarity(scale):
        changed = embeds.clone()
        changed[:, 3] *= scale
        features = model.get_text_features(inputs_embeds=changed, attention_mask=inputs["attention_mask"])
        return nn.functional.cosine_similarity(features.pooler_output, image).item()

    assert relevance[0, 3].item() == pytest.approx((similarity(1 + 1e-5) - similarity(1 - 1e-5)) / 2e-5, abs=1e-6)


def test_occlusion_finds_the_patch_that_counts_wherever_it_is():
    torch.manual_seed(0)
    model, images = LinearEncoder(), torch.zeros(2, 3, 12, 16)
    images[0, :, 4:8, 8:12] = images[1, :, 8:12, 4:8] = torch.rand(3, 4, 4)
    texts = torch.randn(2, 2, 6)
    texts[1] = texts[0]
    relevance = patch_relevance(model, images, texts, "occlusion")
    assert relevance.shape == (2, 2, 3, 4)
    assert relevance[0].abs().flatten(1).argmax(dim=1).tolist() == [6, 6]
    assert (relevance[0].flatten(1) != 0).sum() == 2
    # moved down and to the left by a patch
    assert torch.allclose(relevance[1, :, 2, 1], relevance[0, :, 1, 2])
    features = nn.functional.normalize(model.get_image_features(images).pooler_output, dim=-1)
    empty = nn.functional.normalize(torch.ones(6), dim=0)
    assert torch.allclose(relevance[0, :, 1, 2], texts[0] @ (features[0] - empty), atol=1e-5)


@pytest.mark.parametrize("model_class", [CLIPModel, SiglipModel])
def test_other_dual_encoders(model_class):
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config_class = CLIPConfig if model_class is CLIPModel else SiglipConfig
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = config_class(
        text_config={**tower, "vocab_size": 64, "projection_dim": 32, **special},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    model = model_class._from_config(config, attn_implementation="eager").eval()
    images, texts = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32)
    for method in PATCH_METHODS:
        if model_class is SiglipModel and "rollout" in method:
            with pytest.raises(ValueError, match="no class token"):
                patch_relevance(model, images, texts, method)
            continue
        relevance = patch_relevance(model, images, texts, method)
        assert relevance.shape == (2, 3, 4, 4) and relevance.isfinite().all() and (relevance != 0).any()
        # an image does not depend on those beside it
        alone = patch_relevance(model, images[1:], texts[1:, 2:], method)
        assert torch.allclose(alone[0, 0], relevance[1, 2], atol=1e-5)
    assert token_relevance(model, {"input_ids": torch.tensor([[1, 5, 2]])}).shape == (1, 3)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ValueError, match="no LoTLIP"):
        token_attention(model, {"input_ids": torch.tensor([[1, 5, 2]])})


def test_grad_cam_depends_on_the_text_and_rollout_does_not(loaded):
    model, _ = loaded
    images, texts = torch.randn(1, 3, 32, 32), torch.randn(1, 2, 32)
    assert not torch.allclose(*patch_relevance(model, images, texts, "grad_cam")[0])
    assert not torch.allclose(*patch_relevance(model, images, texts, "gradient_rollout")[0])
    assert torch.equal(*patch_relevance(model, images, texts, "rollout")[0])


def test_what_a_sub_caption_adds(loaded):
    model, processor = loaded
    parts = TEXT.split(". ")
    directions = sub_caption_directions(model, processor, parts)
    whole, without = embed_corpus(model, processor, [TEXT, join_sub_captions([parts[0], parts[2]])])
    assert torch.allclose(directions[1], whole - without, atol=1e-6)
    assert (sub_caption_directions(model, processor, parts, max_length=6)[2].abs() < 1e-6).all(), "beyond the limit"
    assert sub_caption_directions(model, processor, parts[:1]).shape == (1, 32)


# ---------------------------------------------------------------------------------------------------------------------
# Known answers on scenes


def test_what_is_a_hit():
    scene = make_scene(seed=4, index=5)
    for thing in scene.others:
        sentence = scene.sub_captions[evaluate_relevance.sentence_of(scene, thing)]
        assert all(word in sentence for word in (thing.size, thing.colour, thing.kind, thing.place))
        left, top, right, bottom = thing.box
        pixels = torch.zeros(1, 64, 64)
        pixels[:, top:bottom, left:right] = 1
        assert torch.equal(evaluate_relevance.patches_of(thing.box, 8, 8), nn.functional.max_pool2d(pixels, 8)[0] > 0)
    interval = binomtest(31, 200).proportion_ci(method="wilson")
    assert evaluate_relevance.wilson_interval(31, 200) == pytest.approx((100 * interval.low, 100 * interval.high))


def test_pointing_game_of_a_map_that_knows_and_of_one_that_does_not(loaded, monkeypatch):
    model, processor = loaded
    drawn = evaluate_relevance.draw_large(60, seed=3)

    def play(relevance):
        monkeypatch.setattr(evaluate_relevance, "patch_relevance", relevance)
        return evaluate_relevance.play_pointing_game(model, processor, drawn, torch.zeros(60, 32), "occlusion", 60)

    maps = torch.stack([evaluate_relevance.patches_of(thing.box, 8, 8) for _, thing, _ in drawn]).float()
    known = play(lambda *_: maps[:, None])
    assert known["hits"] == 100 and known["other"] == 0 and known["chance"] == pytest.approx(100 * maps.mean().item())
    random_maps = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    unknown = play(lambda *_: random_maps)
    assert unknown["low"] < unknown["chance"] < unknown["high"]


def test_evaluate_relevance(model_dir, tmp_path, monkeypatch):
    path = tmp_path / "relevance.json"
    arguments = ["--model_name_or_path", model_dir, "--num_scenes", 3, "--output_file", path]
    run_main(monkeypatch, evaluate_relevance, *arguments)
    results = json.loads(path.read_text())
    assert all(list(results["over_image"][game]) == list(PATCH_METHODS) for game in ("large", "small"))
    assert path.with_suffix(".md").exists()
    assert 20 < results["over_text"]["gradient_input"]["chance"] < 34


# ---------------------------------------------------------------------------------------------------------------------
# Corner tokens


def test_kinds_and_places_of_tokens(loaded):
    _, processor = loaded
    input_ids = processor.tokenizer(TEXT)["input_ids"]
    kinds = corner_attention.kinds_of_tokens(input_ids, processor.tokenizer)
    assert kinds[:6] == ["[CLS]", "function words", "content words", "content words", "[SEP]", "function words"]
    places = corner_attention.places_of_tokens(input_ids, kinds, processor.tokenizer)
    assert places == [None, *["first"] * 3, None, *["middle"] * 4, None, *["last"] * 3, None]


def test_corner_attention(model_dir, tmp_path, monkeypatch):
    path = tmp_path / "corners.json"
    arguments = ["--model_name_or_path", model_dir, "--max_eval_samples", 5, "--output_file", path]
    run_main(monkeypatch, corner_attention, *arguments)
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
# Sensitivity to the text


def test_changes_of_texts():
    parts = ["A red boat is here", "The sea has a wave", "Sky"]
    for seed in range(5):
        generator = random.Random(seed)
        permuted = text_sensitivity.permute(parts, generator)
        assert sorted(permuted) == sorted(parts) and permuted != parts
        assert text_sensitivity.drop_another(parts, generator)[0] == parts[0]
        negated = text_sensitivity.negate(parts, generator)
        assert negated in (["A red boat is not here", *parts[1:]], [parts[0], "The sea has no wave", "Sky"])
        swapped = text_sensitivity.swap_colour(parts, generator, list(COLOURS))
        assert swapped[1:] == parts[1:] and re.fullmatch(r"A (?!red)\w+ boat is here", swapped[0])
    assert text_sensitivity.permute(["A", "A"], generator) is None
    assert text_sensitivity.swap_colour(["A red boat"], generator, ["red"]) is None
    assert text_sensitivity.drop_first(["A"], generator) is None


def test_a_model_without_positions_is_blind_to_the_order(loaded):
    model, processor = loaded
    model.text_model.embeddings.position_embeddings.weight.zero_()
    colours = ("red", "green", "blue", "yellow")
    parts = [["a red boat", "the ground is sand", f"a {colour} house"] for colour in colours]
    texts = text_sensitivity.LongTexts(parts, nn.functional.normalize(torch.randn(4, 32), dim=-1))
    rows = {row["change"]: row for row in text_sensitivity.measure_changes(model, processor, texts, seed=0)}
    permuted, dropped = rows["sentences permuted"], rows["first sentence dropped"]
    assert permuted["similarity"] == pytest.approx(1) and permuted["before"] == permuted["after"]
    assert permuted["prefers_original"] == 50
    assert dropped["similarity"] < 0.999 and rows["one colour swapped"]["num_texts"] == 4
    moved = text_sensitivity.measure_positions(model, processor, texts)
    first, *others = ({**row, "position": None} for row in moved["positions"])
    assert all(row == first for row in others) and moved["num_texts"] == 4


def test_tokens_beyond_the_number_kept_do_not_count(loaded):
    model, processor = loaded
    texts = ["a red boat the ground is sand", "a red boat the ground is sea"]
    kept = text_sensitivity.embed_first_tokens(model, processor, texts, 8)
    assert torch.allclose(kept[0], kept[1], atol=1e-6)
    whole = text_sensitivity.embed_first_tokens(model, processor, texts, 9)
    assert not torch.allclose(whole[0], whole[1], atol=1e-6)
    assert padding_of(processor) != "max_length"


@pytest.mark.parametrize("build", [build_clip, build_siglip])
def test_texts_of_other_dual_encoders(build, tmp_path):
    torch.manual_seed(0)
    model, processor = build(tmp_path)
    model.eval().set_attn_implementation("eager")
    processor.tokenizer.model_max_length = text_limit(model, processor)
    texts = ["a red boat. the ground is sand", "a red boat. a tree"]
    whole = text_sensitivity.embed_first_tokens(model, processor, texts, processor.tokenizer.model_max_length)
    assert torch.allclose(whole, embed_corpus(model, processor, texts), atol=1e-5)
    cut = text_sensitivity.embed_first_tokens(model, processor, texts, 4)
    assert torch.allclose(cut[0], cut[1], atol=1e-5) and not torch.allclose(cut[0], whole[0], atol=1e-4)
    image = make_scene(seed=1, index=0).draw()
    explanation = visualize.explain("other", model, processor, texts[0], image, "grad_cam")
    assert list(explanation.over_text) == ["similarity with the image depends on"]
    assert {number for number in explanation.numbers if number is not None} == {0, 1}
    assert explanation.over_image.shape[0] == 3


def test_text_sensitivity(model_dir, tmp_path, monkeypatch):
    path = tmp_path / "sensitivity.json"
    run_main(
        monkeypatch,
        text_sensitivity,
        *("--model_name_or_path", model_dir, "--max_eval_samples", 6, "--output_file", path, "--max_length", 40),
        *("--num_tokens", 8, 200),
    )
    (result,) = json.loads(path.read_text())["models"]
    assert [row["num_tokens"] for row in result["lengths"]] == [8, 40]
    assert len(result["changes"]) == 6 and len(result["moved"]["positions"]) == 5
    assert Image.open(path.with_suffix(".png")).width > 500
    with pytest.raises(SystemExit):
        run_main(monkeypatch, text_sensitivity, "--model_name_or_path", model_dir, "--num_tokens", 2)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def test_visualize_several_models(model_dir, tmp_path, monkeypatch):
    make_scene(seed=1, index=0).draw().save(tmp_path / "scene.png")
    (tmp_path / "other").symlink_to(model_dir)
    output_dir = tmp_path / "out"
    text = "<script>alert(1)</script> & a red boat. The ground is sand"
    run_main(
        monkeypatch,
        visualize,
        *("--model_name_or_path", model_dir, tmp_path / "other", "--output_dir", output_dir),
        *("--image", tmp_path / "scene.png", "--text", text, "--max_length", 8),
    )
    page = (output_dir / "visualize.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "beyond the limit" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    # the picture, the whole text and the sub-caption that is read
    assert page.count("<h2>") == 2 and page.count("<img") == 2 * 3
    assert "sub-captions: 1." in page
    for name in ("text", "image"):
        with Image.open(output_dir / f"{name}.png") as picture:
            assert picture.width > 300


def test_visualize_a_row_and_what_is_not_there(model_dir, tmp_path, monkeypatch, capsys):
    arguments = ["--model_name_or_path", model_dir, "--output_dir", tmp_path / "out"]
    run_main(monkeypatch, visualize, *arguments, "--row", 2, "--method", "occlusion")
    assert (tmp_path / "out" / "image.png").exists()
    run_main(monkeypatch, visualize, *arguments[:3], tmp_path / "text only", "--text", TEXT)
    assert not (tmp_path / "text only" / "image.png").exists() and (tmp_path / "text only" / "text.png").exists()
    (tmp_path / "file").touch()
    elsewhere = [*arguments[:3], tmp_path / "file" / "out"]
    for wrong, message in (
        ([*arguments, "--row", 300], "--row 300"),
        ([*arguments, "--text", " . "], "empty"),
        ([*arguments, "--image", "scene.png"], "needs a --text"),
        ([*arguments, "--text", "a", "--image", "scene.png"], "scene.png cannot be read"),
        ([*elsewhere, "--text", "a"], "Not a directory"),
    ):
        with pytest.raises(SystemExit):
            run_main(monkeypatch, visualize, *wrong)
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_dollars_are_dollars(model_dir, tmp_path, monkeypatch):
    make_scene(seed=1, index=0).draw().save(tmp_path / "scene.png")
    text = "A sign says $5_$. It costs $5 and $6"
    arguments = ["--image", tmp_path / "scene.png", "--text", text, "--output_dir", tmp_path / "out"]
    run_main(monkeypatch, visualize, "--model_name_or_path", model_dir, *arguments)
    assert (tmp_path / "out" / "image.png").exists()


def test_an_output_file_that_cannot_be_written_is_refused_first(model_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "out.md", "name it .json"),
        (tmp_path / "file" / "out.json", "File exists"),
        (tmp_path, "name it .json"),
    ):
        for script in (evaluate_relevance, text_sensitivity):
            with pytest.raises(SystemExit):
                run_main(monkeypatch, script, "--model_name_or_path", model_dir, "--output_file", path)
            assert message in capsys.readouterr().err.splitlines()[-1]


def test_what_the_model_sees(loaded):
    _, processor = loaded
    picture = make_scene(seed=1, index=0).draw().resize((32, 32))
    pixel_values = processor.image_processor([picture], return_tensors="pt")["pixel_values"]
    seen = visualize.seen_picture(processor, pixel_values[0])
    assert seen.tobytes() == picture.tobytes()
