"""The modular file, of which the library's converter makes the model's files, computes what the package computes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from PIL import Image
from transformers import PreTrainedConfig

import modeling_lotlip
from modeling_lotlip import LotlipConfig, LotlipModel
from tests.upstream import modular_lotlip


REFERENCE = Path(__file__).resolve().parents[1] / "reference"
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
# What only models that were trained with this package otherwise than the published ones have; and the names of the
# classes, by which the Auto classes choose: the library writes them when it saves
OF_THE_PACKAGE = {"architectures", "logit_bias_init_value", "token_wise", "qkv_bias", "patch_dropout"}


def build(image_projection: bool = False, **text_fields):
    """The package's model, and the modular file's with the same weights."""
    torch.manual_seed(0)
    fields = {
        "text_config": {**TOWER, "vocab_size": 99, "projection_dim": 32, "initializer_range": 0.2, **text_fields},
        "vision_config": {**TOWER, "image_size": 32, "patch_size": 8, "initializer_range": 0.2},
        "projection_dim": 32,
    }
    if image_projection:
        fields["vision_config"]["projection_dim"] = 32
    ours = LotlipModel(LotlipConfig(**fields))
    theirs = modular_lotlip.LotlipModel(modular_lotlip.LotlipConfig(**fields))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    return ours.eval(), theirs.eval()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """A short and two long captions for each of four images; one image lacks a long one."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 12, (4, 3), generator=generator)
    lengths[2, 1] = 0
    return {
        "input_ids": torch.randint(1, 99, (4, 3, 12), generator=generator),
        "attention_mask": (torch.arange(12) < lengths[..., None]).long(),
        "pixel_values": torch.randn(4, 3, 32, 32, generator=generator),
    }


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys() and len(ours) > 0
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name]), name
        elif isinstance(value, tuple):
            assert len(value) == len(theirs[name]) > 0 and all(map(torch.equal, value, theirs[name])), name
        else:
            assert_same(value, theirs[name])


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"image_projection": True}, {"corner_attention_mask": False}, {"num_corner_tokens": 0}],
    ids=lambda fields: "".join(fields) or "released",
)
def test_outputs_and_gradients(fields, attn_implementation, inputs):
    ours, theirs = build(**fields)
    for model in (ours, theirs):
        model.set_attn_implementation(attn_implementation)
        model.requires_grad_(True)
    single = {name: x[:, 0] if x.dim() == 3 else x for name, x in inputs.items()}
    for given in (inputs, single):
        outputs = [
            model(
                **given, return_loss=True, output_hidden_states=True, output_attentions=attn_implementation == "eager"
            )
            for model in (ours, theirs)
        ]
        assert_same(*outputs)
        for output in outputs:
            output.loss.backward()
        for name, parameter in ours.named_parameters():
            assert torch.equal(parameter.grad, theirs.get_parameter(name).grad), name
    images = torch.randn(2, 3, 24, 48)
    features = [m.get_image_features(images, interpolate_pos_encoding=True).pooler_output for m in (ours, theirs)]
    assert torch.equal(*features)


def test_towers(inputs):
    ours, theirs = build(image_projection=True)
    texts = {"input_ids": inputs["input_ids"][:, 1], "attention_mask": inputs["attention_mask"][:, 0]}
    for name, given in (
        ("LotlipTextModelWithProjection", {**texts, "output_corner_tokens": True}),
        ("LotlipVisionModelWithProjection", {"pixel_values": inputs["pixel_values"]}),
    ):
        towers = []
        for module, model in ((modeling_lotlip, ours), (modular_lotlip, theirs)):
            config = model.config.text_config if "Text" in name else model.config.vision_config
            tower = getattr(module, name)(config).eval()
            tower.load_state_dict({key: x for key, x in model.state_dict().items() if key in tower.state_dict()})
            towers.append(tower)
        assert_same(*(tower(**given) for tower in towers))


