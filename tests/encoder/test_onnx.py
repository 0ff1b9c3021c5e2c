"""The graphs on onnxruntime, and in Node with transformers.js, against the model."""

import io
import json
import re
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity, normalize

import lotlip
from modeling_lotlip import LotlipImageProcessorPil, LotlipModel, LotlipProcessor
from modeling_lotlip.encoder.onnx import ExportedTower, export_model, export_tower
from tests.conftest import ROOT, as_token_wise, tiny_config
from tests.helpers.commands import to_argv
from tests.helpers.methods import PooledModel, TwoTowersModel, make_like


# the last one is too long
TEXTS = [
    "a red boat. The sea is blue.",
    "A house",
    "caf\u00e9 boat[SEP]sea.  tree",
    "a red boat. the sea is blue. " * 30,
]


@pytest.fixture(scope="module", autouse=True)
def each_tower_is_exported_once():
    """Of the model of these tests, into whatever folder."""
    programs = {}

    def export_once(tower: ExportedTower) -> onnx_ir.Model:
        if tower.name not in programs:
            programs[tower.name] = export_tower(tower)
        return programs[tower.name].clone()  # which is changed where it is quantized

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("modeling_lotlip.encoder.onnx.export_tower", export_once)
        yield


@pytest.fixture(scope="module")
def exported(model_dir, tmp_path_factory):
    """By the command, whose table is a file beside the graphs."""
    folder = tmp_path_factory.mktemp("exported")
    argv = to_argv("export", model=model_dir, output_dir=folder)
    with redirect_stdout(io.StringIO()) as output:
        status = lotlip.main([*argv, "--dtype", "fp32", "float32", "fp16", "q8"])
        assert status == 0
    (folder / "table.md").write_text(output.getvalue())
    return folder


@pytest.fixture(scope="module")
def model(model_dir):
    return LotlipModel.from_pretrained(model_dir).eval()


def run(path: Path, *outputs: str, **inputs: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results = session.run(list(outputs), {name: tensor.numpy() for name, tensor in inputs.items()})
    assert all(result.dtype == np.float32 for result in results)
    return [torch.from_numpy(result) for result in results]


@pytest.mark.parametrize(
    "suffix, tolerance, least_cosine", [("", 1e-5, 1), ("_fp16", 0.01, 0.9999), ("_quantized", 1, 0.99)]
)
@torch.no_grad()
def test_graphs_give_the_embeddings_of_the_model(exported, model, suffix, tolerance, least_cosine):
    def check(given, expected):
        torch.testing.assert_close(given, expected, atol=tolerance, rtol=0)
        assert cosine_similarity(given, expected).min() >= least_cosine - 1e-6

    # up to the end of the position table, 512 less the corner tokens
    for num_texts, length in ((1, 2), (5, 33), (2, 510)):
        input_ids = torch.randint(5, 20, (num_texts, length))
        attention_mask = torch.ones_like(input_ids)
        attention_mask[0, 2:] = 0
        path = exported / "onnx" / f"text_model{suffix}.onnx"
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        embeds, states = run(path, "text_embeds", "last_hidden_state", **inputs)
        expected = model.get_text_features(**inputs)
        check(embeds, expected.pooler_output)
        assert states.shape == expected.last_hidden_state.shape
        # padding changes nothing
        without_padding = {name: tensor[:1, :2] for name, tensor in inputs.items()}
        (alone,) = run(path, "text_embeds", **without_padding)
        torch.testing.assert_close(embeds[:1], alone, atol=tolerance, rtol=0)
    for num_images in (1, 5):
        path = exported / "onnx" / f"vision_model{suffix}.onnx"
        pixel_values = torch.randn(num_images, 3, 32, 32)
        (embeds,) = run(path, "image_embeds", pixel_values=pixel_values)
        check(embeds, model.get_image_features(pixel_values).pooler_output)


@pytest.mark.parametrize("tower", ["text", "vision"])
def test_weights_in_8_bits_use_7_of_them(exported, tower):
    """Sums of products of all 8 overflow on older processors."""
    graph = onnx.load(exported / "onnx" / f"{tower}_model_quantized.onnx").graph
    factors = set()
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            factors.update(node.input)
    weights = []
    for initializer in graph.initializer:
        if initializer.name in factors and len(initializer.dims) > 1:
            weights.append(onnx.numpy_helper.to_array(initializer).astype(int))
    assert weights
    assert max(weight.max() - weight.min() for weight in weights) <= 2**7


def test_the_table_and_what_transformers_js_reads_beside_the_graphs(exported, model_dir):
    lines = (exported / "table.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert [row[0] for row in rows] == [
        "text_model.onnx",
        "text_model_fp16.onnx",
        "text_model_quantized.onnx",
        "vision_model.onnx",
        "vision_model_fp16.onnx",
        "vision_model_quantized.onnx",
    ]
    assert rows[0][3] == rows[3][3] == "1.000000"
    preprocessing = json.loads((exported / "preprocessor_config.json").read_text())
    expected = json.loads(LotlipProcessor.from_pretrained(model_dir).image_processor.to_json_string())
    assert preprocessing["image_processor_type"] == "CLIPImageProcessor"
    assert "auto_map" not in preprocessing
    for name in ("size", "crop_size", "image_mean", "image_std"):
        assert preprocessing[name] == expected[name], name
    assert (exported / "tokenizer.json").exists()
    assert (exported / "config.json").exists()


def test_what_cannot_be_exported_is_refused(tmp_path):
    for config, message in (
        (None, "--model_name_or_path.*cannot be used"),
        (tiny_config().text_config, "is a `lotlip_text_model`, no LoTLIP"),
        (as_token_wise(tiny_config()), "no single embedding"),
    ):
        if config is not None:
            config.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=message):
            export_model(str(tmp_path), tmp_path / "out", ["float32"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model_class", "method"), [(TwoTowersModel, "embed_images"), (PooledModel, "embed_captions")]
)
def test_a_model_that_embeds_in_its_own_way_is_not_exported(model, tmp_path, model_class, method):
    make_like(model, model_class).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=f"{model_class.__name__} has an `{method}` of its own"):
        export_model(str(tmp_path / "model"), tmp_path / "graphs", ["float32"])


