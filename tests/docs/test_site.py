"""The pages of the API, of commands and errors, and the tables and plots: that they are those of the code."""

import importlib
import importlib.util
import re
import runpy
from xml.etree import ElementTree

import griffe
import pytest

from modeling_lotlip.commands import COMMANDS
from tests.conftest import ROOT


API = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
OBJECTS = re.findall(r"^::: (\S+)$", API, re.MULTILINE)
# of the modular file, whose docstrings tell arguments in sentences, as the library's do
IN_SENTENCES = {"modeling_lotlip.LotlipTokenizer", "modeling_lotlip.modeling_lotlip.image_text_contrastive_loss"}


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    """The package as the site shows it."""
    extensions = griffe.load_extensions(str(ROOT / "docs/docstrings.py"))
    return griffe.load("modeling_lotlip", search_paths=[ROOT], extensions=extensions)


@pytest.mark.parametrize(
    "name", ["", ".losses", ".metrics", ".utils.sub_captions", ".hub", ".convert_lotlip_to_hf", ".modeling_lotlip"]
)
def test_what_is_public_has_a_place(name):
    module = importlib.import_module(f"modeling_lotlip{name}")
    public = [name for name in module.__all__ if callable(getattr(module, name))]
    assert set(public) - {"LotlipPreTrainedModel"} <= {path.split(".")[-1] for path in OBJECTS}


@pytest.mark.parametrize("path", sorted(set(OBJECTS) - IN_SENTENCES))
def test_every_argument_is_described(path, package):
    shown = package[path.removeprefix("modeling_lotlip.")]
    methods = [member for name, member in shown.members.items() if member.is_function and name[0] != "_"]
    for function in [shown, *(method for method in methods if method.docstring)]:
        text = function.docstring.value
        names = {parameter.name for parameter in function.parameters} - {"self", "cls", "kwargs", "args"}
        described = set(re.findall(r"^`(\w+)`", text, re.MULTILINE))
        if len(names) >= 4 or described:  # of fewer a sentence may say what they are
            assert names <= described, f"{function.path} does not describe {names - described}"
        assert not re.search(
            r"^ *(Args|Parameters|Returns|Raises):|\[`[^`]*`\](?!\[)|\{\w+\}`?\]|\[``", text, re.MULTILINE
        )


def test_errors_of_the_page_of_help_are_those_of_the_code():
    page = (ROOT / "docs/help.md").read_text(encoding="utf-8")
    section = page.partition("## Errors")[2].partition("| text of another library")[0]
    files = [ROOT / "lotlip.py", *(ROOT / "modeling_lotlip").rglob("*.py")]
    # strings that go on in the next line are one
    sources = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text(encoding="utf-8") for path in files))
    sources = re.sub(r"\{[^{}]*\}", "...", sources)
    texts = []
    for line in section.splitlines():
        if "|" in line:
            first_cell = line.split("|")[1]
            texts += re.findall(r"`([^`]+)`", first_cell)
    assert len(texts) >= 3
    for text in texts:
        for part in filter(None, map(str.strip, text.replace("(...)", "...").split("..."))):
            assert part in sources, f"{part!r} of {text!r} is not in the code"


def test_the_page_of_commands_has_every_command_and_argument():
    spec = importlib.util.spec_from_file_location("commands_hook", ROOT / "docs/commands.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown((ROOT / "docs/commands.md").read_text(encoding="utf-8"))
    assert re.findall(r"^## lotlip (\w+)$", page, re.MULTILINE) == list(COMMANDS)
    sections = dict(zip(COMMANDS, re.split(r"^## lotlip ", page, flags=re.MULTILINE)[1:]))
    assert "| `--split_seed` | Shuffle the rows" in sections["evaluate"]
    assert "`PHOTOS`" in sections["search"]
    assert "(default: 64)" in sections["embed"]
    assert "| `--k` |" not in sections["embed"]


fill = runpy.run_path(str(ROOT / "docs/measured.py"))["fill"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_measurements(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text, ROOT / "docs" / "measured") == text, "run `python docs/measured.py`"


DRAWN = runpy.run_path(str(ROOT / "docs/plots.py"))
IMAGES = ROOT / "docs/images"


def texts(path) -> list[str]:
    """Everything that is written in an SVG file, its description included."""
    return [element.text for element in ElementTree.parse(path).iter() if (element.text or "").strip()]


@pytest.mark.parametrize("name", DRAWN["PLOTS"])
def test_plots_are_those_of_the_tables(name, tmp_path):
    DRAWN["PLOTS"][name](tmp_path)
    assert texts(tmp_path / f"{name}.svg") == texts(IMAGES / f"{name}.svg"), "run `python docs/plots.py`"
    assert f"](images/{name}.svg)" in (ROOT / "docs" / "reproduce.md").read_text()
    content = (tmp_path / f"{name}.svg").read_text()
    style = re.search(r"<style>svg .*?</style>", content, re.DOTALL)[0]
    drawn = content.replace(style, "")
    fixed = set(re.findall(r"#[0-9a-fA-F]{6}\b", drawn)) - {"#1f77b4"}  # of lines, which have nothing to fill
    assert "prefers-color-scheme: dark" in style
    assert not fixed
    assert all(f"--{color}:" in style for color in re.findall(r"var\(--(\w+)\)", drawn))
    # a text without a color of its own would be black in dark mode, too
    assert all("var(--ink)" in text for text in re.findall(r"<text [^>]*>", drawn))


ADDRESS = runpy.run_path(str(ROOT / "docs/address.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_how_to_install_is_that_of_the_address(page):
    text = page.read_text(encoding="utf-8")
    filled = ADDRESS["fill"](text, ADDRESS["read_address"](), ADDRESS["read_version"]())
    assert filled == text, "run `python docs/address.py`"


def test_a_released_package_is_installed_by_its_name():
    page = "<!-- install: app -->\nold\n<!-- /install -->\n"
    filled = ADDRESS["fill"](page, "https://example.org/lotlip", "0.1.0")
    assert 'pip install "lotlip[app]"\n' in filled
    assert "(https://example.org/lotlip)" in filled
    assert "old" not in filled


def test_the_citation_has_the_address_once():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    once = ADDRESS["fill_citation"](citation, "https://example.org/lotlip")
    twice = ADDRESS["fill_citation"](once, "https://example.org/lotlip")
    assert twice.count("repository-code: https://example.org/lotlip\n") == 1
    assert ADDRESS["fill_citation"](twice, "") == ADDRESS["fill_citation"](citation, "")
