"""The script that compares recipes on captioned pictures, where the answers are known, and once in miniature."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel, BertTokenizer, Dinov2Config, Dinov2Model

from examples.paper import photographs
from examples.paper.photographs import BOTH, GROUPS, LOTLIP, Setting
from modeling_lotlip import LotlipModel
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.losses import blockwise_contrastive_loss
from modeling_lotlip.training.objectives import OBJECTIVES
from tests.conftest import tiny_config


@pytest.fixture
def arguments(tmp_path, monkeypatch) -> list:
    """The arguments of a run on two folders of pictures, one of them without a validation split."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    tower = {"hidden_size": 16, "num_attention_heads": 2}
    vision = Dinov2Config(**tower, num_hidden_layers=1, image_size=28, patch_size=14)
    Dinov2Model(vision).save_pretrained(tmp_path / "vision")
    text = BertConfig(**tower, num_hidden_layers=2, intermediate_size=16, vocab_size=12)
    BertModel(text).save_pretrained(tmp_path / "text")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] red boat house ground the sky a".split()
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path / "text")
    sizes = {"boats": {"train": 8, "validation": 3, "test": 4}, "houses": {"train": 20, "test": 3}}
    for name, splits in sizes.items():
        for seed, (split, size) in enumerate(splits.items()):
            (tmp_path / name / split).mkdir(parents=True)
            lines = []
            for number, row in enumerate(load_scenes(size, seed=seed)):
                row["image"].save(tmp_path / name / split / f"{number}.png")
                texts = {"caption": row["caption"], "long_captions": row["long_captions"]}
                lines.append(json.dumps({"file_name": f"{number}.png", **texts}))
            (tmp_path / name / split / "metadata.jsonl").write_text("\n".join(lines))
    named = ["--vision_model_name_or_path", tmp_path / "vision", "--text_model_name_or_path", tmp_path / "text"]
    named += ["--image_size", 28, "--image_mean", 0, 0, 0, "--image_std", 1, 1, 1, "--mixed_precision", "no"]
    named += ["--data_dirs", tmp_path / "boats", tmp_path / "houses", "--output_dir", tmp_path / "out"]
    return [*named, "--max_train_steps", 2, "--per_device_train_batch_size", 8]


def start(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["photographs.py", *map(str, words)])
    photographs.main()


def test_groups_in_miniature(arguments, tmp_path, monkeypatch, capsys):
    left_out = {"long", "both, long thrice", "penalty 0.1", "start as words", "no corners"}
    left_out |= {"CLIP", "LaCLIP", "Long-CLIP", "LoTLIP"}
    words = [*arguments, "--seeds", 0, "--learning_rate", 1e-3, "--logit_scale", 10, "--leave_out", *left_out]
    words += ["--num_trained_text_layers", 1, "--groups", "captions", "corners_apart", "objectives"]
    start(monkeypatch, *words)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(found) == {"captions", "corners_apart", "objectives"}
    for name, group in found.items():
        assert set(group["seeds"]) == set(GROUPS[name].settings) - left_out
        assert set(group["results"]) == {"all", "boats", "houses"}
        pairs = [pair for pair in GROUPS[name].differences if not set(pair) & left_out]
        assert [(row["setting"], row["over"]) for row in group["gains"]["all"]] == pairs
        for rows in group["results"].values():
            assert all(0 <= cell["mean"] <= 100 for row in rows.values() for cell in row.values())
    assert -1 <= found["corners_apart"]["corners"]["2 corners"]["cosine"] <= 1
    assert "| both - short |" in capsys.readouterr().out

    # the same command trains what is missing alone, and alike; here it is also asked what of long texts it uses
    removed = tmp_path / "out" / "runs" / "learning_rate=0.001,logit_scale=10.0,seed=0.json"
    before = json.loads(removed.read_text())
    removed.unlink()
    words += ["--leave_out", *left_out, "short", "both, 2 corners", "--groups", "captions", "--sensitivity"]
    start(monkeypatch, *words)
    out = capsys.readouterr().out
    trained = [line.split(":")[0] for line in out.splitlines() if "MRR {" in line]
    assert trained == ["learning_rate=0.001,logit_scale=10.0, seed 0"]
    assert json.loads(removed.read_text())["collections"] == before["collections"]
    reading = json.loads((tmp_path / "out" / "results.json").read_text())["captions"]["reading"]["both"]
    assert set(reading["lengths"]) <= {str(number) for number in photographs.NUM_TOKENS}
    assert "first sentence dropped" in reading["changes"]
    with pytest.raises(ValueError, match="max_train_steps = 2, this run has 3"):
        start(monkeypatch, *words, "--max_train_steps", 3)


