"""The files of a folder, by keys that are the same on every system."""

import os
from collections import Counter

from modeling_lotlip.data.folder import find_image_files, scan_folder


def use_backslashes(monkeypatch) -> None:
    """Makes relative paths look as on Windows."""
    relative_path = os.path.relpath
    monkeypatch.setattr(os, "sep", "\\")
    monkeypatch.setattr(os.path, "relpath", lambda *args: relative_path(*args).replace("/", "\\"))


def test_names_have_slashes_on_windows(tmp_path, monkeypatch):
    (tmp_path / "more" / "new").mkdir(parents=True)
    (tmp_path / "more" / "empty").mkdir()
    (tmp_path / "more" / "new" / "3.jpg").write_bytes(b"")
    use_backslashes(monkeypatch)
    scan = scan_folder(tmp_path)
    assert list(scan.files) == ["more/new/3.jpg"]
    assert scan.empty_folders == {"more/empty"}


def test_splits_are_found_on_windows(tmp_path, monkeypatch):
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "1.png").write_bytes(b"")
    use_backslashes(monkeypatch)
    files = find_image_files(tmp_path)
    assert Counter({split: len(names) for split, names in files.items()}) == {"train": 1, "test": 1}