def test_training_mode_is_the_same_too(inputs):
    ours, theirs = build()
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        losses.append(model.train()(**inputs, return_loss=True).loss)
    assert torch.equal(*losses)
    ours.eval()
    assert not torch.equal(losses[0], ours(**inputs, return_loss=True).loss)  # there was dropout


@pytest.mark.parametrize("name", ["LotlipConfig", "LotlipTextConfig", "LotlipVisionConfig"])
def test_configurations(name):
    ours, theirs = (getattr(module, name)() for module in (modeling_lotlip, modular_lotlip))
    fields = [fields_of(config) for config in (ours, theirs)]
    assert fields[0] == fields[1]
    # and what the package has saved is read as it was meant
    assert fields_of(type(theirs).from_dict(ours.to_dict())) == fields[1]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("LotlipTextConfig", {"hidden_size": 30, "num_attention_heads": 4}),
        ("LotlipTextConfig", {"num_corner_tokens": 512}),
        ("LotlipVisionConfig", {"hidden_size": 30, "num_attention_heads": 4}),
        ("LotlipConfig", {"projection_dim": 3}),
        ("LotlipConfig", {"vision_config": {"projection_dim": 3}}),
    ],
)
def test_refuses_what_the_package_refuses(name, wrong):
    with pytest.raises(ValueError):
        getattr(modeling_lotlip, name)(**wrong)
    with pytest.raises(StrictDataclassClassValidationError, match="validate_architecture"):
        getattr(modular_lotlip, name)(**wrong)


def fields_of(config: PreTrainedConfig) -> dict:
    def without(fields: dict) -> dict:
        return {
            name: without(value) if isinstance(value, dict) else value
            for name, value in fields.items()
            if name not in OF_THE_PACKAGE
        }

    return without(config.to_dict())


@pytest.mark.parametrize("name", ["LotlipImageProcessor", "LotlipImageProcessorPil"])
def test_image_processors(name):
    ours, theirs = (getattr(module, name)() for module in (modeling_lotlip, modular_lotlip))
    fields = [processor.to_dict() for processor in (ours, theirs)]
    for field in fields:
        field.pop("auto_map", None)
    assert fields[0] == fields[1]
    names = json.loads((REFERENCE / "images.json").read_text())
    for file in names:
        image = Image.open(REFERENCE / "images" / file)
        pixels = [processor(image, return_tensors="np")["pixel_values"] for processor in (ours, theirs)]
        assert np.array_equal(*pixels), file


def test_tokenizer_and_processor(tmp_path):
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a red car the street is wet and it ' s café cafe & . , ##s".split()
    vocab = {word: index for index, word in enumerate(words)}
    texts = [
        "A red car. The street is wet.",
        "the car &amp; the street.\nIt’s a caf\u00e9. [SEP] is \u2cf9, [sep]",
        "a.\u00a0red car . . the",
        "",
        "the street. " * 100,
    ]
    ours, theirs = (module.LotlipTokenizer(vocab=vocab) for module in (modeling_lotlip, modular_lotlip))
    theirs.save_pretrained(tmp_path)
    for tokenizer in (theirs, modular_lotlip.LotlipTokenizer.from_pretrained(tmp_path)):
        assert tokenizer.model_max_length == ours.model_max_length
        assert tokenizer(texts, truncation=True)["input_ids"] == ours(texts, truncation=True)["input_ids"]
        pairs = [part(texts, texts[::-1], truncation=True)["input_ids"] for part in (tokenizer, ours)]
        assert pairs[0] == pairs[1]
        assert tokenizer.tokenize(texts[0]) == ours.tokenize(texts[0])

    image = Image.linear_gradient("L").convert("RGB").crop((0, 0, 120, 201))
    inputs = []
    for module, tokenizer in ((modeling_lotlip, ours), (modular_lotlip, theirs)):
        image_processor = module.LotlipImageProcessor()
        processor = module.LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer)
        inputs.append(processor(text=texts, images=image, return_tensors="pt"))
    assert_same(*inputs)
    assert inputs[0]["input_ids"].shape == (5, 126)
