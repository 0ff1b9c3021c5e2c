"""Damaged and hostile files: refused in words, soon, and without the memory that they ask for."""

import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import PIL.Image
import pytest
from datasets import Image, load_dataset
from datasets.exceptions import DatasetGenerationError
from safetensors import SafetensorError

from modeling_lotlip import (
    LotlipConfig,
    LotlipImageProcessor,
    LotlipImageProcessorPil,
    LotlipModel,
    LotlipProcessor,
    LotlipTextConfig,
    LotlipTokenizer,
    LotlipVisionConfig,
)


ROOT = Path(__file__).resolve().parents[1]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "car"]
VOCAB = {word: index for index, word in enumerate(WORDS)}
DEEP = "[" * 100_000
NOT_JSON = {"cut off": '{"model": {"voc', "text": "hello", "empty": "", "binary": b"\xff\xfe\0", "deep": DEEP}
NOT_JSON |= {"list": "[]", "null": "null"}


def write(file: Path, content: str | bytes) -> None:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


# Tokenizer


TOKENIZERS = {
    "no model": {"model": None},
    "model is a list": {"model": []},
    "added tokens are a number": {"added_tokens": 3},
    "added token without id": {"added_tokens": [{"content": "a"}]},
    "normalizer is a number": {"normalizer": 3},
    "normalizer without settings": {"normalizer": {"type": "BertNormalizer"}},
    "other model": {"model": {"type": "BPE"}},
    "type is a number": {"model": {"type": 3}},
    "vocab is a list": {"model": {"vocab": [WORDS]}},
    "no vocab": {"model": {"vocab": None}},
    "vocab is empty": {"model": {"vocab": {}}},
    "negative id": {"model": {"vocab": {**VOCAB, "red": -1}}},
    "id is a float": {"model": {"vocab": {**VOCAB, "red": 5.0}}},
    "hole": {"model": {"vocab": {**VOCAB, "red": 4_294_967_295}}},
    "two words of one id": {"model": {"vocab": {**VOCAB, "red": 6}}},
}


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("name", [*NOT_JSON, *TOKENIZERS])
def test_tokenizer_json(tmp_path, name, has_config):
    LotlipTokenizer(vocab=VOCAB).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    if not has_config:
        (tmp_path / "tokenizer_config.json").unlink()
    message = "tokenizer.json` is not a file of a WordPiece tokenizer|vocabulary"
    if name in NOT_JSON:
        content = NOT_JSON[name]
    else:
        fields, content = TOKENIZERS[name], json.loads(file.read_text())
        if fields.get("model"):
            fields = {"model": {**content["model"], **fields["model"]}}
        content = json.dumps({**content, **fields})
    write(file, content)
    with pytest.raises(ValueError, match=message):
        LotlipTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "words lacks the `unk_token`"),
        (b"\0" * 1000, "lacks the `unk_token`"),
        (b"red\ncar", "lacks the `unk_token`"),
        (random.Random(0).randbytes(1000), "vocab.txt` is not a file of a WordPiece tokenizer"),
    ],
)
def test_vocab_txt(tmp_path, content, message):
    file = tmp_path / "vocab.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        LotlipTokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_with_a_repeated_line_is_accepted(tmp_path):
    write(tmp_path / "vocab.txt", "\n".join([*WORDS, "red"]))
    tokenizer = LotlipTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert tokenizer("red car") == LotlipTokenizer.from_pretrained(tmp_path / "saved")("red car")


