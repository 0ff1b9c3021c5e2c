"""Dual encoders whose code comes with them, through the commands: the numbers of a call by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    CLIPImageProcessor,
    CLIPProcessor,
    CLIPTokenizer,
    GemmaTokenizer,
    Siglip2ImageProcessor,
)

import lotlip
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.interpolation.weights import check_models
from tests.helpers import remote_code
from tests.helpers.commands import run_command, to_argv
from tests.helpers.dual_encoders import (
    CROP,
    IMAGES,
    LONG,
    SHORT,
    VISION,
    brute_force,
    flatten,
    siglip2_tokenizer,
    text_tower,
    trained,
    xlm_roberta_tokenizer,
)
from tests.helpers.remote_code.modeling_clip import JinaCLIPConfig, JinaCLIPModel
from tests.helpers.remote_code.modeling_fgclip2 import Fgclip2Config, Fgclip2Model
from tests.helpers.remote_code.modeling_longclip import LongCLIPConfig, LongCLIPModel


CODE = Path(remote_code.__file__).parent


def save(folder, model, module, auto_map):
    """Saves a model as it is on the Hub: names of its code in the configuration, the code beside it."""
    torch.manual_seed(0)
    weights = {}
    for name, tensor in model.state_dict().items():
        if tensor.dim() > 0:
            weights[name] = torch.randn_like(tensor)
    model.load_state_dict(weights, strict=False)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config["auto_map"] = {name: f"{module}.{part}" for name, part in auto_map.items()}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(CODE / f"{module}.py", folder)
    return model.eval()


@pytest.fixture(scope="module")
def fgclip2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fgclip2")
    tokenizer = siglip2_tokenizer(GemmaTokenizer)  # which keeps capitals
    tokenizer.save_pretrained(folder)
    Siglip2ImageProcessor(patch_size=16, max_num_patches=256).save_pretrained(folder)
    auto_map = {"AutoConfig": "Fgclip2Config", "AutoModelForCausalLM": "Fgclip2Model"}
    config = Fgclip2Config(text_config={"vocab_size": len(tokenizer)})
    return folder, save(folder, Fgclip2Model(config), "modeling_fgclip2", auto_map)


@pytest.fixture(scope="module")
def jina(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jina")
    tokenizer = xlm_roberta_tokenizer(model_max_length=100)
    tokenizer.save_pretrained(folder)
    preprocessor = {
        "auto_map": {
            "AutoProcessor": "modeling_clip.JinaCLIPProcessor",
            "AutoImageProcessor": "modeling_clip.JinaCLIPImageProcessor",
        },
        "image_processor_type": "JinaCLIPImageProcessor",
        "processor_class": "JinaCLIPProcessor",
        "size": 32,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    auto_map = {"AutoConfig": "JinaCLIPConfig", "AutoModel": "JinaCLIPModel"}
    text_config = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = JinaCLIPConfig(text_config=text_config)
    return folder, save(folder, JinaCLIPModel(config), "modeling_clip", auto_map)


@pytest.fixture(scope="module")
def longclip(tmp_path_factory):
    """A table of 248 positions, and a tokenizer that says 77."""
    folder = tmp_path_factory.mktemp("longclip")
    tokenizer = trained(CLIPTokenizer(), model_max_length=77)
    CLIPProcessor(CLIPImageProcessor(**CROP), tokenizer).save_pretrained(folder)
    text = text_tower(tokenizer, max_position_embeddings=248)
    config = LongCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    auto_map = {"AutoConfig": "LongCLIPConfig", "AutoModel": "LongCLIPModel"}
    return folder, save(folder, LongCLIPModel(config), "modeling_longclip", auto_map)


@torch.no_grad()
def by_hand_longclip(folder, model, texts, images):
    processor = CLIPProcessor.from_pretrained(folder)
    options = {"padding": True, "truncation": True, "max_length": 248, "return_tensors": "pt"}
    outputs = model(**processor(text=texts, images=images, **options))
    return outputs.text_embeds, outputs.image_embeds


@torch.no_grad()
def by_hand_fgclip2(folder, model, texts, images):
    """As its model card has it: lower case, 64 tokens or 196, and patches by the size of the image."""
    tokenizer = GemmaTokenizer.from_pretrained(folder)
    image_processor = Siglip2ImageProcessor.from_pretrained(folder)
    text_embeds = []
    image_embeds = []
    for text in texts:
        text = text.lower()
        length = 64
        walk_type = "short"
        if len(tokenizer(text)["input_ids"]) > 64:
            length = 196
            walk_type = "long"
        options = {"padding": "max_length", "max_length": length, "truncation": True}
        tokens = tokenizer([text], **options, return_tensors="pt")
        text_embeds.append(model.get_text_features(**tokens, walk_type=walk_type))
    for image in images:
        patches = (image.width // 16) * (image.height // 16)
        fitting = [budget for budget in (128, 256, 576, 784, 1024) if patches <= budget]
        budget = min(fitting, default=1024)
        inputs = image_processor(images=image, max_num_patches=budget, return_tensors="pt")
        image_embeds.append(model.get_image_features(**inputs))
    return torch.cat(text_embeds), torch.cat(image_embeds)


@torch.no_grad()
def by_hand_jina(folder, model, texts, images):
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    tokens = processor.tokenizer(texts, padding=True, truncation=True, max_length=100, return_tensors="pt")
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    return model.get_text_features(tokens["input_ids"]), model.get_image_features(pixels)


@pytest.mark.parametrize(
    "name, limit, by_hand",
    [("fgclip2", 196, by_hand_fgclip2), ("jina", 100, by_hand_jina), ("longclip", 248, by_hand_longclip)],
)
def test_evaluated_and_embedded_as_by_hand(name, limit, by_hand, request, noise_dir, tmp_path):
    folder, model = request.getfixturevalue(name)
    arguments = ("--model_name_or_path", folder, "--trust_remote_code", "--dataset_name", noise_dir)
    results = run_command("evaluate", tmp_path / "results.json", *arguments, "--batch_size", 4)
    assert results["max_length"] == limit
    for kind, captions in (("short", SHORT), ("long", LONG)):
        texts, owners = flatten(captions)
        text_embeds, image_embeds = by_hand(folder, model, texts, IMAGES)
        text_embeds = torch.nn.functional.normalize(text_embeds, dim=-1)
        image_embeds = torch.nn.functional.normalize(image_embeds, dim=-1)
        similarities = (text_embeds @ image_embeds.t()).numpy()
        for metric, value in brute_force(similarities, owners).items():
            assert results[f"{kind}_{metric}"] == pytest.approx(value), (kind, metric)
        assert (image_embeds @ image_embeds.t()).fill_diagonal_(0).max() < 1 - 1e-4

    output = {"output_dir": tmp_path / "embeds", "output_file": tmp_path / "embeds.npz"}
    status = lotlip.main(to_argv("embed", *arguments, **output))
    assert status == 0
    arrays = np.load(tmp_path / "embeds.npz")
    for kind, expected in (("image", image_embeds), ("long", text_embeds)):
        stored = torch.from_numpy(arrays["embedding"][arrays["kind"] == kind])
        torch.testing.assert_close(stored, expected, rtol=0, atol=1e-5)
    encoder = load_encoder(str(folder), LoadingArguments(device="cpu", trust_remote_code=True))
    embeds = encoder.encode_text(texts, convert_to_tensor=True)
    torch.testing.assert_close(embeds, text_embeds, rtol=0, atol=1e-5)
    shouted = ["A RED boat"]
    expected = torch.nn.functional.normalize(by_hand(folder, model, shouted, IMAGES[:1])[0])
    embeds = encoder.encode_text(shouted, convert_to_tensor=True)
    torch.testing.assert_close(embeds, expected, rtol=0, atol=1e-5)


def test_without_consent_no_code_is_run(fgclip2):
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_encoder(str(fgclip2[0]), LoadingArguments(device="cpu"))


def test_weights_that_lack_are_no_random_ones(jina, tmp_path):
    shutil.copytree(jina[0], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["vision_model.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="weights lack 1 tensors of JinaCLIPModel, `vision_model.weight` first"):
        load_encoder(str(tmp_path / "model"), LoadingArguments(device="cpu", trust_remote_code=True))


def test_weights_of_which_the_code_knows_nothing_are_named(jina, tmp_path, caplog):
    folder = shutil.copytree(jina[0], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["vision_model.adapter"] = torch.ones(3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_encoder(str(folder), LoadingArguments(device="cpu", trust_remote_code=True))
    assert f"1 tensors of {folder} are not used by JinaCLIPModel, `vision_model.adapter`" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nosuch", "the code that comes with it fails: NameError: name 'nosuch' is not defined"),
        ("raise RuntimeError('no GPU')", "the code that comes with it fails: RuntimeError: no GPU"),
        ("raise SystemExit(0)", "the code that comes with it fails: SystemExit: 0"),
        ("1 +", "the code that comes with it fails: SyntaxError: invalid syntax"),
    ],
)
def test_code_that_fails_is_an_error_that_names_the_model(jina, tmp_path, line, message):
    folder = shutil.copytree(jina[0], tmp_path / "model")
    with open(folder / "modeling_clip.py", "a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(ValueError, match=f"_path {folder}` cannot be used: .*{message}"):
        load_encoder(str(folder), LoadingArguments(device="cpu", trust_remote_code=True))


def test_code_that_is_missing_is_an_error_that_names_it(jina, tmp_path):
    folder = shutil.copytree(jina[0], tmp_path / "model")
    (folder / "modeling_clip.py").unlink()
    with pytest.raises(ValueError, match=f"_path {folder}` cannot be used: .*modeling_clip.py"):
        load_encoder(str(folder), LoadingArguments(device="cpu", trust_remote_code=True))


def test_a_model_and_what_a_training_made_of_it_have_the_same_class(longclip, jina, tmp_path):
    """Each is loaded by the code in its own folder."""
    loading = LoadingArguments(device="cpu", trust_remote_code=True)
    start = load_encoder(str(longclip[0]), loading)
    end = load_encoder(str(shutil.copytree(longclip[0], tmp_path / "end")), loading)
    assert type(start.model) is not type(end.model)
    check_models(start, end)
    with pytest.raises(ValueError, match="is a LongCLIPModel and END .* a JinaCLIPModel"):
        check_models(start, load_encoder(str(jina[0]), loading))


def test_a_length_that_the_model_does_not_read(fgclip2):
    inference = LoadingArguments(device="cpu", trust_remote_code=True, max_length=100)
    with pytest.raises(ValueError, match="does not fit `.*`. Give 64 or 196"):
        load_encoder(str(fgclip2[0]), inference, argument="text_model")


def test_each_image_has_the_patches_of_its_size(fgclip2):
    encoder = load_encoder(str(fgclip2[0]), LoadingArguments(device="cpu", trust_remote_code=True))
    images = [IMAGES[0].resize((width, 160)) for width in (80, 640, 2000)]
    inputs = encoder.preprocessing.prepare_images(images)
    assert inputs["pixel_values"].shape[:2] == (3, 1024)
    numbers = inputs["pixel_attention_mask"].sum(dim=1)
    assert torch.equal(numbers, inputs["spatial_shapes"].prod(dim=1))
    for number, budget in zip(numbers.tolist(), (128, 576, 1024)):
        assert 0.8 * budget < number <= budget
    for index, image in enumerate(images):
        alone = encoder.preprocessing.prepare_images([image])
        number = numbers[index]
        expected = alone["pixel_values"][0, :number]
        assert torch.equal(inputs["pixel_values"][index, :number], expected)
