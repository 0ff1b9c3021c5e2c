"""Embedding by OpenVINO: the numbers of PyTorch, the cache, what cannot be computed, and how it is chosen."""

import copy
import ctypes
import gc
import subprocess
import sys

import pytest
import torch

from modeling_lotlip.embedding import models, openvino
from modeling_lotlip.embedding.arguments import InferenceArguments, LoadingArguments
from modeling_lotlip.embedding.batches import embed_images, embed_texts, tokenize
from modeling_lotlip.embedding.features import prepare_images
from modeling_lotlip.embedding.models import dtype_name, load_model
from tests.conftest import WORDS
from tests.helpers.dual_encoders import IMAGES


TEXTS = [" ".join(WORDS[:length]) for length in (1, 2, 3, 5, 8, 13, 2, 1)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of towers of its own for each test."""
    monkeypatch.setattr(openvino, "HF_ASSETS_CACHE", tmp_path / "assets")
    return tmp_path / "assets" / "lotlip" / "openvino"


def load(folder, **arguments):
    return load_model(str(folder), InferenceArguments(device="cpu", **arguments))


def embed(model, processor, kind, number):
    """Of so many texts of several lengths, or of images."""
    if kind == "text":
        return embed_texts(model, tokenize(processor, TEXTS[-number:]))
    return embed_images(model, prepare_images(processor, IMAGES[:number]))


@pytest.mark.parametrize(
    ("name", "kind"), [("lotlip", "text"), ("lotlip", "image"), ("clip", "text"), ("siglip", "image")]
)
def test_equals_torch(name, kind, family_folders):
    """At other lengths and numbers than the first ones, which the tower was traced and checked with."""
    plain, processor = load(family_folders(name), backend="torch")
    model, _ = load(family_folders(name), backend="openvino")
    calls = []
    for number in (2, 7, 1, 3):
        embeds = embed(model, processor, kind, number)
        calls.append((embeds - embed(plain, processor, kind, number)).abs().max().item())
    assert model.embedding_backend.towers[kind].compiled
    assert max(calls) <= 1e-6


def test_bfloat16(family_folders):
    plain, processor = load(family_folders("lotlip"), backend="torch")
    model, _ = load(family_folders("lotlip"), backend="openvino", dtype="bf16")
    assert model.dtype == torch.bfloat16 and dtype_name(model) == "bfloat16"
    for kind in ("text", "image"):
        embed(model, processor, kind, 2)
        cosines = (embed(model, processor, kind, 7) * embed(plain, processor, kind, 7)).sum(dim=-1)
        assert cosines.min() > 0.999 and model.embedding_backend.towers[kind].compiled


def test_cache_is_used_again(family_folders, cache, monkeypatch):
    model, processor = load(family_folders("lotlip"), backend="openvino")
    first = embed(model, processor, "text", 7)
    (tower,) = cache.glob("*/tower.xml")
    stamp = tower.stat().st_mtime_ns
    monkeypatch.delattr(openvino.OpenvinoTower, "convert")
    model, _ = load(family_folders("lotlip"), backend="openvino")
    torch.testing.assert_close(embed(model, processor, "text", 7), first, rtol=0, atol=0)
    assert tower.stat().st_mtime_ns == stamp
    other, _ = load(family_folders("clip"), backend="openvino")
    with pytest.raises(AttributeError, match="convert"):
        embed(other, processor, "text", 7)


SCRIPT = """
import os, sys, pathlib
from modeling_lotlip.embedding import models, openvino
from modeling_lotlip.embedding.arguments import InferenceArguments
from modeling_lotlip.embedding.batches import embed_texts, tokenize
import lancedb  # which warns of forks
openvino.HF_ASSETS_CACHE = sys.argv[2]
{preparation}
model, processor = models.load_model(sys.argv[1], InferenceArguments(device="cpu", backend="openvino"))
embed_texts(model, tokenize(processor, ["a red boat"]))
"""
KILL = """
def save_model(model, path, **options):
    pathlib.Path(path).write_text("half")
    os._exit(9)
openvino.import_silently("openvino").save_model = save_model
"""


def run_script(folder, cache, preparation="", end=""):
    script = SCRIPT.format(preparation=preparation) + end
    command = [sys.executable, "-c", script, folder, cache.parents[1]]
    return subprocess.run(command, capture_output=True, text=True)


def test_killed_conversion(family_folders, cache):
    """Nothing half is left that is taken for a tower, and the next process converts, without a word to anybody."""
    folder = family_folders("lotlip")
    process = run_script(folder, cache, KILL)
    assert process.returncode == 9, process.stderr
    assert list(cache.glob("*/tower.xml")) and not list(cache.glob("*/tower.bin"))
    process = run_script(folder, cache, end="import openvino_telemetry\nprint(openvino_telemetry.Telemetry().consent)")
    lines = [line for line in process.stderr.splitlines() if line and "Loading weights" not in line]
    assert process.stdout == "False\n" and len(lines) == 1 and lines[0].startswith("Converting the text tower")
    assert list(cache.glob("*/tower.bin"))


class SignalStack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def find_signal_stack() -> int | None:
    """The address of the stack that handlers of signals run on in this thread."""
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address


def test_signals_after_a_model_is_gone(family_folders):
    """
    Each runtime of OpenVINO gives handlers a stack and takes it away when it ends: then a signal ends the process.
    (pytest's faulthandler has one that the runtime replaces.)
    """
    addresses = set()
    for name in ("lotlip", "clip", "siglip"):
        model, processor = load(family_folders(name), backend="openvino")
        embed(model, processor, "text", 2)
        addresses.add(find_signal_stack())
        del model
        gc.collect()
        addresses.add(find_signal_stack())
    assert len(addresses) == 1


def test_tower_of_another_model_is_refused(family_folders, cache, caplog, monkeypatch):
    """Whatever lies in the cache is compared with PyTorch before it is used."""
    folder = family_folders("lotlip")
    plain, processor = load(folder, backend="torch")
    model, _ = load(folder, backend="openvino")
    with torch.no_grad():
        model.text_projection.weight.normal_()
    embed(model, processor, "text", 7)
    key = model.embedding_backend.key

    monkeypatch.setattr(openvino.OpenvinoBackend, "key", key)
    model, _ = load(folder, backend="openvino")
    with pytest.raises(ValueError, match="the text tower of this LotlipModel: an embedding has a cosine of"):
        embed(model, processor, "text", 7)
    monkeypatch.setattr(openvino, "SECONDS_OF_TORCH", 0)
    model, _ = load(folder)
    torch.testing.assert_close(embed(model, processor, "text", 7), embed(plain, processor, "text", 7), rtol=0, atol=0)
    assert "Continuing with PyTorch" in caplog.text
    caplog.clear()
    embed(model, processor, "text", 3)
    assert caplog.text == ""


def test_unconvertible_tower(family_folders, caplog, monkeypatch):
    """An error where OpenVINO is asked for; else PyTorch computes, and it is said once."""
    folder = family_folders("align")
    plain, processor = load(folder, backend="torch")
    model, _ = load(folder, backend="openvino")
    with pytest.raises(ValueError, match="cannot compute the image tower of this AlignModel.*`--backend torch`"):
        embed(model, processor, "image", 3)
    caplog.clear()
    monkeypatch.setattr(openvino, "SECONDS_OF_TORCH", 0)
    model, _ = load(folder)
    for number in (3, 2):
        expected = embed(plain, processor, "image", number)
        torch.testing.assert_close(embed(model, processor, "image", number), expected, rtol=0, atol=0)
    assert caplog.text.count("Continuing with PyTorch") == 1


def test_patches_of_several_numbers(family_folders):
    model, processor = load(family_folders("siglip2"), backend="openvino")
    with pytest.raises(ValueError, match="patches of each image's own number"):
        embed(model, processor, "image", 3)


def test_auto_begins_with_torch(family_folders, cache, caplog, monkeypatch):
    """OpenVINO takes over after so many seconds of computing; where nothing can be written PyTorch continues."""
    folder = family_folders("lotlip")
    model, processor = load(folder)
    embed(model, processor, "text", 7)
    tower = model.embedding_backend.towers["text"]
    assert not tower.compiled and tower.seconds > 0 and not cache.exists()
    tower.seconds = openvino.SECONDS_OF_TORCH
    embed(model, processor, "text", 7)
    assert tower.compiled

    monkeypatch.setattr(openvino, "HF_ASSETS_CACHE", folder / "config.json")
    monkeypatch.setattr(openvino, "SECONDS_OF_TORCH", 0)
    model, _ = load(folder)
    embed(model, processor, "text", 7)
    assert model.embedding_backend.towers["text"].is_refused
    assert "config.json/lotlip/openvino`, where towers converted for OpenVINO are kept, cannot be" in caplog.text


def test_gradients_and_other_sizes_by_torch(family_folders):
    model, processor = load(family_folders("lotlip"), backend="openvino")
    images = prepare_images(processor, IMAGES[:2])
    embed_images(model, images)
    tower = model.embedding_backend.towers["image"]
    tower.compiled = "would fail"
    assert tower(images).requires_grad
    with pytest.raises(ValueError, match=r"size \(48\*48\) doesn't match model"), torch.no_grad():
        tower({"pixel_values": torch.randn(2, 3, 48, 48)})  # as the model says it


def test_copies_compute_by_torch(family_folders):
    model, processor = load(family_folders("lotlip"), backend="openvino")
    embeds = embed(model, processor, "text", 7)
    copied = copy.deepcopy(model)
    assert copied.embedding_backend is None
    torch.testing.assert_close(embed(copied, processor, "text", 7), embeds, rtol=0, atol=1e-6)


def test_only_where_it_is_asked_for(family_folders):
    folder = family_folders("lotlip")
    assert load(folder, backend="torch")[0].embedding_backend is None
    assert load(folder, dtype="float16")[0].embedding_backend is None
    assert not hasattr(load_model(str(folder), LoadingArguments(device="cpu"))[0], "embedding_backend")
    assert not load(folder)[0].embedding_backend.is_required


def test_int8_depends_on_no_other_text(family_folders, cache):
    """It is calibrated on texts of its own, once for a model. Images are bfloat16."""
    folder = family_folders("lotlip")
    plain, processor = load(folder, backend="torch")
    model, _ = load(folder, dtype="int8")
    assert dtype_name(model) == "int8" and model.dtype == torch.float32
    texts = [" ".join((WORDS * 4)[start : start + length]) for start in range(8) for length in range(1, 41)]
    embeds, expected = (embed_texts(each, tokenize(processor, texts)) for each in (model, plain))
    cosines = (embeds * expected).sum(dim=-1)
    # ranges are rough where a tower has 32 dimensions: `examples/benchmarks/backends.py` measures a trained one
    assert 0.8 < cosines.min() < 1 - 1e-5 and cosines.mean() > 0.98
    (tower,) = cache.glob("*/tower.xml")
    stamp = tower.stat().st_mtime_ns
    again, _ = load(folder, dtype="int8")
    torch.testing.assert_close(embed_texts(again, tokenize(processor, texts[:1])), embeds[:1], rtol=0, atol=1e-3)
    assert tower.stat().st_mtime_ns == stamp
    images = (
        embed(each, processor, "image", 3) for each in (model, load(folder, backend="openvino", dtype="bf16")[0])
    )
    torch.testing.assert_close(*images, rtol=0, atol=0.02)


def test_excluded_pairs_and_a_missing_package(family_folders, monkeypatch):
    with pytest.raises(ValueError, match="`--dtype float16` is not for `--backend openvino`"):
        load(family_folders("lotlip"), backend="openvino", dtype="float16")
    with pytest.raises(ValueError, match="`--dtype int8` is not for `--backend torch`"):
        load(family_folders("lotlip"), backend="torch", dtype="int8")
    with pytest.raises(ValueError, match="--backend must be one of auto, torch, openvino, got onnx"):
        InferenceArguments(backend="onnx")
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs openvino: `pip install \"lotlip\[openvino\]\"`"):
        load(family_folders("lotlip"), backend="openvino")
    with pytest.raises(ImportError, match=r"needs nncf: `pip install \"lotlip\[int8\]\"`"):
        load(family_folders("lotlip"), dtype="int8")
    assert load(family_folders("lotlip"))[0].embedding_backend is None