def test_each_way_to_train_changes_the_weights(arguments, monkeypatch):
    """Negatives, groups, averages, teachers, rates by layer, and the best of the steps, which here is any of two."""
    trained, train = {}, photographs.train

    def note(args, setting, seed, *others):
        model, processor = train(args, setting, seed, *others)
        trained.setdefault((setting, seed), torch.cat([p.detach().flatten() for p in model.text_model.parameters()]))
        return model, processor

    monkeypatch.setattr(photographs, "train", note)
    words = [*arguments, "--seeds", 0, "--learning_rate", 1e-2, "--logit_scale", 10]
    words += ["--groups", "hard_negatives", "fine_tuning", "--leave_out", "false detail, all", "groups of 4"]
    start(monkeypatch, *words, "average 0.8")
    settings = GROUPS["hard_negatives"].settings | GROUPS["fine_tuning"].settings
    rates = {"learning_rate": 1e-2, "logit_scale": 10.0}
    weights = {name: trained.get((replace(setting, **rates), 0)) for name, setting in settings.items()}
    plain = weights.pop("none")
    best = weights.pop("best of steps")
    assert {name for name, own in weights.items() if own is None} == {
        "false detail, all",
        "groups of 4",
        "average 0.8",
    }
    for name, own in weights.items():
        assert own is None or (not torch.equal(own, plain) and own.isfinite().all()), name
    assert torch.equal(best, plain), "the last step is the only one that is evaluated"
    teachers = [seed for setting, seed in trained if setting == replace(settings["none"], **rates) and seed > 0]
    assert teachers == [photographs.TUNING_SEED + 1 + number for number in range(4)]


def test_rates_are_chosen_on_the_validation_split(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photographs, "RATES", (1e-3, 1e-2))
    words = [*arguments, "--seeds", 0, "--groups", "captions", "--leave_out", *list(GROUPS["captions"].settings)[1:]]
    with pytest.raises(ValueError, match="run without --tables_only first"):
        start(monkeypatch, *words, "--tables_only")
    start(monkeypatch, *words)
    tried = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "runs").glob("*seed=1000.json"))]
    assert {run["split"] for run in tried} == {"validation"} and len(tried) == 3
    rates = {(run["setting"]["learning_rate"], run["setting"]["logit_scale"]): run for run in tried}
    assert {rate for rate, _ in rates} == {1e-3, 1e-2}
    best = max(
        rates,
        key=lambda key: sum(photographs.mean_reciprocal_rank(rates[key], name) for name in ("boats", "houses")),
    )
    (trained,) = (tmp_path / "out" / "runs").glob("*seed=0.json")
    setting = json.loads(trained.read_text())["setting"]
    assert (setting["learning_rate"], setting["logit_scale"]) == best
    start(monkeypatch, *words, "--tables_only")
    assert "| short |" in capsys.readouterr().out


def test_a_folder_without_test_split_is_named(arguments, tmp_path, monkeypatch):
    for path in (tmp_path / "houses" / "test").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="houses has no split test"):
        start(monkeypatch, *arguments)


