"""Laid out as transformers' own tree has it, the model is what it is in this package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_lotlip.convert_lotlip_to_hf import write_original
from tests.conftest import ROOT, save_small_model
from tests.test_hub import LOAD
from tests.upstream.lay_out import (
    INSTALLED,
    MODEL,
    PACKAGE,
    PAGE,
    SOURCE,
    TESTS,
    copy_installed,
    lay_out,
    make_package_files,
)


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
        environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", LOAD, source, tmp_path / source, model_dir]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    package, tree = load_file(tmp_path / "package"), load_file(tmp_path / "tree")
    assert package.keys() == tree.keys()
    for name, tensor in package.items():
        assert torch.equal(tensor, tree[name]), name


# Loads a folder in the tree, saves it with the original's names, and loads these by all classes that read them.
LOAD_ORIGINAL = """
import sys
import torch
from safetensors.torch import load_file
from transformers import LotlipConfig, LotlipModel, LotlipTextModel, LotlipTextModelWithProjection
from transformers import LotlipVisionModel, LotlipVisionModelWithProjection

converted, saved, original = sys.argv[1:]
expected = LotlipModel.from_pretrained(converted).state_dict()
model = LotlipModel(LotlipConfig.from_pretrained(converted))  # one that is loaded would keep the names of its file
model.load_state_dict(expected)
model.save_pretrained(saved)
names, checkpoint = load_file(f"{saved}/model.safetensors"), torch.load(original)
assert names.keys() == checkpoint.keys() and all(torch.equal(names[name], checkpoint[name]) for name in names)
for model_class, prefix in (
    (LotlipModel, ""), (LotlipTextModel, "text_model."), (LotlipTextModelWithProjection, ""),
    (LotlipVisionModel, "vision_model."), (LotlipVisionModelWithProjection, ""),
):
    model, info = model_class.from_pretrained(saved, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert all(torch.equal(tensor, expected[prefix + name]) for name, tensor in model.state_dict().items())
"""


def test_checkpoints_with_the_original_names(tree, tmp_path):
    """The library's list of renamings, made of the converter's tables, does what the converter does, bit by bit."""
    save_small_model(tmp_path / "small")
    write_original(tmp_path / "small", tmp_path / "model.pt")
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    folders = [tmp_path / "small", tmp_path / "saved", tmp_path / "model.pt"]
    subprocess.run([sys.executable, "-c", LOAD_ORIGINAL, *folders], cwd=tmp_path, env=environment, check=True)


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
    assert "CLIP" not in generated and "hub_lotlip" not in generated
    # every public class is on the page
    public = set(re.findall(r'^    "(Lotlip\w+)",$', (tree / MODEL / "modular_lotlip.py").read_text(), re.MULTILINE))
    documented = set(re.findall(r"^\[\[autodoc\]\] (\w+)", (tree / PAGE).read_text(), re.MULTILINE))
    assert public - documented == {"LotlipPreTrainedModel"} and documented <= public


def test_follows_the_rules_of_the_library(tree):
    command = [sys.executable, "-m", "mlinter", "--no-cache", MODEL, "tests/models/lotlip"]
    assert subprocess.run(command, cwd=tree).returncode == 0


def test_a_second_time_changes_nothing(tree):
    files = lay_out(tree)
    texts = [(tree / file).read_text() for file in files]
    assert lay_out(tree) == files
    assert [(tree / file).read_text() for file in files] == texts
    assert texts[files.index(SOURCE / "models/auto/modeling_auto.py")].count('("lotlip", "LotlipModel")') == 2
