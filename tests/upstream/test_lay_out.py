"""Laid out as transformers' own tree has it, the model is what it is in this package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import python_environment
from tests.test_hub import LOAD
from tests.upstream.lay_out import INSTALLED, MODEL, PACKAGE, PAGE, SOURCE, TESTS, lay_out, make_package_files


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the installed transformers with the model in it."""
    folder = tmp_path_factory.mktemp("tree")
    installed = {file: file.read_bytes() for file in INSTALLED.glob("models/auto/*.py")}
    lay_out(folder)
    assert installed == {file: file.read_bytes() for file in INSTALLED.glob("models/auto/*.py")}
    return folder


def test_is_a_model_of_the_library(tree, model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", "package", str(tmp_path / "package"), str(model_dir)])
    exec(LOAD, {})
    command = [sys.executable, "-c", LOAD, "tree", tmp_path / "tree", model_dir]
    subprocess.run(command, cwd=tmp_path, env=python_environment(PYTHONPATH=tree / "src"), check=True)
    package = load_file(tmp_path / "package")
    tree = load_file(tmp_path / "tree")
    assert package.keys() == tree.keys()
    for name, tensor in package.items():
        assert torch.equal(tensor, tree[name]), name


def test_generated_files_are_those_of_the_modular_file():
    """`make modular` after each change of it."""
    for file, text in make_package_files().items():
        assert (PACKAGE / file).read_text(encoding="utf-8") == text, file


def test_laid_out_files(tree):
    files = {file.name for file in (tree / MODEL).glob("*.py")}
    parts = ("configuration", "image_processing", "image_processing_pil", "modeling", "modular", "processing")
    assert files == {f"{part}_lotlip.py" for part in (*parts, "tokenization")} | {"__init__.py"}
    for file in [*(tree / MODEL).glob("*.py"), *(tree / TESTS).glob("*.py"), tree / PAGE]:
        text = file.read_text()
        assert not re.search(r"from modeling_lotlip|from transformers\.models|register_for_auto|DATE", text), file
    for file in (tree / TESTS).glob("*.py"):
        assert not re.search(r"hypothesis|peft|accelerate|import ftfy", file.read_text()), file
    generated = (tree / MODEL / "modeling_lotlip.py").read_text()
    assert "automatically generated from src/transformers/models/lotlip/modular_lotlip.py" in generated
    assert "CLIP" not in generated
    assert "hub_lotlip" not in generated
    # every public class is on the page
    public = set(re.findall(r'^    "(Lotlip\w+)",$', (tree / MODEL / "modular_lotlip.py").read_text(), re.MULTILINE))
    documented = set(re.findall(r"^\[\[autodoc\]\] (\w+)", (tree / PAGE).read_text(), re.MULTILINE))
    assert public - documented == {"LotlipPreTrainedModel"}
    assert documented <= public


def test_follows_the_rules_of_the_library(tree):
    command = [sys.executable, "-m", "mlinter", "--no-cache", MODEL, "tests/models/lotlip"]
    done = subprocess.run(command, cwd=tree)
    assert done.returncode == 0


def test_a_second_time_changes_nothing(tree):
    files = lay_out(tree)
    texts = [(tree / file).read_text() for file in files]
    assert lay_out(tree) == files
    assert [(tree / file).read_text() for file in files] == texts
    assert texts[files.index(SOURCE / "models/auto/modeling_auto.py")].count('("lotlip", "LotlipModel")') == 2