def test_folders_that_cannot_be_used_are_named(arguments, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "houses").rename(tmp_path / "other" / "boats")
    arguments[arguments.index(tmp_path / "houses")] = tmp_path / "other" / "boats"
    with pytest.raises(ValueError, match=r"folders of the same name, \['boats', 'boats'\]"):
        start(monkeypatch, *arguments)

    file = tmp_path / "boats" / "test" / "metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["long_captions"], lines[1]["caption"] = [], ""
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="boats: 2 of 4 pictures in split test have no short caption or no long one"):
        photographs.load_folder(str(tmp_path / "boats"))
    for split in ("train", "validation", "test"):
        file = tmp_path / "boats" / split / "metadata.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text(
            "\n".join(json.dumps({name: line[name] for name in ("file_name", "caption")}) for line in lines)
        )
    with pytest.raises(ValueError, match="boats has no column 'long_captions', only"):
        photographs.load_folder(str(tmp_path / "boats"))


@pytest.fixture
def model() -> LotlipModel:
    config = tiny_config()
    config.text_config.num_corner_tokens = 2
    torch.manual_seed(0)
    return LotlipModel(config).eval()


def inputs() -> dict:
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return {"input_ids": torch.randint(5, 20, (2, 5)) * mask, "attention_mask": mask}


def test_frozen_lower_layers_are_those_of_bert(model):
    """Without corner tokens the tower in two parts is the whole one, also with the states that are kept."""
    config = tiny_config()
    config.text_config.num_corner_tokens = 0
    plain = LotlipModel(config).eval()
    states = {}
    split = photographs.UpperTextModel.of(plain, 1, states).eval()
    for _ in range(2):
        outputs, expected = split(**inputs()), plain.text_model(**inputs())
        torch.testing.assert_close(outputs.pooler_output, expected.pooler_output, atol=1e-5, rtol=1e-5)
    assert len(states) == 2 and {len(value) for value in states.values()} == {5, 3}
    assert not any(parameter.requires_grad for parameter in split.embeddings.parameters())
    assert all(parameter.requires_grad for parameter in split.layers[-1].parameters())


def test_corners_above_frozen_layers_are_hidden_by_the_mask_alone(model):
    split = photographs.UpperTextModel.of(model, 1, {}).eval()
    corners = split(**inputs(), output_corner_tokens=True)
    assert corners.corner_pooler_output.shape == (2, 2, model.config.text_config.hidden_size)
    torch.testing.assert_close(corners.pooler_output, split(**inputs()).pooler_output)
    split.config.corner_attention_mask = False
    assert (split(**inputs()).pooler_output - corners.pooler_output).abs().max() > 1e-4


def test_a_layer_for_the_first_tokens_is_the_layer(model):
    layer = model.text_model.layers[0]
    states = torch.randn(2, 6, model.config.text_config.hidden_size)
    mask = torch.rand(2, 1, 6, 6) < 0.7
    mask |= torch.eye(6, dtype=torch.bool)
    for given in (None, mask):
        expected = layer(states, given)[:, :3]
        torch.testing.assert_close(photographs.run_layer_for(layer, states, given, 3), expected, atol=1e-5, rtol=1e-5)


def test_the_weight_of_a_long_caption_is_that_of_so_many_slots():
    images, texts = (torch.nn.functional.normalize(torch.randn(6, *shape, 8), dim=-1) for shape in ((), (2,)))
    scale = torch.tensor(5.0)
    slots = photographs.choose_slots(texts, replace(BOTH, long_weight=3))
    loss = blockwise_contrastive_loss(images, slots, scale)
    short, long = (blockwise_contrastive_loss(images, texts[:, [slot]], scale) for slot in range(2))
    torch.testing.assert_close(loss, (short + 3 * long) / 4)


def test_slots_of_parts():
    """Of the whole `[CLS]` counts, of the first part corner 1, of the second part corner 2."""
    texts = torch.arange(10.0).reshape(1, 10, 1)
    slots = photographs.choose_slots(texts, replace(LOTLIP, corner_reads="part"))
    assert slots.flatten().tolist() == [0, 1, 5, 9]


