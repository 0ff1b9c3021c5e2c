"""The contract of a dual encoder: what is trained of a subclass is what is evaluated, and nothing else is called."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from modeling_lotlip import LotlipModel
from modeling_lotlip.encoder.contract import find_temperature, get_contract
from modeling_lotlip.encoder.dual_encoder import DualEncoder, load_encoder
from modeling_lotlip.encoder.preprocessing import Preprocessing
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.training.dual_encoder import ContrastiveModel, ImageSide, freeze_unused, inspect_image_side
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.prepare import make_trained_model
from modeling_lotlip.training.samples import Sample, SampleCollator
from tests.conftest import assert_same_weights, build_lotlip, tiny_config
from tests.helpers.dual_encoders import FAMILIES


PLUGIN = Path(__file__).parents[1] / "helpers" / "methods.py"
METHODS = ("two_towers", "pooled_corners", "no_corners")
TEXTS = ["a photo of a red boat", "the ground is sand. the sea is blue. a tree"]


@pytest.fixture(autouse=True)
def forget_plugin() -> Iterator[None]:
    """What the plugin registers is gone afterwards."""
    known = dict(OBJECTIVES)
    yield
    for name in set(OBJECTIVES) - set(known):
        del OBJECTIVES[name]
    sys.modules.pop("methods", None)
    if str(PLUGIN.parent) in sys.path:
        sys.path.remove(str(PLUGIN.parent))


def noise(seed: int) -> PIL.Image.Image:
    pixels = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return PIL.Image.fromarray(pixels.numpy())


@pytest.mark.parametrize("objective", METHODS)
def test_what_is_trained_of_a_subclass_is_what_is_evaluated(train, objective):
    folder = train("run", plugin=[PLUGIN], objective=objective, max_train_steps=4, checkpointing_steps=1)
    encoder = load_encoder(str(folder))
    assert type(encoder.model) is OBJECTIVES[objective].load_model_class()

    samples = [Sample(TEXTS[0], [TEXTS[1]], image=noise(seed)) for seed in range(3)]
    batch, _ = SampleCollator(encoder.processor)(samples)
    with torch.no_grad():
        embeds = ContrastiveModel(encoder.model).eval()(batch)
    images = encoder.encode_image([noise(seed) for seed in range(3)], convert_to_tensor=True)
    tokens = {"input_ids": batch.long.input_ids[:, 0], "attention_mask": batch.long.attention_mask[:, 0]}
    torch.testing.assert_close(embeds.images, images)
    torch.testing.assert_close(embeds.short[0], encoder.encode_text(TEXTS[0], convert_to_tensor=True))
    torch.testing.assert_close(embeds.long[:, 0], encoder.embed_texts(tokens, is_long=True))
    has_own_long = not torch.allclose(embeds.long[:, 0], encoder.embed_texts(tokens), atol=1e-4)
    assert has_own_long == (objective == "pooled_corners")

    first, last = (load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (1, 4))
    assert not {name for name in first if torch.equal(first[name], last[name])}, "all is trained"


def test_an_objective_of_a_plugin_resumes_bit_by_bit_and_its_source_is_compared(train, tmp_path):
    """Its options are in the model card, and another source is another run."""
    path = tmp_path / "penalty_of_a_test.py"
    source = """
from modeling_lotlip.losses import contrastive_loss
from modeling_lotlip.training.objectives import OBJECTIVES, Objective


def penalty(pairs, all_pairs):
    return (pairs.corners[:, :, 0] * pairs.corners[:, :, 1]).sum(dim=-1).square().mean(dim=1)


