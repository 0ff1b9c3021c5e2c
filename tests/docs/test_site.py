"""The pages of the API: that nothing public is missing on them, and that each argument is described."""

import importlib
import re
from pathlib import Path

import griffe
import pytest


ROOT = Path(__file__).parents[2]
PAGES = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
OBJECTS = re.findall(r"^::: (\S+)$", PAGES, re.MULTILINE)


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    """The package as the site shows it."""
    extensions = griffe.load_extensions(str(ROOT / "docs/docstrings.py"))
    return griffe.load("modeling_lotlip", search_paths=[ROOT], extensions=extensions)


@pytest.mark.parametrize(
    "name", ["", ".losses", ".metrics", ".sub_captions", ".hub", ".convert_lotlip_to_hf", ".modeling_lotlip"]
)
def test_what_is_public_has_a_place(name):
    module = importlib.import_module(f"modeling_lotlip{name}")
    public = [name for name in module.__all__ if callable(getattr(module, name))]
    assert set(public) - {"LotlipPreTrainedModel"} <= {path.split(".")[-1] for path in OBJECTS}


@pytest.mark.parametrize("path", OBJECTS)
def test_every_argument_is_described(path, package):
    shown = package[path.removeprefix("modeling_lotlip.")]
    methods = [member for name, member in shown.members.items() if member.is_function and name[0] != "_"]
    for function in [shown, *(method for method in methods if method.docstring)]:
        text = function.docstring.value
        names = {parameter.name for parameter in function.parameters} - {"self", "cls", "kwargs", "args"}
        described = set(re.findall(r"^`(\w+)`", text, re.MULTILINE))
        assert names <= described, f"{function.path} does not describe {names - described}"
        assert not re.search(
            r"^ *(Args|Parameters|Returns|Raises):|\[`[^`]*`\](?!\[)|\{\w+\}`?\]|\[``", text, re.MULTILINE
        )