def test_likeness_of_slots():
    slots = torch.tensor([[[1.0, 0], [1, 0], [0, 1]], [[1, 0], [0.6, 0.8], [0, 1]]])
    assert photographs.measure_likeness(slots).tolist() == pytest.approx([1 / 3, (0.36 + 0 + 0.64) / 3])


def test_crops_are_compared_with_their_corners(model):
    """The loss is the mean over the short and the long caption with the image, and each corner with its crop."""
    images, crops, texts = (torch.nn.functional.normalize(torch.randn(6, n, 8), dim=-1) for n in (1, 2, 4))
    batch = {"short_input_ids": torch.arange(6)[:, None], "short_attention_mask": torch.ones(6, 1, dtype=torch.long)}
    setting, accelerator = replace(LOTLIP, corner_sees="crop"), Accelerator(cpu=True)
    # crops are of any length
    loss = photographs.compute_loss(images[:, 0], texts, 3 * crops, model, setting, batch, accelerator).loss
    pairs = zip((images[:, 0], images[:, 0], crops[:, 0], crops[:, 1]), texts.split(1, dim=1))
    expected = [blockwise_contrastive_loss(*pair, model.logit_scale.exp()) for pair in pairs]
    torch.testing.assert_close(loss, sum(expected) / 4)


@pytest.mark.parametrize("kind", ["own", "all", "pair"])
def test_false_captions_are_negatives_of_images_alone(kind):
    torch.manual_seed(0)
    images, texts, false = (normalize(torch.randn(5, *shape, 8), dim=-1) for shape in ((), (1,), (1,)))
    false[3] = 0  # an absent one
    scale, added = torch.tensor(7.0), 0
    for row, image in enumerate(images):
        own = [] if row == 3 else [row]
        seen = {"own": own, "pair": own, "all": [0, 1, 2, 4]}[kind]
        others = texts[row] if kind == "pair" else texts[:, 0]
        logits, of_false = scale * others @ image, scale * false[seen, 0] @ image
        added += 0.5 * (torch.cat([logits, of_false]).logsumexp(0) - logits.logsumexp(0)) / 5
    found = photographs.contrast_false(images, texts, false, scale, kind)
    torch.testing.assert_close(found, added[None])


def test_false_details_weigh_as_much_as_their_caption(model):
    """The loss of the setting is that of the package with a hard negative for each of the three equal slots."""
    torch.manual_seed(0)
    images, texts = normalize(torch.randn(6, 8), dim=-1), normalize(torch.randn(6, 3, 8), dim=-1)
    batch = {"short_input_ids": torch.arange(6)[:, None], "short_attention_mask": torch.ones(6, 1, dtype=torch.long)}
    setting = GROUPS["hard_negatives"].settings["false detail, own"]
    loss = photographs.compute_loss(images, texts, None, model, setting, batch, Accelerator(cpu=True)).loss
    slots = torch.cat([texts[:, :1], *[texts[:, 1:2]] * 3, *[texts[:, 2:]] * 3], dim=1)
    expected = blockwise_contrastive_loss(images, slots, model.logit_scale.exp(), num_hard_negatives=1)
    torch.testing.assert_close(loss, expected)


def test_batches_of_similar_images():
    """Each group is an image and those nearest to it of the ones that are left; alone, the order is the plain one."""
    angles = torch.tensor([0.0, 90, 1, 91, 2, 92, 180, 181]).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    alone = photographs.SimilarImages(features, 1, 8, 4, 0, 0, 1)
    assert list(alone) == list(photographs.BatchSampler(8, 4, 0, 0, 1))
    for epoch in range(5):
        pairs = photographs.SimilarImages(features, 2, 8, 4, 0, 0, 1)
        pairs.epoch = epoch
        order = pairs.order()
        assert sorted(order) == list(range(8))
        first, second = order[:2]
        assert (angles[first] - angles[second]).abs() < 0.04 or {first, second} <= {6, 7}


