"""The rules of the layout, read from the imports: who may use what."""

import ast
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "modeling_lotlip"
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
LIBRARY = [name for name in FOLDERS if name != "commands"]
MODEL_FILES = sorted(path.stem for path in PACKAGE.glob("*_lotlip.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions; `from a import b` gives `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def rooms(path: Path) -> set[str]:
    """The folders of the package that a file imports from."""
    parts = [name.split(".") for name in imported(path)]
    return {part[1] for part in parts if part[0] == "modeling_lotlip" and len(part) > 1 and part[1] in FOLDERS}


@pytest.mark.parametrize("name", MODEL_FILES)
def test_model_files_import_no_folder_and_nothing_else_of_the_package(name):
    parts = [module.split(".") for module in imported(PACKAGE / f"{name}.py")]
    own = {part[1] for part in parts if part[0] == "modeling_lotlip"}
    assert own <= set(MODEL_FILES), own


@pytest.mark.parametrize("folder", LIBRARY)
def test_no_folder_imports_a_command(folder):
    users = [path.name for path in (PACKAGE / folder).rglob("*.py") if "commands" in rooms(path)]
    assert users == []


def test_root_modules_import_no_folder():
    users = {path.name: rooms(path) for path in PACKAGE.glob("*.py") if path.name != "__init__.py" and rooms(path)}
    assert users == {}


def test_arrows_between_folders_run_one_way():
    arrows = {
        folder: set().union(*(rooms(path) for path in (PACKAGE / folder).rglob("*.py"))) - {folder}
        for folder in LIBRARY
    }
    order = []
    while arrows:
        free = [folder for folder, targets in arrows.items() if not targets - set(order)]
        assert free, f"a circle among {arrows}"
        order += free
        arrows = {folder: targets for folder, targets in arrows.items() if folder not in free}
    assert order.index("data") < order.index("embedding") < order.index("evaluation") < order.index("training")


EXAMPLES = sorted(path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_import_the_installed_package_alone(path):
    siblings = {file.stem for file in EXAMPLES} | {"examples", "scaffold", "tests"}
    if path.parts[0] == "benchmarks":  # one program with a scaffold for its files
        siblings.remove("scaffold")
    names = {name.partition(".")[0] for name in imported(ROOT / "examples" / path)}
    assert not names & siblings
    assert not any(name.startswith("modeling_lotlip.commands") for name in imported(ROOT / "examples" / path))


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_end_in_one_line_after_a_mistake(path):
    """Instead of a traceback; train_lotlip.py parses by itself, to be read and changed."""
    if path.name == "train_lotlip.py":
        return
    text = (ROOT / "examples" / path).read_text(encoding="utf-8")
    assert "__main__" not in text or f'with exit_on_error("{path.name}"):' in text


# At most so many lines, generated files apart; a number only falls
BUDGETS = {
    "modeling_lotlip lotlip.py": 16_400,
    "modeling_lotlip/training modeling_lotlip/losses": 2_600,
    "modeling_lotlip/embedding modeling_lotlip/search modeling_lotlip/serving": 3_600,
    "modeling_lotlip/captioning": 1_700,
    "modeling_lotlip/evaluation modeling_lotlip/metrics": 2_200,
    "modeling_lotlip/data": 1_900,
    "modeling_lotlip/modular_lotlip.py": 850,
    "examples": 3_330,
    "examples/train_lotlip.py": 250,
    "tests": 17_000,
}


@pytest.mark.parametrize("room", BUDGETS)
def test_no_room_grows(room):
    paths = [ROOT / name for name in room.split()]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))]
    texts = [file.read_text(encoding="utf-8") for file in files]
    lines = sum(len(text.splitlines()) for text in texts if "automatically generated" not in text[:1500])
    assert 0 < lines <= BUDGETS[room], "what does this change replace?"