def test_a_model_beside_adapters_is_not_exported(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "model")
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be used: it has adapters of PEFT: save their model"):
        export_model(str(tmp_path / "model"), tmp_path / "graphs", ["float32"])


def test_graphs_are_replaced_and_an_error_or_another_file_leaves_them(model_dir, tmp_path, monkeypatch):
    graph = tmp_path / "onnx" / "text_model.onnx"
    graph.parent.mkdir()
    graph.write_bytes(b"of another model")
    with monkeypatch.context() as patch:
        patch.setattr("modeling_lotlip.encoder.onnx.MIN_COSINE", 2.0)
        with pytest.raises(RuntimeError, match="is not the model"):
            export_model(str(model_dir), tmp_path, ["float32"])
    assert graph.read_bytes() == b"of another model"
    export_model(str(model_dir), tmp_path, ["float32"])
    with pytest.raises(
        ValueError, match="has other files in `onnx`, text_model.onnx, vision_model.onnx, which would go"
    ):
        export_model(str(model_dir), tmp_path, ["q8"])
    left = sorted(path.name for path in tmp_path.rglob("*.onnx"))
    assert left == ["text_model.onnx", "vision_model.onnx"]


# What npm says where there is no network; of a package that is not there, it says so, and that is a mistake of ours
UNREACHABLE = ("EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENOTCACHED", "ENOTFOUND", "ETIMEDOUT")


@pytest.fixture(scope="module")
def node_script(tmp_path_factory) -> Path:
    """The script beside transformers.js, which npm installs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("node")
    for file in ("embed.mjs", "package.json"):
        shutil.copy(ROOT / "examples" / "node" / file, folder)
    command = "npm install --ignore-scripts --no-audit --no-fund --no-package-lock --prefer-offline".split()
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install transformers.js in three minutes")
    if any(code in done.stderr for code in UNREACHABLE):
        pytest.skip(f"npm cannot reach its registry: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr
    return folder / "embed.mjs"


@torch.no_grad()
def test_node_gives_the_same_embeddings(exported, model, model_dir, node_script, tmp_path):
    images = [Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 50).convert("RGB")]
    images += [Image.linear_gradient("L").convert("RGB").resize((140, 90)), images[0].copy()]
    images[2].putalpha(Image.radial_gradient("L").resize((32, 32)))  # transparent outside, over black
    files = [tmp_path / f"{name}.png" for name in ("fits", "resized", "transparent")]
    for image, file in zip(images, files):
        image.save(file)

    def node(*arguments):
        command = ["node", node_script, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    arguments = []
    for text in TEXTS:
        arguments += ["--text", text]
    for file in files:
        arguments += ["--image", file]
    done = node(exported, *arguments)
    assert done.returncode == 0, done.stderr
    embeds = {name: torch.tensor(rows) for name, rows in json.loads(done.stdout).items()}

    processor = LotlipProcessor.from_pretrained(model_dir)
    tokens = processor.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    expected = normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    torch.testing.assert_close(embeds["text_embeds"], expected, atol=1e-5, rtol=0)
    image_processor = LotlipImageProcessorPil.from_pretrained(model_dir)
    pixel_values = image_processor(images, return_tensors="pt")["pixel_values"]
    expected = normalize(model.get_image_features(pixel_values).pooler_output, dim=-1)
    torch.testing.assert_close(embeds["image_embeds"][0], expected[0], atol=1e-5, rtol=0)
    # a rounding apart
    torch.testing.assert_close(embeds["image_embeds"][2:], expected[2:], atol=1e-3, rtol=0)
    # transformers.js resizes by another library
    assert cosine_similarity(embeds["image_embeds"][1], expected[1], dim=0) > 0.99

    # what the docs show does the same
    page = (ROOT / "docs" / "integrations.md").read_text()
    (snippet,) = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    node_script.with_name("snippet.mjs").write_text(snippet)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "onnx").symlink_to(exported)
    command = ["node", node_script.with_name("snippet.mjs")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    texts = ["a red boat", "A red boat. The sea is blue."]
    tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
    expected = normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected, atol=1e-5, rtol=0)

    (tmp_path / "broken.png").write_bytes(b"no image")
    for arguments, message in (
        ([exported, "--bogus"], "usage: node embed.mjs"),
        ([tmp_path, "--text", "a"], "holds no graphs in fp32"),
        ([exported, "--image", "missing.png"], "no such image: missing.png"),
        ([exported, "--image", tmp_path / "broken.png"], "broken.png cannot be read as an image"),
    ):
        done = node(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert not done.stdout