@pytest.mark.parametrize(
    "fields",
    [{"sep_token": ""}, {"sep_token": 3}, {"unk_token": ""}, {"model_max_length": -5}, {"model_max_length": []}],
)
def test_tokenizer_config_json(tmp_path, fields):
    LotlipTokenizer(vocab=VOCAB).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    write(file, json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be"):
        LotlipTokenizer.from_pretrained(tmp_path)


# Configuration


@pytest.mark.parametrize("name", ["cut off", "text", "empty", "binary"])
def test_config_json(tmp_path, name):
    write(tmp_path / "config.json", NOT_JSON[name])
    for cls in (LotlipConfig, LotlipModel):
        with pytest.raises(OSError, match=r"config\.json.*not a valid JSON file"):
            cls.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (LotlipTextConfig, {"hidden_size": "a"}, "'hidden_size' expected int, got str"),
        (LotlipTextConfig, {"hidden_size": None}, "'hidden_size' expected int, got NoneType"),
        (LotlipTextConfig, {"hidden_size": 768.5}, "'hidden_size' expected int, got float"),
        (LotlipTextConfig, {"hidden_size": -768}, r"`hidden_size` \(-768\) must be positive"),
        (LotlipTextConfig, {"num_attention_heads": 0}, r"`num_attention_heads` \(0\) must be positive"),
        (LotlipTextConfig, {"num_hidden_layers": -1}, r"`num_hidden_layers` \(-1\)"),
        (LotlipTextConfig, {"vocab_size": 0}, r"`vocab_size` \(0\) must be positive"),
        (LotlipVisionConfig, {"patch_size": 0}, r"`patch_size` \(0\) must be positive"),
        (LotlipVisionConfig, {"image_size": [224, -224]}, r"`image_size` \(\[224, -224\]\) must be positive"),
        (LotlipVisionConfig, {"image_size": [224]}, "must be a number, or a pair"),
        (LotlipVisionConfig, {"image_size": []}, "must be a number, or a pair"),
        (LotlipVisionConfig, {"projection_dim": 0}, r"`projection_dim` \(0\) must be positive"),
        (LotlipConfig, {"text_config": "a"}, "'text_config'"),
        (LotlipConfig, {"vision_config": [1]}, "'vision_config'"),
    ],
)
def test_configurations_of_wrong_values(tmp_path, cls, fields, message):
    write(tmp_path / "config.json", json.dumps({"model_type": cls.model_type, **fields}))
    for load in (lambda: cls(**fields), lambda: cls.from_pretrained(tmp_path)):
        with pytest.raises(Exception, match=message) as raised:
            load()
        assert type(raised.value).__name__ in ("ValueError", "StrictDataclassFieldValidationError")


# Image processors

IMAGE_SETTINGS = [
    ({"crop_size": 10**6}, "1,000,000,000,000 pixels, more than"),
    ({"crop_size": {"height": 40_000, "width": 40_000}}, "1,600,000,000 pixels, more than"),
    ({"size": {"shortest_edge": 30_000}}, "900,000,000 pixels, more than"),
    ({"size": {"shortest_edge": 9_000}}, r"`size` \{'shortest_edge': 9000\} makes an image of 162,000,000 pixels"),
    ({"size": {"height": 10**5, "width": 10**5}}, "10,000,000,000 pixels, more than"),
    ({"size": {"shortest_edge": -3}}, "`size` must be positive"),
    ({"size": "a"}, "Could not convert size"),
    ({"crop_size": {"height": 0, "width": 4}}, "`crop_size` must be positive"),
    ({"crop_size": None}, "`crop_size` must be specified"),
    ({"image_std": [0.0, 0.0, 0.0]}, "`image_std` must not be zero"),
    ({"image_mean": "a"}, "`image_mean` must be finite numbers, got 'a'"),
    ({"rescale_factor": float("nan")}, "`rescale_factor` must be finite numbers, got nan"),
]


