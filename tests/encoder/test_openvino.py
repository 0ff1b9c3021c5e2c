"""Embedding by OpenVINO: the numbers of PyTorch, the cache, and what cannot be computed."""

import ctypes
import gc
import pickle
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from modeling_lotlip import LotlipModel
from modeling_lotlip.encoder import dual_encoder
from modeling_lotlip.encoder.arguments import InferenceArguments
from modeling_lotlip.encoder.backends import openvino
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.table.embed import load_encoder_of_table
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.utils.output_folder import PARTIAL
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
    return load_encoder(str(folder), InferenceArguments(device="cpu", **arguments))


def embed(encoder, kind, number):
    """Embeds so many texts of several lengths, or images."""
    if kind == "text":
        return encoder.embed_texts(encoder.preprocessing.tokenize(TEXTS[-number:]).inputs)
    return encoder.embed_images(encoder.preprocessing.prepare_images(IMAGES[:number]))


@pytest.mark.parametrize(
    ("name", "kind"), [("lotlip", "text"), ("lotlip", "image"), ("clip", "text"), ("siglip", "image")]
)
def test_embeddings_are_those_of_torch_at_every_length(name, kind, family_folders):
    """At other lengths and numbers than the first ones, which the tower was traced and checked with."""
    plain = load(family_folders(name), backend="torch")
    encoder = load(family_folders(name), backend="openvino")
    calls = []
    for number in (2, 7, 1, 3):
        embeds = embed(encoder, kind, number)
        calls.append((embeds - embed(plain, kind, number)).abs().max().item())
    assert encoder.backend.towers.keys() == {kind}
    assert max(calls) <= 1e-6


def test_bfloat16_is_near_the_model_of_torch(family_folders):
    plain = load(family_folders("lotlip"), backend="torch")
    encoder = load(family_folders("lotlip"), backend="openvino", dtype="bf16")
    for kind in ("text", "image"):
        embed(encoder, kind, 2)
        cosines = (embed(encoder, kind, 7) * embed(plain, kind, 7)).sum(dim=-1)
        assert cosines.min() > 0.999
    assert encoder.backend.towers.keys() == {"text", "image"}


def test_cache_is_used_again(family_folders, cache, monkeypatch):
    encoder = load(family_folders("lotlip"), backend="openvino")
    first = embed(encoder, "text", 7)
    (tower,) = cache.glob("float32/*/tower.xml")
    stamp = tower.stat().st_mtime_ns
    monkeypatch.delattr(openvino.OpenvinoBackend, "convert")
    encoder = load(family_folders("lotlip"), backend="openvino")
    torch.testing.assert_close(embed(encoder, "text", 7), first, rtol=0, atol=0)
    assert tower.stat().st_mtime_ns == stamp
    other = load(family_folders("clip"), backend="openvino")
    with pytest.raises(AttributeError, match="convert"):
        embed(other, "text", 7)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(("ending", "kept"), [("bin", 0.5), ("bin", None), ("xml", 0.0)])
def test_a_tower_that_was_damaged_is_converted_anew(
    family_folders, tmp_path, monkeypatch, caplog, dtype, ending, kept
):
    """A file that was cut off, is gone or is empty."""
    monkeypatch.setattr(openvino, "HF_ASSETS_CACHE", tmp_path)
    first = embed(load(family_folders("lotlip"), backend="openvino", dtype=dtype), "text", 7)
    files = sorted(tmp_path.rglob(f"tower.{ending}"))
    assert files
    for file in files:
        content = file.read_bytes()
        file.unlink()
        if kept is not None:
            file.write_bytes(content[: int(kept * len(content))])
    again = embed(load(family_folders("lotlip"), backend="openvino", dtype=dtype), "text", 7)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert "is damaged: it is converted anew" in caplog.text


