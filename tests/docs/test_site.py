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
    "name", ["", ".losses", ".metrics", ".sub_captions", ".hub", ".convert_lotlip_to_hf", ".modeling_lotlip"]
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
    texts = [
        text
        for line in section.splitlines()
        for text in re.findall(r"`([^`]+)`", line.split("|")[1:2][0] if "|" in line else "")
    ]
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
    assert "| `--split_seed` | Shuffle the rows" in sections["evaluate"] and "`PHOTOS`" in sections["search"]
    assert "(default: 64)" in sections["embed"] and "| `--k` |" not in sections["embed"]


fill = runpy.run_path(str(ROOT / "docs/measured.py"))["fill"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_measurements(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text, ROOT / "docs" / "measured") == text, "run `python docs/measured.py`"


def test_a_block_is_replaced_by_the_table_of_its_variants(tmp_path):
    (tmp_path / "embed.json").write_text(
        '{"machine": {"processor": "P", "instructions": "AVX512", "threads": 2, "torch": "2.13", "date": "D",'
        ' "commit": "C"}, "tables": [{"title": "8 images", "rows": {"original": {"median": 2, "ratio": 1},'
        ' "float32": {"median": 1.004, "ratio": 1.99}}}]}'
    )
    page = "a\n<!-- measured: embed original float32 none -->\nold\n<!-- /measured -->\nb"
    filled = fill(page, tmp_path)
    assert "| 8 images | 2.00 s | 1.00 s (1.99 x) |  |" in filled and "old" not in filled
    assert "`embed.py`: P, AVX512, 2 threads, torch 2.13, D, commit C." in filled
    assert fill(filled, tmp_path) == filled and fill(page, tmp_path / "nowhere") == page
    whole = fill("<!-- measured: embed -->\n<!-- /measured -->", tmp_path)
    assert "| 8 images | median, s | ratio |" in whole and "| float32 | 1 | 1.99 |" in whole


def test_recalls_are_means_over_seeds_with_their_range(tmp_path):
    (tmp_path / "other.json").write_text(
        '{"data": "scenes", "seeds": [0, 1], "steps": 5, "torch": "2.13", "date": "D", "commit": "C",'
        ' "recalls": [{"model": "CLIP", "trained": "short", "long_t2i_recall@1": [1.0, 2.5]}]}'
    )
    filled = fill("<!-- measured: other -->\n<!-- /measured -->", tmp_path)
    assert "| model | trained on | long T2I R@1 |" in filled and "| CLIP | short | 1.8 (1.0-2.5) |" in filled


DRAWN = runpy.run_path(str(ROOT / "docs/plots.py"))
LIGHT, SERIES, svg_plot = (DRAWN[name] for name in ("LIGHT", "SERIES", "svg_plot"))
IMAGES = ROOT / "docs/images"


def texts(path) -> list[str]:
    """Everything that is written in an SVG file, its description included."""
    return [element.text for element in ElementTree.parse(path).iter() if (element.text or "").strip()]


@pytest.mark.parametrize("name", DRAWN["PLOTS"])
def test_plots_are_those_of_the_tables(name, tmp_path):
    DRAWN["PLOTS"][name](tmp_path)
    assert texts(tmp_path / f"{name}.svg") == texts(IMAGES / f"{name}.svg"), "run `python docs/plots.py`"
    pages = [(ROOT / "docs" / page).read_text() for page in ("reproduce.md",)]
    assert sum(f"](images/{name}.svg)" in page for page in pages) == 1


def test_numbers_are_read_from_the_right_cells():
    assert DRAWN["mean_and_deviation"]("47.1 ± 11.9") == (47.1, 11.9)
    with pytest.raises(ValueError, match="performance.md has no table 0 under 'Elsewhere'"):
        DRAWN["read_table"]("performance.md", "Elsewhere", 0)


def test_every_colour_follows_the_mode(tmp_path):
    with svg_plot(tmp_path / "plot.svg", "Two & more bars.", num_columns=2) as (left, right):
        left.bar(["a", "b"], [1, 2], color=SERIES[:2], label="bars")
        left.axvline(1, color=LIGHT["ink"])
        left.legend()
        left.set_title("title")
        right.annotate("text", (0.5, 0.5))
    content = (tmp_path / "plot.svg").read_text()
    style = re.search(r"<style>svg .*?</style>", content, re.DOTALL)[0]
    assert "@media (prefers-color-scheme: dark)" in style
    drawn = content.replace(style, "")
    assert not re.search(r"#[0-9a-fA-F]{6}\b", drawn)
    names = set(re.findall(r"var\(--(\w+)\)", drawn))
    assert {"paper", "ink", "first", "second"} <= names and all(f"--{name}:" in style for name in names)
    # a text without a colour of its own would be black in dark mode, too
    assert all("var(--ink)" in text for text in re.findall(r"<text [^>]*>", drawn))
    assert "Two & more bars." in texts(tmp_path / "plot.svg")
