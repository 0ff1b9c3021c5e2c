"""What a captioner is, and which ones have a name."""

import pytest

from modeling_lotlip.captioning.arguments import CaptionerArguments
from modeling_lotlip.captioning.captioner import CAPTIONERS, Answer, load_captioner
from modeling_lotlip.captioning.local import LocalCaptioner
from tests.helpers.captioners import list_photos, of_folder


class Namer:
    """Says the name of the file."""

    revision = None

    def __init__(self, name: str, arguments: CaptionerArguments):
        self.settings = {"name": name, "max_new_tokens": arguments.max_new_tokens}

    def answer(self, photos, is_stopped):
        for photo in photos:
            yield photo, Answer(f"A picture that is called {photo.key}.", num_tokens=6)


def test_a_captioner_is_added_in_one_place(caption, photos, monkeypatch):
    monkeypatch.setitem(CAPTIONERS, "namer", Namer)
    rows = caption("out", "namer", **of_folder(photos))
    assert {row["key"]: row["caption"] for row in rows} == {
        key: f"A picture that is called {key}." for key in list_photos(photos)
    }
    assert {(row["captioner"], row["num_tokens"], row["generation_settings"]) for row in rows} == {
        ("namer", 6, '{"name": "namer", "max_new_tokens": 12}')
    }


def test_names_folders_and_revisions(monkeypatch, llava, tmp_path):
    loaded = []
    monkeypatch.setattr(LocalCaptioner, "__init__", lambda self, *arguments: loaded.append(arguments))
    arguments = CaptionerArguments(device="cpu")
    (tmp_path / "a@b").mkdir()
    for name in ("llava", "sharegpt4v@main", "them/model@v1", str(tmp_path / "a@b")):
        load_captioner(name, arguments)
    assert loaded == [
        ("llava-hf/llava-1.5-7b-hf", None, arguments),
        ("Lin-Chen/ShareGPT4V-7B", "main", arguments),
        ("them/model", "v1", arguments),
        (str(tmp_path / "a@b"), None, arguments),
    ]


def test_a_model_of_another_kind_is_refused(photos, model_dir):
    arguments = CaptionerArguments(device="cpu")
    for folder in (photos, model_dir):
        with pytest.raises(ValueError, match=f"`--captioner {folder}` cannot be loaded. It must be one of instructb"):
            load_captioner(str(folder), arguments)
