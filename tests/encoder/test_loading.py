"""Files of models on the Hub that are not there, or cannot be looked for."""

import shutil
import time

import pytest
from huggingface_hub import constants, snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

from modeling_lotlip import DualEncoder, LotlipModel, LotlipProcessor
from modeling_lotlip.encoder import loading
from modeling_lotlip.encoder.loading import find_file, has_processor
from tests.helpers.hub_server import HubHandler, hub_server, use_hub


PLAIN = "me/plain"
PROMPTED = "me/prompted"
ADAPTED = "me/adapted"
BASE = "me/base"


@pytest.fixture(scope="module")
def repositories(family_folders, model_dir, tmp_path_factory):
    """A CLIP, one that sentence-transformers saved with a prompt, and adapters with their own processor."""
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(family_folders("clip"), root / PLAIN)
    options = {"prompts": {"query": "a photo of "}, "default_prompt_name": "query", "truncate_dim": 8}
    prompted = SentenceTransformer(str(family_folders("clip")), device="cpu", **options)
    prompted.save_pretrained(str(root / PROMPTED))
    shutil.copytree(model_dir, root / BASE)
    base = LotlipModel.from_pretrained(model_dir)
    base.name_or_path = base.config.name_or_path = BASE
    get_peft_model(base, LoraConfig(target_modules="all-linear")).save_pretrained(root / ADAPTED)
    processor = LotlipProcessor.from_pretrained(model_dir)
    processor.tokenizer.model_max_length = 9
    processor.save_pretrained(root / ADAPTED)
    return root


@pytest.fixture
def hub(repositories, tmp_path, monkeypatch):
    """The Hub, and an empty cache of it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    loading.warn_once.cache_clear()
    with hub_server(repositories) as server:
        use_hub(monkeypatch, server.url)
        yield server


def load_by_transformers(name: str) -> None:
    AutoModel.from_pretrained(name)
    AutoProcessor.from_pretrained(name)


def load(name: str) -> DualEncoder:
    return DualEncoder.from_pretrained(name, device="cpu")


def list_warnings(caplog) -> list[str]:
    return [record.message for record in caplog.records if record.name == loading.__name__]


def download_without_a_list(name: str) -> None:
    """As versions of huggingface_hub did that cached no list of the files."""
    folder = snapshot_download(name)
    shutil.rmtree(f"{folder}/../../trees")


@pytest.mark.parametrize(
    ("name", "get"),
    [(PLAIN, load), (PLAIN, snapshot_download), (PROMPTED, load), (PROMPTED, snapshot_download), (ADAPTED, load)],
)
def test_what_was_loaded_or_downloaded_is_no_news_offline(hub, monkeypatch, caplog, name, get):
    get(name)
    caplog.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    encoder = load(name)
    assert list_warnings(caplog) == []
    assert encoder.dim == (8 if name == PROMPTED else 24 if name == PLAIN else 32)
    assert encoder.max_length == (9 if name == ADAPTED else 77)


def test_adapters_without_a_processor_that_were_downloaded_have_none_offline_either(
    hub, repositories, monkeypatch, caplog, tmp_path
):
    without_processor = shutil.ignore_patterns("*processor*")
    shutil.copytree(repositories / ADAPTED, tmp_path / ADAPTED, ignore=without_processor)
    hub.root = tmp_path
    snapshot_download(ADAPTED)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not has_processor(ADAPTED, None)
    assert list_warnings(caplog) == []


def test_a_whole_download_of_before_is_known_by_a_file_that_nobody_asks_for(
    hub, repositories, monkeypatch, caplog, tmp_path
):
    shutil.copytree(repositories / PLAIN, tmp_path / PLAIN)
    (tmp_path / PLAIN / ".gitattributes").touch()
    hub.root = tmp_path
    download_without_a_list(PLAIN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_file(PLAIN, "modules.json") is None
    assert list_warnings(caplog) == []


@pytest.mark.parametrize("name", [PLAIN, PROMPTED])
def test_what_transformers_alone_has_loaded_is_warned_of_offline_once(hub, monkeypatch, caplog, name):
    load_by_transformers(name)
    caplog.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load(name)
    load(name)
    assert list_warnings(caplog) == [
        f"{name} may have files that say how sentence-transformers embeds with it (a prompt, a limit, dimensions, "
        "modules), and they are not in the cache: load it online once."
    ]


def test_adapters_that_peft_alone_has_loaded_are_warned_of_offline(hub, monkeypatch, caplog):
    load(BASE)
    PeftModel.from_pretrained(LotlipModel.from_pretrained(BASE), ADAPTED)
    caplog.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load(ADAPTED)
    assert f"{ADAPTED} may have files that say how its adapters read texts and images" in caplog.text


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_fails_at_a_file_is_an_error(hub, monkeypatch, status):
    load_by_transformers(PROMPTED)
    send_file = HubHandler.send_file

    def refuse_modules(handler, repo_id, revision, name):
        if name == "modules.json":
            return handler.reply(status=status)
        return send_file(handler, repo_id, revision, name)

    monkeypatch.setattr(HubHandler, "send_file", refuse_modules)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(ValueError, match=f"`--model_name_or_path {PROMPTED}` cannot be used: .* answers {status}"):
        load(PROMPTED)


def test_a_name_that_is_nowhere_is_said_once(hub, monkeypatch, caplog):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="`--model_name_or_path me/nothing` cannot be used"):
        load("me/nothing")
    assert list_warnings(caplog) == []
