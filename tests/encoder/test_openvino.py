"""Embedding by OpenVINO: the numbers of PyTorch, the cache, and what cannot be computed."""

import copy
import ctypes
import gc
import subprocess
import sys

import pytest
import torch

from modeling_lotlip.encoder import models, openvino
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.batches import embed_images, embed_texts, tokenize
from modeling_lotlip.encoder.features import image_features, prepare_images
from modeling_lotlip.encoder.models import load_model
from modeling_lotlip.search.arguments import SearchModelArguments
from modeling_lotlip.search.index import open_table
from modeling_lotlip.table.storage import EmbeddingTable, model_settings
from tests.conftest import WORDS
from tests.helpers.dual_encoders import IMAGES


TEXTS = [" ".join(WORDS[:length]) for length in (1, 2, 3, 5, 8, 13, 2, 1)]


@pytest.fixture(autouse=True)
def shared_cache(tmp_path_factory, monkeypatch):
    """A cache of towers, each of which is converted once."""
    folder = tmp_path_factory.getbasetemp() / "openvino"
    monkeypatch.setattr(openvino, "HF_ASSETS_CACHE", folder)


@pytest.fixture
def cache(tmp_path, monkeypatch, shared_cache):
    """A cache of one test."""
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
    assert model.embedding_backend.towers.keys() == {kind}
    assert max(calls) <= 1e-6


def test_bfloat16(family_folders):
    plain, processor = load(family_folders("lotlip"), backend="torch")
    model, _ = load(family_folders("lotlip"), backend="openvino", dtype="bf16")
    for kind in ("text", "image"):
        embed(model, processor, kind, 2)
        cosines = (embed(model, processor, kind, 7) * embed(plain, processor, kind, 7)).sum(dim=-1)
        assert cosines.min() > 0.999
    assert model.embedding_backend.towers.keys() == {"text", "image"}


def test_cache_is_used_again(family_folders, cache, monkeypatch):
    model, processor = load(family_folders("lotlip"), backend="openvino")
    first = embed(model, processor, "text", 7)
    (tower,) = cache.glob("*/tower.xml")
    stamp = tower.stat().st_mtime_ns
    monkeypatch.delattr(openvino.OpenvinoBackend, "convert")
    model, _ = load(family_folders("lotlip"), backend="openvino")
    torch.testing.assert_close(embed(model, processor, "text", 7), first, rtol=0, atol=0)
    assert tower.stat().st_mtime_ns == stamp
    other, _ = load(family_folders("clip"), backend="openvino")
    with pytest.raises(AttributeError, match="convert"):
        embed(other, processor, "text", 7)


SCRIPT = """
import sys
from modeling_lotlip.encoder import models, openvino
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.batches import embed_texts, tokenize
import lancedb  # which warns of forks
openvino.HF_ASSETS_CACHE = sys.argv[2]
model, processor = models.load_model(sys.argv[1], InferenceArguments(device="cpu", backend="openvino"))
embed_texts(model, tokenize(processor, ["a red boat"]))
import openvino_telemetry
print(openvino_telemetry.Telemetry().consent)
"""


def test_nothing_is_reported_to_anybody(family_folders, cache):
    command = [sys.executable, "-c", SCRIPT, family_folders("lotlip"), cache.parents[1]]
    process = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in process.stderr.splitlines() if line and "Loading weights" not in line]
    assert process.stdout == "False\n" and len(lines) == 1 and lines[0].startswith("Converting the text tower")


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


@pytest.mark.parametrize(
    ("name", "cause"),
    [("align", "the image tower of this AlignModel"), ("siglip2", "patches of each image's own number")],
)
def test_a_tower_that_cannot_be_converted_is_refused(family_folders, name, cause):
    model, processor = load(family_folders(name), backend="openvino")
    with pytest.raises(ValueError, match=f"{cause}.*Use `--backend torch`"):
        embed(model, processor, "image", 3)


def test_gradients_and_copies_by_torch(family_folders):
    model, processor = load(family_folders("lotlip"), backend="openvino")
    assert image_features(model, prepare_images(processor, IMAGES[:2])).requires_grad
    embeds = embed(model, processor, "text", 7)
    copied = copy.deepcopy(model)
    assert copied.embedding_backend is None
    torch.testing.assert_close(embed(copied, processor, "text", 7), embeds, rtol=0, atol=1e-6)


def test_a_table_is_searched_with_the_backend_that_made_it(family_folders, tmp_path):
    model, processor = load(family_folders("lotlip"), backend="openvino")
    notes = {"model_name_or_path": str(family_folders("lotlip"))}
    table = EmbeddingTable.create(tmp_path / "table", 32, model_settings(model, processor), notes)
    with pytest.raises(ValueError, match="backend = 'openvino', this run has 'torch'"):
        table.check_model(*load(family_folders("lotlip")))
    arguments = SearchModelArguments()
    open_table(tmp_path / "table", arguments)
    assert arguments.backend == "openvino" and open_table(None, arguments := SearchModelArguments()) is None
    assert arguments.backend == "torch"


def test_int8_depends_on_no_other_text(family_folders, cache):
    """It is calibrated on texts of its own, once for a model. Images are bfloat16."""
    folder = family_folders("lotlip")
    plain, processor = load(folder, backend="torch")
    model, _ = load(folder, dtype="int8")
    settings = model_settings(model, processor)
    assert (settings["dtype"], settings["backend"], model.dtype) == ("int8", "openvino", torch.float32)
    texts = [" ".join((WORDS * 4)[start : start + length]) for start in range(8) for length in range(1, 41)]
    embeds, expected = (embed_texts(each, tokenize(processor, texts)) for each in (model, plain))
    cosines = (embeds * expected).sum(dim=-1)
    assert 0.8 < cosines.min() < 1 - 1e-5 and cosines.mean() > 0.98  # ranges are rough where a tower has 32 dimensions
    again, _ = load(folder, dtype="int8")
    torch.testing.assert_close(embed_texts(again, tokenize(processor, texts[:1])), embeds[:1], rtol=0, atol=1e-3)
    assert len(list(cache.glob("*/tower.xml"))) == 1
    # the texts are other ones where the tokenizer is
    again, other = load(folder, dtype="int8")
    other.tokenizer.model_max_length = 9
    embed(again, other, "text", 3)
    assert len(list(cache.glob("*/tower.xml"))) == 2
    images = (
        embed(each, processor, "image", 3) for each in (model, load(folder, backend="openvino", dtype="bf16")[0])
    )
    torch.testing.assert_close(*images, rtol=0, atol=0.02)


def test_excluded_pairs_and_a_missing_package(family_folders, monkeypatch):
    with pytest.raises(ValueError, match="--dtype float16 is not for --backend openvino"):
        load(family_folders("lotlip"), backend="openvino", dtype="float16")
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs openvino: `pip install \"lotlip\[openvino\]\"`"):
        load(family_folders("lotlip"), backend="openvino")
    monkeypatch.setattr(models, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(ImportError, match=r"needs nncf: `pip install \"lotlip\[int8\]\"`"):
        load(family_folders("lotlip"), dtype="int8")
    assert not hasattr(load(family_folders("lotlip"))[0], "embedding_backend")
