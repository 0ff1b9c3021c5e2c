"""Laid out as transformers' own tree has it, the model is what it is in this package."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.test_hub import LOAD
from tests.upstream import lay_out as lay_out_upstream
from tests.upstream.lay_out import (
    INSTALLED,
    MODEL,
    SOURCE,
    copy_installed,
    lay_out,
    register,
    run_tests,
    substitute,
    without,
)


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the installed transformers with the model in it."""
    folder = tmp_path_factory.mktemp("tree")
    installed = {file: file.read_bytes() for file in INSTALLED.glob("models/auto/*.py")}
    copy_installed(folder)
    lay_out(folder)
    assert installed == {file: file.read_bytes() for file in INSTALLED.glob("models/auto/*.py")}
    return folder


def test_is_a_model_of_the_library(tree, model_dir, tmp_path):
    for source, path in (("package", ROOT), ("tree", tree / "src")):
        environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", LOAD, source, tmp_path / source, model_dir]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    package, tree = load_file(tmp_path / "package"), load_file(tmp_path / "tree")
    assert package.keys() == tree.keys()
    for name, tensor in package.items():
        assert torch.equal(tensor, tree[name]), name


def test_passes_its_tests(tree):
    assert run_tests(tree, "-n0", "-k", "configuration or processing or separators or save or resize or towers") == 0


def test_nothing_of_the_package_is_left(tree):
    for file in [*(tree / MODEL).glob("*.py"), *(tree / "tests").rglob("*.py")]:
        text = file.read_text()
        assert not re.search(
            r"(from|import|-m) modeling_lotlip|_MODELS_WITH_LOGIT_SCALE|register_for_auto|auto_map", text
        ), file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                assert (file.parent / f"{node.module}.py").is_file(), (file, node.module)
    page = (tree / "docs/source/en/model_doc/lotlip.md").read_text()
    assert "[[autodoc]] LotlipModel\n    - forward\n" in page and "clamped" not in page
    assert all(link.startswith("https://") for link in re.findall(r"\]\((.*?)\)", page)) and "](https://" in page


def test_follows_the_rules_of_the_library(tree):
    command = [sys.executable, "-m", "mlinter", "--no-cache", MODEL, "tests/models/lotlip"]
    assert subprocess.run(command, cwd=tree).returncode == 0


def test_nothing_is_written_where_it_cannot_be_whole(tree, tmp_path, monkeypatch):
    for error, message in (
        (OSError("read-only"), "Nothing more is written: read-only"),
        (ValueError("no list"), "Nothing more is written: no list"),
        (KeyboardInterrupt(), "Stopped. Files are there whole or not at all"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(lay_out_upstream, "tidy", fail)
        monkeypatch.setattr(sys, "argv", ["lay_out_upstream.py", "--output_dir", str(tmp_path / "out")])
        with pytest.raises(SystemExit, match=message):
            lay_out_upstream.main()
        assert not (tmp_path / "out").exists()


def test_an_own_folder_gets_the_lists_of_the_installed_version(tmp_path):
    lay_out(tmp_path)
    lists = tmp_path / SOURCE / "models/auto/modeling_auto.py"
    text = lists.read_text()
    lists.write_text(text.replace("LotlipModel", "OlderModel"))
    lay_out(tmp_path)
    assert lists.read_text() == text


def test_a_second_time_changes_nothing(tree):
    files, left_out = lay_out(tree)
    texts = [(tree / file).read_text() for file in files]
    assert lay_out(tree) == (files, left_out)
    assert [(tree / file).read_text() for file in files] == texts
    assert texts[files.index(SOURCE / "models/auto/modeling_auto.py")].count('("lotlip", "LotlipModel")') == 2


def test_pieces():
    names = 'NAMES = OrderedDict(\n    [\n        ("a", 1),\n        ("m", 2),\n    ]\n)\n'
    for entry, place in (('("b", 3)', 1), ('("z", 3)', 2), ('("A", 3)', 0)):
        entries = register(names, "NAMES", entry).splitlines()[2:-2]
        assert entries[place] == f"        {entry}," and len(entries) == 3
    with pytest.raises(ValueError, match="no list `OTHER`"):
        register(names, "OTHER", '("b", 3)')
    with pytest.raises(ValueError, match="2 places"):
        substitute("a a", "a", "b", "file")

    kept = "class A:\n    def __init__(self):\n        self.y = 2\n"
    code = f"X = 1\n# of f\n@d\ndef f():\n    return X\n{kept}        X.add(self)\n"
    assert without(code, {"X"}) == (kept, ["f"])


def test_refuses_a_folder_with_other_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr(sys, "argv", ["lay_out_upstream.py", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        lay_out_upstream.main()
    assert "neither a checkout of transformers nor an empty folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
