"""Files of users, and which of them import which others."""

import sys

import pytest

from modeling_lotlip.utils.user_files import map_user_files


@pytest.mark.parametrize(
    ("source", "is_seen"),
    [
        ("import words_of_a_test\n", True),
        ("import words_of_a_test as words\n", True),
        ("from words_of_a_test import WORDS\n", True),  # a value, which does not know its module
        ("from words_of_a_test import *\n", True),
        ("def read(row):\n    import words_of_a_test\n", True),
        ("from importlib import import_module\nwords = import_module('words_of_a_test')\n", True),
        ("from importlib import import_module\nWORDS = import_module('words_of_a_test').WORDS\n", False),
        ("import json\n", False),
        ("try:\n    from .words import WORDS\nexcept ImportError:\n    import words_of_a_test\n", True),
    ],
)
def test_the_modules_that_a_module_imports_are_of_it(load_modules, source, is_seen):
    load_modules({"words_of_a_test": "WORDS = ['boat']\n"})
    module = load_modules({"reader_of_a_test": source})
    names = [path.stem for path in sorted(map_user_files([module]))]
    assert names == ["reader_of_a_test"] + ["words_of_a_test"] * is_seen


def test_what_an_imported_module_imports_is_of_a_module(load_modules):
    """Also where two modules import each other."""
    sources = {
        "reader_of_a_test": "import helper_of_a_test\n",
        "helper_of_a_test": "import words_of_a_test\nimport reader_of_a_test\n",
        "words_of_a_test": "WORDS = ['boat']\n",
    }
    module = load_modules(sources)
    assert [path.stem for path in sorted(map_user_files([module]))] == sorted(sources)


def test_a_module_in_a_package_is_read_with_what_it_imports_by_a_relative_name(load_modules, tmp_path):
    (tmp_path / "package_of_a_test").mkdir()
    for name, source in {"__init__": "", "reader": "from .words import WORDS\n", "words": "WORDS = []\n"}.items():
        (tmp_path / "package_of_a_test" / f"{name}.py").write_text(source)
    module = load_modules({"own_of_a_test": "from package_of_a_test import reader\n"})
    names = {path.stem for path in map_user_files([module])}
    for name in list(sys.modules):
        if name.startswith("package_of_a_test"):
            sys.modules.pop(name)
    assert names == {"own_of_a_test", "__init__", "reader", "words"}