@pytest.mark.parametrize("cls", [LotlipImageProcessor, LotlipImageProcessorPil])
@pytest.mark.parametrize(("fields", "message"), IMAGE_SETTINGS)
def test_preprocessor_config_json(tmp_path, cls, fields, message):
    cls().save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    write(file, json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(ValueError, match=message):
        cls.from_pretrained(tmp_path)(PIL.Image.new("RGB", (50, 100)))


def test_processor_config_json(tmp_path):
    LotlipProcessor(LotlipImageProcessor(), LotlipTokenizer(vocab=VOCAB)).save_pretrained(tmp_path)
    file = tmp_path / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"]["crop_size"] = 10**6
    write(file, json.dumps(content))
    with pytest.raises(ValueError, match="pixels, more than"):
        LotlipProcessor.from_pretrained(tmp_path)(images=PIL.Image.new("RGB", (50, 40)), text="red")
    write(file, json.dumps(content)[:100])
    with pytest.raises(OSError, match="processor_config.json' is not a valid JSON file"):
        LotlipProcessor.from_pretrained(tmp_path)


# Weights


def weights_file(entry: dict, num_bytes: int = 8, header_bytes: int | None = None) -> bytes:
    header = json.dumps({"logit_scale": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, **entry}).encode()
    return struct.pack("<Q", len(header) if header_bytes is None else header_bytes) + header + bytes(num_bytes)


def entry(*data_offsets: int, shape: tuple[int, ...] = ()) -> dict:
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": data_offsets}}


WEIGHTS = {
    "enormous header": weights_file({}, header_bytes=2**60),
    "header of all bits": weights_file({}, header_bytes=2**64 - 1),
    "overlapping": weights_file(entry(0, 4)),
    "beyond the end": weights_file(entry(4, 2**40, shape=(2**38 - 1,))),
    "more than can be counted": weights_file(entry(4, 8, shape=(2**62, 4))),
    "backwards": weights_file(entry(8, 4)),
    "no tensor": weights_file({"a": 3}),
    "deep": struct.pack("<Q", len(DEEP)) + DEEP.encode(),
    "empty": b"",
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(model_dir, tmp_path, name):
    shutil.copy(model_dir / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS[name])
    with pytest.raises((SafetensorError, OSError)):
        LotlipModel.from_pretrained(tmp_path)


# Memory

# Tries what asks for more memory than there is, under a limit that would end it, and prints what became of it.
ENORMOUS = """
import json
import resource
import sys
from pathlib import Path

resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))

import modeling_lotlip
from modeling_lotlip import *

folder, told = Path(sys.argv[1]), {}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attempt(name, load):
    try:
        load()
    except Exception as error:
        told[name] = [type(error).__name__, str(error)]
    else:
        told[name] = ["loaded", ""]


for name, load in {
    "tokenizer.json": lambda: LotlipTokenizer.from_pretrained(folder / "sparse"),
    "vocab.txt": lambda: LotlipTokenizer.from_pretrained(folder / "words"),
    "bomb": lambda: LotlipImageProcessor()(str(folder / "bomb.png")),
}.items():
    attempt(name, load)
told["growth in MiB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps(told))
"""


def test_enormous_requests_take_no_memory(tmp_path):
    for name, folder in (("tokenizer.json", "sparse"), ("vocab.txt", "words")):
        (tmp_path / folder).mkdir()
        with open(tmp_path / folder / name, "wb") as file:
            file.truncate(10**10)  # takes no room on the disk
    PIL.Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ENORMOUS, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("growth in MiB") < 200
    messages = {name: message for name, (_, message) in told.items()}
    for name in ("tokenizer.json", "vocab.txt"):
        assert name in messages[name] and "10,000,000,000 bytes" in messages[name]
    assert "bomb.png" in messages["bomb"] and "exceeds limit" in messages["bomb"]


# Archives


def png(color: str = "red") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), color).save(file, "png")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder some levels deep, with a secret beside it and another above."""
    folder = tmp_path / "a" / "b" / "data"
    folder.mkdir(parents=True)
    for file in (folder.parent / "secret.png", folder.parent / "secret.txt", tmp_path / "secret.txt"):
        file.write_bytes(png("blue") + b"SECRET")
    monkeypatch.chdir(folder)
    return folder


def read(place: Path, builder: str, image_column: str, streaming: bool, **source) -> list[dict]:
    """All rows with their images as they are in the files; whatever is written is written into the cache."""
    root = place.parents[2]
    before = set(root.rglob("*"))
    try:
        data = load_dataset(
            builder, split="train", streaming=streaming, cache_dir=str(place.parent / "cache"), **source
        )
        rows = list(data.cast_column(image_column, Image(decode=False)))
    finally:
        written = set(root.rglob("*")) - before
        assert all(path.is_relative_to(place.parent / "cache") for path in written), written
        assert not [path for path in written if path.is_symlink()]
    assert "SECRET" not in repr(rows)
    return rows


both_ways = pytest.mark.parametrize("streaming", [True, False])


@both_ways
@pytest.mark.parametrize("name", ["../../evil", "../../../../../../evil", "{root}/evil"])
def test_tar_members_outside_stay_inside(place, streaming, name):
    name = name.format(root=place.parents[1])
    with tarfile.open(place / "shard.tar", "w") as tar:
        for member in ("good", name):
            add(tar, f"{member}.png", content=png())
            add(tar, f"{member}.txt", content=b"a boat")
    rows = read(place, "webdataset", "png", streaming, data_files=str(place / "shard.tar"))
    assert [row["__key__"] for row in rows] == ["good", name]
    assert all(row["png"]["bytes"] == png() for row in rows), "bytes of the archive, not of a file at that path"


@both_ways
@pytest.mark.parametrize("target", ["/etc/passwd", "../secret.txt", "{root}/secret.txt"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_tar_links_are_not_followed(place, streaming, kind, target):
    target = target.format(root=place.parents[2])
    with tarfile.open(place / "shard.tar", "w") as tar:
        for member in ("first", "last"):
            add(tar, f"{member}.png", content=png())
            add(tar, f"{member}.txt", content=b"a boat")
            add(tar, f"{member}_link.png", kind, link=target)
            add(tar, f"{member}_link.txt", kind, link=target)
    rows = read(place, "webdataset", "png", streaming, data_files=str(place / "shard.tar"))
    assert [row["__key__"] for row in rows] == ["first", "last"] and "root:" not in repr(rows)


def odd_shards() -> dict[str, bytes]:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        add(tar, "good.png", content=png())
        add(tar, "dev.png", tarfile.CHRTYPE)
        add(tar, "dev.txt", content=b"a boat")
    larger = tarfile.TarInfo("larger.png")
    larger.size = 8 * 1024**3 - 1
    good = whole.getvalue()[: 2 * tarfile.BLOCKSIZE]
    return {
        "device": whole.getvalue(),
        "larger than the file": good + larger.tobuf() + b"short",
        "cut off": good[:600],
        "garbage": b"garbage" * 1000,
        "empty": b"",
    }


@both_ways
@pytest.mark.parametrize("name", odd_shards())
def test_damaged_shards_are_errors(place, streaming, name):
    (place / "shard.tar").write_bytes(odd_shards()[name])
    with pytest.raises((ValueError, tarfile.ReadError, DatasetGenerationError)):
        read(place, "webdataset", "png", streaming, data_files=str(place / "shard.tar"))


@both_ways
def test_zip_members_outside_stay_inside(place, streaming):
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(place / "pictures.zip", "w") as archive:
        for name in ("good.png", "../../../evil.png", "/evil.png"):
            archive.writestr(name, png())
        archive.writestr(link, str(place.parent / "secret.png"))
    rows = read(place, "imagefolder", "image", streaming, data_files=str(place / "pictures.zip"))
    assert any(row["image"]["path"].startswith("zip://good.png") for row in rows)
    colors = {}
    for row in rows:
        name = row["image"]["path"].split("::")[0]
        try:
            colors[name] = Image().decode_example(row["image"]).getpixel((0, 0))
        except OSError:
            colors[name] = None
    assert colors["zip://good.png"] == (255, 0, 0) and colors["zip://link.png"] is None
    assert set(colors.values()) <= {None, (255, 0, 0)} and not Path("/evil.png").exists()


@both_ways
@pytest.mark.parametrize("name", ["../secret.png", "{root}/secret.png", "file://{root}/secret.png", "http://a/b.png"])
def test_metadata_names_no_file_outside(place, streaming, name):
    (place / "good.png").write_bytes(png())
    rows = [{"file_name": name.format(root=place.parent)}, {"file_name": "good.png"}]
    write(place / "metadata.jsonl", "".join(json.dumps({**row, "caption": "a"}) + "\n" for row in rows))
    with pytest.raises((ValueError, DatasetGenerationError)):
        read(place, "imagefolder", "image", streaming, data_dir=str(place))