def test_one_in_8_bits_is_not_made_of_a_damaged_one_in_float32(family_folders, cache, caplog):
    embed(load(family_folders("lotlip"), backend="openvino"), "text", 7)
    (weights,) = cache.glob("float32/*/tower.bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    plain = load(family_folders("lotlip"), backend="torch")
    cosines = embed(load(family_folders("lotlip"), dtype="int8"), "text", 7) * embed(plain, "text", 7)
    assert cosines.sum(dim=-1).min() > 0.99
    assert "is damaged: it is converted anew" in caplog.text


def fail_at_first(encoder, monkeypatch):
    """Lets the towers in 8 bits be too far from PyTorch's, while one is converted."""
    with monkeypatch.context() as context:
        context.setitem(openvino.MIN_COSINES, "int8", 1.1)
        with pytest.raises(ValueError, match="OpenVINO cannot compute the text tower.* has a cosine of 0.99"):
            embed(encoder, "text", 7)


def test_a_tower_that_fails_is_not_converted_at_each_start(family_folders, cache, monkeypatch, caplog):
    fail_at_first(load(family_folders("lotlip"), dtype="int8"), monkeypatch)
    monkeypatch.delattr(openvino.OpenvinoBackend, "convert")
    encoder = load(family_folders("lotlip"), dtype="int8")
    fail_at_first(encoder, monkeypatch)
    assert "damaged" not in caplog.text
    # for inputs that it is right for it is used
    embed(encoder, "text", 7)


def test_a_tower_that_failed_and_is_damaged_is_converted_anew(family_folders, cache, monkeypatch, caplog):
    fail_at_first(load(family_folders("lotlip"), dtype="int8"), monkeypatch)
    (weights,) = cache.glob("int8/*/tower.bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    embed(load(family_folders("lotlip"), dtype="int8"), "text", 7)
    assert "is damaged: it is converted anew" in caplog.text


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_tower_that_another_process_has_converted_anew_is_not_deleted(tmp_path, is_replaced):
    folder = tmp_path / "tower"
    folder.mkdir()
    used = openvino.UsedTowers()
    used.add(folder)
    if is_replaced:
        (tmp_path / "new").mkdir()
        folder.rmdir()
        (tmp_path / "new").rename(folder)
    used.delete()
    assert folder.exists() == is_replaced


def test_what_a_killed_process_has_left_of_a_tower_is_deleted(family_folders, cache):
    encoder = load(family_folders("lotlip"), backend="openvino")
    folder = encoder.backend.locate_tower("text", encoder.preprocessing.tokenize(TEXTS).inputs)
    left = folder.with_name(f"{folder.name}.1{PARTIAL}")
    left.mkdir(parents=True)
    embed(encoder, "text", 7)
    assert folder.exists()
    assert not left.exists()


def test_a_tower_that_cannot_be_written_is_no_tower_that_cannot_be_computed(family_folders, cache, monkeypatch):
    """As on a full disk: another error, which `auto` does not take for a property of the model."""

    def save_model(*args, **options):
        raise RuntimeError("iostream error")

    monkeypatch.setattr(openvino.openvino, "save_model", save_model)
    with pytest.raises(OSError, match="cannot be written, is the disk full"):
        embed(load(family_folders("lotlip"), backend="openvino"), "text", 7)
    assert [path.suffix for path in cache.glob("float32/*")] == [".lock"]


@pytest.fixture
def interruptible():
    """Ctrl-C is raised, also where the tests run in the background of a shell, which ignores it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_ctrl_c_during_a_conversion_is_no_error_of_the_conversion(family_folders, cache, monkeypatch, interruptible):
    """OpenVINO asks Python for each operation, and takes what is raised there for one that it does not know."""

    get_op_type = openvino.TorchScriptPythonDecoder.get_op_type

    def interrupt(decoder):
        signal.raise_signal(signal.SIGINT)
        return get_op_type(decoder)

    monkeypatch.setattr(openvino.TorchScriptPythonDecoder, "get_op_type", interrupt)
    encoder = load(family_folders("lotlip"), backend="openvino")
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, "text", 7)
    assert list(cache.glob("float32/*/tower.xml")) == []


def test_weights_that_change_later_have_no_effect_and_settings_say_so(family_folders):
    encoder = load(family_folders("lotlip"), backend="openvino")
    settings = encoder.settings()
    before = embed(encoder, "text", 3)
    with torch.no_grad():
        encoder.model.text_projection.weight.mul_(-1)
    torch.testing.assert_close(embed(encoder, "text", 3), before, rtol=0, atol=0)
    assert encoder.settings() == settings
    with pytest.raises(ValueError, match="The weights of the model have changed"):
        embed(encoder, "image", 2)


SCRIPT = """
import sys
from modeling_lotlip import DualEncoder
from modeling_lotlip.encoder.backends import openvino
import lancedb  # which warns of forks
openvino.HF_ASSETS_CACHE = sys.argv[2]
DualEncoder.from_pretrained(sys.argv[1], device="cpu", backend="openvino").encode_text("a red boat")
import openvino_telemetry
print(openvino_telemetry.Telemetry().consent)
"""


def test_nothing_is_reported_to_anybody(family_folders, cache):
    command = [sys.executable, "-c", SCRIPT, family_folders("lotlip"), cache.parents[1]]
    process = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in process.stderr.splitlines() if line and "Loading weights" not in line]
    assert process.stdout == "False\n"
    assert len(lines) == 1
    assert lines[0].startswith("Converting the text tower")


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
        encoder = load(family_folders(name), backend="openvino")
        embed(encoder, "text", 2)
        addresses.add(find_signal_stack())
        del encoder
        gc.collect()
        addresses.add(find_signal_stack())
    assert len(addresses) == 1


def test_tower_of_another_model_is_converted_anew(family_folders, cache, caplog, monkeypatch):
    """Whatever lies in the cache is compared with PyTorch before it is used."""
    folder = family_folders("lotlip")
    other = load(folder, backend="torch")
    with torch.no_grad():
        other.model.text_projection.weight.normal_()
    backend = openvino.OpenvinoBackend(other.model, other.family, "float32")
    backend.embed_texts(other.preprocessing.tokenize(TEXTS[-7:]).inputs)
    key = backend.key

    monkeypatch.setattr(openvino.OpenvinoBackend, "key", key)
    encoder = load(folder, backend="openvino")
    expected = embed(load(folder, backend="torch"), "text", 7)
    torch.testing.assert_close(embed(encoder, "text", 7), expected, rtol=0, atol=1e-5)
    assert "is damaged: it is converted anew" in caplog.text


@pytest.mark.parametrize(
    ("name", "cause"),
    [("align", "the image tower of this AlignModel"), ("siglip2", "another number of patches of each image")],
)
def test_a_tower_that_cannot_be_converted_is_refused(family_folders, name, cause):
    encoder = load(family_folders(name), backend="openvino")
    with pytest.raises(ValueError, match=f"{cause}.*Use `--backend torch`"):
        embed(encoder, "image", 3)


def test_a_copy_computes_the_same(family_folders):
    encoder = load(family_folders("lotlip"), backend="openvino")
    embeds = embed(encoder, "text", 7)
    copied = pickle.loads(pickle.dumps(encoder))
    assert copied.backend.towers == {}
    torch.testing.assert_close(embed(copied, "text", 7), embeds, rtol=0, atol=0)


def test_a_table_is_searched_with_the_backend_that_made_it(family_folders, tmp_path):
    encoder = load(family_folders("lotlip"), backend="openvino")
    notes = {"model_name_or_path": str(family_folders("lotlip"))}
    table = EmbeddingTable.create(tmp_path / "table", 32, encoder.settings(), notes)
    with pytest.raises(ValueError, match="backend = 'openvino', this run has 'torch'"):
        table.check_model(load(family_folders("lotlip")))
    arguments = InferenceArguments(backend="auto", dtype="auto")  # also beside a GPU, which OpenVINO does not use
    assert load_encoder_of_table(table, str(family_folders("lotlip")), arguments).backend.name == "openvino"
    assert arguments.device == "cpu"


def test_a_table_that_cannot_be_computed_here_says_how_it_is_made_anew(family_folders, tmp_path, monkeypatch):
    settings = {"backend": "openvino", "dtype": "int8"}
    table = EmbeddingTable.create(tmp_path / "table", 32, settings)
    monkeypatch.setattr(dual_encoder, "find_spec", lambda name: None)
    arguments = InferenceArguments(device="cpu", backend="auto", dtype="auto")
    with pytest.raises(ValueError, match="computed in int8 by OpenVINO, which cannot be .*openvino.* make it anew"):
        load_encoder_of_table(table, str(family_folders("lotlip")), arguments)


@pytest.mark.parametrize("name", ["lotlip", "clip"])
@pytest.mark.parametrize("kind", ["text", "image"])
def test_int8_is_close_to_float32(name, kind, family_folders):
    plain = load(family_folders(name), backend="torch")
    encoder = load(family_folders(name), dtype="int8")
    cosines = (embed(encoder, kind, 8) * embed(plain, kind, 8)).sum(dim=-1)
    assert cosines.min() > 0.99
    assert cosines.min() < 1 - 1e-6, "it is not computed in 8 bits"


def test_int8_depends_on_no_other_text(family_folders):
    encoder = load(family_folders("lotlip"), dtype="int8")
    together = embed(encoder, "text", 8)
    for index, text in enumerate(TEXTS):
        alone = encoder.embed_texts(encoder.preprocessing.tokenize([text]).inputs)
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-3)


def test_int8_is_another_setting_and_another_tower(family_folders, cache):
    folder = family_folders("lotlip")
    encoder = load(folder, dtype="int8")
    assert encoder.settings()["dtype"] == "int8"
    assert encoder.settings()["backend"] == "openvino"
    for dtype in ("int8", "float32", "int8"):
        embed(load(folder, backend="openvino", dtype=dtype), "text", 3)
    assert sorted(tower.parents[1].name for tower in cache.glob("*/*/tower.xml")) == ["float32", "int8"]


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_tower_is_converted_once_for_all_precisions(kind, family_folders, cache, monkeypatch):
    """Each precision of the stored tower is that of a tower that was converted for it alone."""
    folder = family_folders("lotlip")
    alone = embed(load(folder, backend="openvino", dtype="int8"), kind, 3)
    shutil.rmtree(cache)
    embed(load(folder, backend="openvino"), kind, 3)
    monkeypatch.delattr(openvino.OpenvinoBackend, "convert")
    embed(load(folder, backend="openvino", dtype="bfloat16"), kind, 3)
    torch.testing.assert_close(embed(load(folder, dtype="int8"), kind, 3), alone, rtol=0, atol=0)


def test_excluded_pairs_and_a_missing_package(family_folders, monkeypatch):
    with pytest.raises(ValueError, match="--dtype float16 is not for --backend openvino"):
        load(family_folders("lotlip"), backend="openvino", dtype="float16")
    monkeypatch.setattr(dual_encoder, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs openvino: `pip install \"lotlip\[openvino\]\"`"):
        load(family_folders("lotlip"), backend="openvino")
    monkeypatch.setattr(dual_encoder, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(ImportError, match=r"needs nncf: `pip install \"lotlip\[int8\]\"`"):
        load(family_folders("lotlip"), dtype="int8")
    assert load(family_folders("lotlip")).backend.name == "torch"


def test_a_text_without_a_token_is_that_of_pytorch(family_folders):
    """OpenVINO's attention over nothing is not a number."""
    plain = load(family_folders("tipsv2"), backend="torch")
    encoder = load(family_folders("tipsv2"), backend="openvino")
    assert encoder.dim == plain.dim  # the tower is compared with that of PyTorch by a text with a token
    for texts in (["", "a red boat"], [" "]):
        inputs = plain.preprocessing.tokenize(texts).inputs
        torch.testing.assert_close(encoder.embed_texts(inputs), plain.embed_texts(inputs), rtol=0, atol=1e-5)


class OtherLongModel(LotlipModel):
    """Embeds long captions otherwise than short ones, as a class of a user may."""

    def embed_captions(self, **inputs):
        captions = super().embed_captions(**inputs)
        if captions.long is not None:
            captions.long = -captions.long
        return captions


def test_long_texts_are_embedded_in_the_way_of_a_model_that_has_one(model_dir):
    model = OtherLongModel.from_pretrained(model_dir).eval()
    plain = load(model_dir, backend="torch")
    backend = openvino.OpenvinoBackend(model, plain.family, "float32")
    inputs = plain.preprocessing.tokenize(TEXTS).inputs
    expected = plain.embed_texts(inputs)
    for is_long, sign in ((False, 1), (True, -1)):
        embeds = backend.embed_texts(inputs, is_long=is_long)
        torch.testing.assert_close(embeds, sign * expected, rtol=0, atol=1e-6)
