"""Files of users that commands import."""

import dataclasses
import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from modeling_lotlip.align.arguments import TowersArguments
from modeling_lotlip.captioning.arguments import CaptionerArguments
from modeling_lotlip.commands import COMMANDS
from modeling_lotlip.utils.plugins import Registry, find_plugins, hash_plugin, load_plugin


@pytest.fixture
def write(tmp_path):
    """A function that writes a plugin; its module is forgotten afterwards."""
    names = []
    path_before = list(sys.path)

    def write(name: str, source: str):
        names.append(name)
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    yield write
    sys.path[:] = path_before
    for name in names:
        sys.modules.pop(name, None)


def test_a_plugin_is_imported_once_by_its_name(write):
    path = write("plugin_a", "import random\nnumber = random.random()")
    first = load_plugin(path)
    assert load_plugin(str(path)) is first
    assert sys.modules["plugin_a"].number == first.number


def test_a_plugin_in_a_folder_that_is_imported_from_is_itself(write, monkeypatch):
    path = write("plugin_e", "value = 1")
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.chdir(path.parent)
    assert load_plugin("plugin_e.py").value == 1


@pytest.mark.parametrize(
    "name, source, message",
    [
        ("plugin_b", "import nosuch", r"ModuleNotFoundError: No module named 'nosuch' \(line 1\)"),
        ("plugin_f", "known = {}\n\nknown['a']", r"cannot be imported: KeyError: 'a' \(line 3\)"),
        ("plugin_g", "def divide():\n    return 1 / 0\n\ndivide()", r"ZeroDivisionError: .* \(line 2\)"),
        ("plugin_c", "1 +", "cannot be imported: SyntaxError"),
        (
            "plugin_h",
            "import sys\n\nsys.exit()",
            r"ends the program while it is imported \(line 3\): put what it runs",
        ),
        (
            "plugin_i",
            "import argparse\nargparse.ArgumentParser().parse_args(['-h'])",
            r"ends the program .*\(line 2\)",
        ),
        ("json", "", "has the name of another module, json: rename the file"),
        ("no-name", "", "cannot be imported: rename it"),
    ],
)
def test_what_cannot_be_imported_is_one_line(tmp_path, name, source, message):
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    before = list(sys.path)
    with pytest.raises(ValueError, match=message):
        load_plugin(path)
    sys.path[:] = before


def test_a_plugin_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nosuch.py is no Python file: name a file that ends in .py"):
        load_plugin(tmp_path / "nosuch.py")


def load_with_helper(write, sources: dict[str, str]) -> Path:
    """Writes a plugin, the first one, and what it imports, and imports it as if the program had begun anew."""
    paths = []
    for name, source in sources.items():
        paths.append(write(name, source))
        sys.modules.pop(name, None)
    load_plugin(paths[0])
    return paths[0]


@pytest.mark.parametrize("changed", ["plugin_d", "helper_of_plugin_d"])
def test_a_changed_source_has_another_hash_also_of_what_a_plugin_imports(write, monkeypatch, changed):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sources = {"plugin_d": "from helper_of_plugin_d import a\n", "helper_of_plugin_d": "a = 1\n"}
    hashes = []
    for more in ("", "b = 2\n", ""):
        path = load_with_helper(write, sources | {changed: sources[changed] + more})
        hashes.append(hash_plugin(path))
    assert hashes[0] == hashes[2]
    assert hashes[0] != hashes[1]