OBJECTIVES["penalty"] = Objective(
    "LoTLIP with a penalty", contrastive_loss, terms={"penalty": penalty}, options={"penalty_weight": 0.1},
    num_corner_tokens=2, num_long_captions=1,
)
"""
    path.write_text(source)
    options = {"plugin": [path], "objective": "penalty", "objective_options": ["penalty_weight=2"]}
    options |= {"max_train_steps": 4, "checkpointing_steps": 2, "logging_steps": 1}
    whole = train("whole", **options)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    first = rows[0]
    slots = [first[f"loss_{name}"] for name in ("short", "long", "corner_1", "corner_2")]
    assert first["loss"] == pytest.approx(sum(slots) / 4 + 2 * first["loss_penalty"], rel=1e-5)
    assert "| `objective_options penalty_weight` | 2.0 |" in (whole / "README.md").read_text()
    assert_same_weights(train("again", **options, resume_from_checkpoint=whole / "checkpoint-2"), whole)

    with pytest.raises(ValueError, match="objective_options = {'penalty_weight': 2.0}, this run has"):
        changed = options | {"objective_options": ["penalty_weight=3"]}
        train("other", **changed, resume_from_checkpoint=whole / "checkpoint-2")
    path.write_text(source + "\n# changed\n")
    sys.modules.pop("penalty_of_a_test")  # as in a program that begins anew
    with pytest.raises(ValueError, match="was written with plugin = .*penalty_of_a_test.py"):
        train("other", **options, resume_from_checkpoint=whole / "checkpoint-2")


def test_a_second_tower_that_is_trained_is_not_cached(train, tmp_path):
    options = {"plugin": [PLUGIN], "objective": "two_towers", "freeze_vision_model": True}
    options |= {"cache_image_features": True, "image_features_dir": tmp_path / "features"}
    with pytest.raises(ValueError, match="`--cache_image_features` is for an image side that is frozen: of `embed_i"):
        train("run", **options)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("names", [["vision_model", "second_tower"], ["vision_model"]])
def test_the_trained_part_of_the_image_side_is_found(names):
    sys.path.append(str(PLUGIN.parent))
    from methods import TwoTowersConfig, TwoTowersModel

    model = TwoTowersModel(tiny_config(TwoTowersConfig))
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    contrastive_model = ContrastiveModel(model)
    inspect_image_side(contrastive_model, {"pixel_values": torch.randn(1, 3, 32, 32)})
    expected = ImageSide.FROZEN if "second_tower" in names else ImageSide.TRAINED
    assert contrastive_model.image_side is expected
    modules = {name.split(".")[0] for name in contrastive_model.image_parameters}
    assert modules == {"vision_model", "second_tower"}
    assert model.text_projection.weight.requires_grad
    assert not next(model.vision_model.parameters()).requires_grad


def test_a_projection_behind_a_frozen_tower_is_all_that_is_computed_in_each_step():
    config = tiny_config()
    for part in (config, config.text_config, config.vision_config):
        part.projection_dim = 24
    model = LotlipModel(config)
    model.vision_model.requires_grad_(False)
    contrastive_model = ContrastiveModel(model)
    inspect_image_side(contrastive_model, {"pixel_values": torch.randn(1, 3, 32, 32)})
    assert contrastive_model.image_side is ImageSide.PROJECTION
    pixel_values = torch.randn(3, 3, 32, 32)
    features = contrastive_model.encode_images({"pixel_values": pixel_values})
    assert features.shape == (3, 32)
    torch.testing.assert_close(contrastive_model.embed_features(features), model.embed_images(pixel_values))


class FlippedModel(LotlipModel):
    """Of a blank image, both directions are the same."""

    def embed_images(self, pixel_values, **kwargs):
        both = super().embed_images(pixel_values) + super().embed_images(pixel_values.flip(-1))
        return normalize(both, dim=-1)


class AdaptedModel(LotlipModel):
    """Has an adapter for long texts, and another one for all others."""

    def __init__(self, config):
        super().__init__(config)
        self.long_adapter = torch.nn.Linear(config.projection_dim, config.projection_dim)
        self.short_adapter = torch.nn.Linear(config.projection_dim, config.projection_dim)

    def embed_captions(self, **inputs):
        captions = super().embed_captions(**inputs)
        is_long = inputs["long_input_ids"].shape[-1] > 12
        adapter = self.long_adapter if is_long else self.short_adapter
        captions.long = normalize(adapter(captions.long), dim=-1)
        return captions


@pytest.fixture
def make_trained(tmp_path, accelerator):
    """A function that makes a model of a class, with a projection behind a frozen tower, ready to be trained."""

    def make(model_class):
        _, processor = build_lotlip()
        processor.tokenizer.model_max_length = 20
        config = tiny_config(vocab_size=len(processor.tokenizer))
        config.projection_dim = 24
        for part in (config.text_config, config.vision_config):
            part.projection_dim = 24
        torch.manual_seed(0)
        model = model_class(config)
        model.vision_model.requires_grad_(False)
        args = TrainArguments(output_dir=tmp_path)
        return make_trained_model(args, model, processor, has_long_captions=True)

    return make


@pytest.mark.parametrize(
    ("model_class", "expected"), [(LotlipModel, ImageSide.PROJECTION), (FlippedModel, ImageSide.TRAINED)]
)
def test_what_a_subclass_does_with_an_image_that_is_not_blank_is_seen(make_trained, model_class, expected):
    assert make_trained(model_class).image_side is expected


def test_what_only_long_or_only_short_texts_use_is_trained(make_trained, caplog):
    model = make_trained(AdaptedModel).model
    assert model.long_adapter.weight.requires_grad
    assert model.short_adapter.weight.requires_grad
    assert "truncated" not in caplog.text


def test_parameters_that_no_embedding_depends_on_are_frozen():
    """ALIGN reads the first token, and has a pooler that nothing reads: data parallelism would wait for it."""
    model, processor = FAMILIES["align"].build()
    contrastive_model = ContrastiveModel(model)
    batch, _ = SampleCollator(processor)([Sample("a boat", ["a tree"], image=noise(0))])
    unused = freeze_unused(contrastive_model, [batch])
    assert unused == ["text_model.pooler.dense.weight", "text_model.pooler.dense.bias"]
    contrastive_model.train()(batch).short.sum().backward()
    assert model.text_model.encoder.layer[0].output.dense.weight.grad is not None
    assert not model.text_model.pooler.dense.weight.requires_grad


class LongImagesModel(LotlipModel):
    def embed_images(self, *args, **kwargs):
        return 3 * super().embed_images(*args, **kwargs)


class ShortCaptionsModel(LotlipModel):
    def embed_captions(self, **inputs):
        captions = super().embed_captions(**inputs)
        captions.long = captions.long / 2
        return captions


@pytest.mark.parametrize(
    ("model_class", "message"),
    [
        (LongImagesModel, "`embed_images` of LongImagesModel gives `images` of length 3: return"),
        (ShortCaptionsModel, "`embed_captions` of ShortCaptionsModel gives `long` of length 0.5"),
    ],
)
def test_embeddings_that_are_not_normalized_are_refused(model_class, message):
    """Losses take them as they are, and evaluation would normalize them."""
    model, processor = build_lotlip()
    model = model_class(model.config)
    batch, _ = SampleCollator(processor)([Sample("a boat", ["a tree"], image=noise(0))])
    with pytest.raises(ValueError, match=message):
        freeze_unused(ContrastiveModel(model), [batch])


@pytest.mark.parametrize("family", ["clip", "siglip", "align", "vit_bert"])
def test_other_families_have_the_contract_by_their_features(family):
    model, processor = FAMILIES[family].build()
    model.eval()
    contract = get_contract(model)
    tokens = Preprocessing(processor).tokenize(TEXTS).inputs
    mask = tokens.get("attention_mask", torch.ones_like(tokens["input_ids"]))
    absent = mask * torch.tensor([[1], [0]])
    long_ids = torch.stack([tokens["input_ids"]] * 2, dim=1)
    with torch.no_grad():
        captions = contract.embed_captions(
            short_input_ids=tokens["input_ids"],
            short_attention_mask=absent,
            long_input_ids=long_ids,
            long_attention_mask=torch.stack([mask, absent], dim=1),
        )
        expected = normalize(model.get_text_features(tokens["input_ids"], mask).pooler_output, dim=-1)
    torch.testing.assert_close(captions.short[0], expected[0])
    assert captions.short_mask.tolist() == [True, False]
    assert not captions.short[1].any()
    torch.testing.assert_close(captions.long[:, 0], expected)
    assert captions.long_mask.tolist() == [[True, True], [True, False]]
    assert captions.corners is None


@pytest.mark.parametrize(
    "family, name", [("clip", "logit_scale"), ("siglip", "logit_scale"), ("align", "temperature")]
)
def test_the_scale_of_similarities_is_that_of_the_model(family, name):
    model, processor = FAMILIES[family].build()
    temperature = find_temperature(model)
    assert temperature.name == name
    with torch.no_grad():
        getattr(model, name).fill_(0.5)
    encoder = DualEncoder(model, processor)
    expected = encoder.scale_similarities(torch.tensor(1.0)) - encoder.scale_similarities(torch.tensor(0.0))
    torch.testing.assert_close(temperature.scale(getattr(model, name)).reshape(()), expected.reshape(()))


@pytest.mark.parametrize(
    "family, start, end", [("clip", 9.0, 4.60517), ("align", 1e-4, 0.001), ("align", 3.0, 1.0), ("siglip", 9.0, 9.0)]
)
def test_the_temperature_is_clamped_but_with_a_bias(family, start, end):
    model, _ = FAMILIES[family].build()
    temperature = find_temperature(model)
    with torch.no_grad():
        getattr(model, temperature.name).fill_(start)
    temperature.clamp(model)
    assert getattr(model, temperature.name).item() == pytest.approx(end)


def test_lotlip_has_the_contract_itself():
    model, _ = build_lotlip()
    assert get_contract(model) is model
