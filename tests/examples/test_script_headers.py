"""What a script says at its top that it needs, by which `uv run` runs it (PEP 723)."""

import ast
import re

import pytest

from tests.conftest import ROOT


HEADER = re.compile(r"^# /// script\n((?:# .*\n)+)# ///$", re.MULTILINE)
# but what the benchmarks import, which is no script
SCRIPTS = [path for path in sorted((ROOT / "examples").rglob("*.py")) if path.name != "scaffold.py"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_needs_the_package_with_extras_that_there_are(path):
    header = HEADER.search(path.read_text(encoding="utf-8"))[1]
    (dependencies,) = re.findall(r"^# dependencies = (.*)$", header, re.MULTILINE)
    package = ast.literal_eval(dependencies)[0]
    name, _, extras = package.removesuffix("]").partition("[")
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    known = re.findall(r'^extras\["([a-z0-9-]+)"\]', setup, re.MULTILINE)
    assert name == "lotlip"
    assert set(filter(None, extras.split(","))) <= set(known)
