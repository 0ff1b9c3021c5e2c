"""What is stored is known by the code that made it, where that is of no library."""

import importlib.util
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from modeling_lotlip import LotlipModel
from modeling_lotlip.encoder.hashes import describe_architecture, hash_model, hash_processor, read_code
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.image_features import hash_image_side
from modeling_lotlip.utils.plugins import load_plugin
from tests.conftest import build_lotlip, tiny_config


SOURCE = """
from modeling_lotlip import LotlipModel, LotlipProcessor

class Model(LotlipModel):
    def embed_images(self, *args, **kwargs):
        return {sign} super().embed_images(*args, **kwargs)

class Processor(LotlipProcessor):
    pass
"""


@pytest.fixture
def load_code(tmp_path, monkeypatch):
    """Writes a file of a user, and returns it as a module, as if the program had begun anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(sign: str):
        (tmp_path / "method_of_a_test.py").write_text(SOURCE.format(sign=sign))
        sys.modules.pop("method_of_a_test", None)
        importlib.invalidate_caches()
        return importlib.import_module("method_of_a_test")

    yield load
    sys.modules.pop("method_of_a_test", None)


def test_the_same_weights_with_other_code_are_another_model(load_code):
    model, processor = build_lotlip()
    hashes = []
    for sign in ("+", "-", "+"):
        code = load_code(sign)
        model.__class__ = code.Model
        processor.__class__ = code.Processor
        image_side = hash_image_side(ContrastiveModel(model))
        hashes.append((hash_model(model), image_side, hash_processor(processor)))
    assert hashes[0] == hashes[2]
    for first, second in zip(hashes[0], hashes[1]):
        assert first != second


def test_a_model_of_the_package_is_known_by_its_weights_alone(model_dir):
    models = [LotlipModel.from_pretrained(model_dir) for _ in range(2)]
    assert hash_model(models[0]) == hash_model(models[1])


@pytest.mark.parametrize(("field", "value"), [("num_attention_heads", 4), ("hidden_dropout_prob", 0.7)])
def test_an_architecture_is_what_is_computed_with_whatever_weights(field, value):
    first = describe_architecture(LotlipModel(tiny_config()))
    assert describe_architecture(LotlipModel(tiny_config())) == first
    config = tiny_config()
    assert getattr(config.text_config, field) != value
    setattr(config.text_config, field, value)
    assert describe_architecture(LotlipModel(config)) != first


def test_an_architecture_has_the_code_of_a_model(load_code):
    model, _ = build_lotlip()
    described = []
    for sign in ("+", "-"):
        model.__class__ = load_code(sign).Model
        described.append(describe_architecture(model))
    assert described[0]["code"] != described[1]["code"]


def write_code_of_a_model(folder, body: str, name: str = "modeling_of_a_test"):
    """Writes code as transformers keeps that of a repository, and returns its class."""
    package = folder / "transformers_modules" / "repository"
    package.mkdir(parents=True, exist_ok=True)
    # that of transformers has one, and would go before a folder without
    (package.parent / "__init__.py").touch()
    (package / f"{name}.py").write_text(f"from .parts_of_a_test import part\n\nclass Model:\n    {body}\n")
    (package / "parts_of_a_test.py").write_text("part = 1\n")
    spec = importlib.util.spec_from_file_location(f"transformers_modules.repository.{name}", package / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Model


@pytest.fixture
def without_modules_of_tests():
    """Those of earlier tests lie in another folder: they are put aside, and back after it."""
    earlier = {name: module for name, module in sys.modules.items() if name.startswith("transformers_modules")}
    for name in earlier:
        del sys.modules[name]
    yield
    for name in list(sys.modules):
        if name.startswith("transformers_modules"):
            del sys.modules[name]
    sys.modules.update(earlier)


def test_code_that_nothing_imports_is_not_of_a_model(tmp_path, monkeypatch, without_modules_of_tests):
    """The folder gets more files when they are asked for, as those of sentence-transformers."""
    monkeypatch.syspath_prepend(tmp_path)
    model = write_code_of_a_model(tmp_path, "value = 1")
    before = read_code([model])
    (tmp_path / "transformers_modules" / "repository" / "custom_st.py").write_text("value = 2")
    assert read_code([model]) == before
    assert len(before) == 2


def test_what_the_code_of_a_model_imports_is_of_it(tmp_path, monkeypatch, without_modules_of_tests):
    monkeypatch.syspath_prepend(tmp_path)
    model = write_code_of_a_model(tmp_path, "value = 1")
    before = read_code([model])
    (tmp_path / "transformers_modules" / "repository" / "parts_of_a_test.py").write_text("part = 2\n")
    assert read_code([model]) != before


class SavedProcessor:
    """A processor that is one file, with the ends of lines of an operating system."""

    def __init__(self, line_end: str):
        self.line_end = line_end

    def save_pretrained(self, folder: str) -> None:
        Path(folder, "vocab.txt").write_text("[CLS]\nboat\n", newline=self.line_end)


def test_a_processor_has_one_hash_on_windows_and_elsewhere():
    assert hash_processor(SavedProcessor("\r\n")) == hash_processor(SavedProcessor("\n"))


@pytest.fixture
def import_class(tmp_path, monkeypatch):
    """Writes a module with a class to a folder, and returns the class."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = []

    def load(folder, name: str, source: str) -> type:
        monkeypatch.syspath_prepend(folder)
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        names.append(name)
        return importlib.import_module(name).Part

    yield load
    for name in names:
        sys.modules.pop(name)