def test_a_plugin_of_one_file_has_the_hash_that_earlier_checkpoints_have(write):
    path = write("plugin_o", "import json\nimport modeling_lotlip\n")
    load_plugin(path)
    assert hash_plugin(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_a_plugin_that_pip_has_installed_has_a_hash(write, tmp_path):
    path = write("plugin_q", "a = 1\n")
    information = path.parent / "plugin_q-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin_q\nVersion: 1.0\n")
    (information / "RECORD").write_text("plugin_q.py,sha256=abc,20\n")
    load_plugin(path)
    assert hash_plugin(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_the_hash_of_a_plugin_is_of_what_was_imported(write):
    """A run that goes on for days writes it in checkpoints, while somebody works on the file."""
    sources = {"plugin_p": "def use():\n    import later_of_plugin_p\n", "later_of_plugin_p": "a = 1\n"}
    path = load_with_helper(write, sources)
    before = hash_plugin(path)
    sys.modules["plugin_p"].use()
    path.write_text("changed")
    assert hash_plugin(path) == before
    path.unlink()
    assert hash_plugin(path) == before


@pytest.mark.parametrize(
    "args, expected",
    [
        (["--plugin", "a.py", "b.py", "--seed", "3"], ["a.py", "b.py"]),
        (["--plugin=a.py", "--seed", "3"], ["a.py"]),
        (["--seed", "3", "a.py"], []),
    ],
)
def test_plugins_are_found_on_a_command_line(args, expected):
    assert find_plugins(args) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_loads_a_model_takes_plugins(name):
    """`export` writes graphs of LoTLIP's own towers, and refuses the classes of others."""
    command = importlib.import_module(f"modeling_lotlip.commands.{name}")
    names = set()
    for arguments in command.ARGUMENTS:
        names |= {field.name for field in dataclasses.fields(arguments)}
    models = {"model_name_or_path", "text_model_name_or_path", "captioner", "start"}
    if not models.isdisjoint(names) and name != "export":
        assert "plugin" in names


def test_plugins_of_towers_are_imported(write):
    path = write("plugin_of_towers", "registered = True")
    TowersArguments(text_model_name_or_path="texts", vision_model_name_or_path="images", plugin=[path])
    assert sys.modules["plugin_of_towers"].registered


def test_plugins_of_captioners_are_imported(write):
    path = write("plugin_of_captioners", "registered = True")
    CaptionerArguments(plugin=[path])
    assert sys.modules["plugin_of_captioners"].registered


@pytest.fixture
def registry(monkeypatch):
    """A registry that plugins find as `registry_of_a_test.METHODS`."""
    module = ModuleType("registry_of_a_test")
    module.METHODS = Registry("method", {"ours": 1})
    monkeypatch.setitem(sys.modules, "registry_of_a_test", module)
    return module.METHODS


REGISTER = "from registry_of_a_test import METHODS\n\n"


@pytest.mark.parametrize("statement", ["METHODS['ours'] = 2", "METHODS.update(ours=2)", "METHODS |= dict(ours=2)"])
def test_nothing_of_the_package_is_replaced_however_it_is_set(write, registry, statement):
    with pytest.raises(ValueError, match="The method `ours` is one of this package: rename yours"):
        load_plugin(write("plugin_j", REGISTER + statement))
    assert registry == {"ours": 1}


def test_a_name_that_a_plugin_registers_twice_is_refused(write, registry):
    path = write("plugin_k", REGISTER + "METHODS['mine'] = 2\nMETHODS['mine'] = 3")
    with pytest.raises(ValueError, match=r"The method `mine` is registered twice: .* \(line 4\)"):
        load_plugin(path)


def test_a_name_that_two_plugins_register_is_refused(write, registry):
    load_plugin(write("plugin_l", REGISTER + "METHODS['mine'] = 2"))
    with pytest.raises(ValueError, match="`mine` is registered by plugin_l.py and plugin_m.py: rename"):
        load_plugin(write("plugin_m", REGISTER + "METHODS['mine'] = 3"))
    assert registry["mine"] == 2


def test_a_plugin_that_failed_may_register_its_names_again(write, registry, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = write("plugin_n", REGISTER + "METHODS['mine'] = 2\nMETHODS['other'] = 1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_plugin(path)
    path.write_text(REGISTER + "METHODS['mine'] = 3")
    load_plugin(path)
    assert registry["mine"] == 3


def test_who_tries_something_sets_a_name_again(registry):
    registry["mine"] = 2
    registry["mine"] = 3
    assert registry["mine"] == 3