def test_what_teachers_say_is_mimicked():
    """The loss is the entropy of the teachers at its least, where the similarities are theirs."""
    taught = torch.randn(2, 4, 4)
    logits = taught.clone().requires_grad_()
    loss = photographs.mimic(logits, taught)
    entropies = [-(taught.softmax(dim) * taught.log_softmax(dim)).sum(dim).mean() for dim in (1, 2)]
    torch.testing.assert_close(loss, sum(entropies) / 2)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(taught), atol=1e-6, rtol=0)


def test_lower_layers_learn_more_slowly(model):
    setting = Setting(learning_rate=1.0, layer_decay=0.5)
    rates = {
        parameter: group["lr"]
        for group in photographs.layer_groups(model, 0.1, setting)
        for parameter in group["params"]
    }
    text, number = model.text_model, len(model.text_model.layers)
    assert rates.keys() == {parameter for parameter in model.parameters() if parameter.requires_grad}
    assert rates[model.text_projection.weight] == rates[text.pooler.dense.weight] == rates[model.logit_scale] == 1
    for place, layer in enumerate(text.layers):
        assert {rates[parameter] for parameter in layer.parameters()} == {0.5 ** (number - 1 - place)}
    assert {rates[parameter] for parameter in text.embeddings.parameters()} == {0.5**number}


def test_reading_is_averaged_over_texts():
    def make_run(recalls: list[float]) -> dict:
        row = {"change": "permuted", "num_texts": 1, "before": {"t2i_recall@1": 50}, "prefers_original": 70}
        reading = {
            name: {
                "changes": [row | {"after": {"t2i_recall@1": recall}, "num_texts": number}],
                "lengths": [{"num_tokens": 8, "t2i_recall@1": recall}],
            }
            for name, recall, number in zip(("lamps", "flags"), recalls, (3, 1))
        }
        queries = {"lamps": {"long_t2i": {"rank": [1] * 3}}, "flags": {"long_t2i": {"rank": [1]}}}
        return {"collections": queries, "reading": reading}

    reading = photographs.average_reading({0: make_run([0, 40]), 1: make_run([20, 60]), 2: {"collections": {}}})
    assert reading["lengths"] == {8: 20}
    assert reading["changes"] == {"permuted": {"before": 50, "after": 20, "prefers": 70}}
    assert photographs.average_reading({}) == {}


def test_gains_are_paired_by_seed_and_query():
    def make_runs(ranks: dict[int, list[float]]) -> dict:
        of_seed = lambda own: {"rank": own, "hits@1": [float(rank == 1) for rank in own]}  # noqa: E731
        return {
            seed: {"collections": {"lamps": dict.fromkeys(photographs.METRICS, of_seed(own))}}
            for seed, own in ranks.items()
        }

    one, other = make_runs({0: [1, 1, 2, 4], 1: [1, 1, 2, 1]}), make_runs({0: [2, 1, 2, 4], 2: [9, 9, 9, 9]})
    gains = photographs.compare(one, other)
    assert gains["long_t2i_recall@1"]["gain"] == 25 and gains["short_i2t_mrr"]["gain"] == 12.5
    low, high = gains["long_t2i_recall@1"]["interval"]
    assert low == 0 and 50 <= high <= 100
    row = photographs.summarise(one)["long_t2i_recall@1"]
    assert row["mean"] == 62.5 and row["deviation"] == pytest.approx(25 / math.sqrt(2))


def test_settings_are_what_they_are_called():
    for group in GROUPS.values():
        assert {name for pair in group.differences for name in pair} <= set(group.settings)
        names = [setting.name for setting in group.settings.values()]
        assert len(set(names)) == len(names)
        assert all(setting.objective in OBJECTIVES for setting in group.settings.values())
    assert Setting().name == "default"