def test_the_file_of_a_base_class_of_a_user_is_read(tmp_path, import_class):
    import_class(tmp_path, "base_of_a_test", "class Part:\n    value = 1\n")
    part = import_class(tmp_path, "part_of_a_test", "import base_of_a_test\n\nclass Part(base_of_a_test.Part): ...\n")
    assert b"class Part:\n    value = 1\n" in read_code([part])


@pytest.mark.parametrize("changed", ["plugin_of_a_test", "helper_of_a_test"])
def test_the_code_of_a_class_of_a_plugin_is_all_that_its_file_imports(load_modules, tmp_path, changed):
    """Wherever the class is, and nothing of what imports it."""
    sources = {
        "helper_of_a_test": "value = 1\n",
        "part_of_a_test": "from helper_of_a_test import value\n\nclass Part: ...\n",
        "plugin_of_a_test": "import part_of_a_test\n\nclass Part(part_of_a_test.Part): ...\n",
    }
    codes = []
    for more in ("", "\nother = 2\n"):
        load_modules(sources | {changed: sources[changed] + more})
        module = load_plugin(tmp_path / "plugin_of_a_test.py")
        codes.append((read_code([module.Part]), read_code([module.part_of_a_test.Part])))
    assert len(codes[0][0]) == 3
    assert len(codes[0][1]) == 2
    assert codes[0][0] != codes[1][0]
    assert (codes[0][1] != codes[1][1]) == (changed == "helper_of_a_test")


def test_a_library_is_not_read_wherever_pip_has_installed_it(tmp_path, import_class):
    """As `pip install --target`, and beside it in the same folder a file of a user."""
    information = tmp_path / "library_of_a_test-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: library_of_a_test\nVersion: 1.0\n")
    (information / "RECORD").write_text("library_of_a_test.py,sha256=abc,20\n")
    library_part = import_class(tmp_path, "library_of_a_test", "class Part: ...\n")
    own = "import library_of_a_test\n\nclass Part(library_of_a_test.Part): ...\n"
    part = import_class(tmp_path, "part_of_a_test", own)
    assert read_code([part, library_part]) == [own.encode()]


def test_a_library_in_the_environment_is_not_read():
    assert read_code([Dataset]) == []
