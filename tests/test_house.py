"""The rules of the layout, read from the imports: who may use what."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.clarity import FOLDERS as MEASURED_FOLDERS
from tests.clarity import find_excesses


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "modeling_lotlip"
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
MODEL_FILES = sorted(path.stem for path in PACKAGE.glob("*_lotlip.py"))
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
MODEL = "the model"  # the room of the files beside the folders


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions; `from a import b` gives `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = []
            if node.level > 0:
                parts += package[: len(package) - node.level + 1]
            if node.module is not None:
                parts.append(node.module)
            names |= {".".join([*parts, alias.name]) for alias in node.names}
    return names


def room_of(path: Path) -> str:
    """The folder of the package that a file is in."""
    return name_room(path.relative_to(PACKAGE).parts[0])


def name_room(name: str) -> str:
    """The room of a folder of the package, or of a file beside the folders."""
    if name in FOLDERS:
        return name
    return MODEL


def rooms_imported(path: Path) -> set[str]:
    """The rooms of the package that a file imports from."""
    rooms = set()
    for module in imported(path):
        package, _, name = module.partition(".")
        if package == "modeling_lotlip":
            rooms.add(name_room(name.split(".")[0]))
    return rooms


# The floors of the house, from the ground up: a file imports from its own floor and from those below
FLOORS = [
    {"utils"},
    {MODEL},
    {"data", "losses", "metrics"},
    {"encoder"},
    {"table"},
    {"training", "align", "interpolation", "evaluation", "captioning"},
    {"search", "serving"},
    {"commands"},
]


def floor_of(room: str) -> int:
    return next(floor for floor, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_generated_model_files_import_only_each_other(name):
    """They are copied to the Hub and into transformers' tree, where nothing else of the package is."""
    modules = [module.split(".") for module in imported(PACKAGE / f"{name}.py")]
    own = {module[1] for module in modules if module[0] == "modeling_lotlip"}
    assert own <= set(MODEL_FILES)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_imports_from_a_higher_floor(path):
    floor = floor_of(room_of(path))
    higher = {room for room in rooms_imported(path) if floor_of(room) > floor}
    assert higher == set()


def test_rooms_do_not_import_in_a_circle():
    uses = {}
    for path in FILES:
        uses.setdefault(room_of(path), set()).update(rooms_imported(path))
    graph = {room: rooms - {room} for room, rooms in uses.items()}
    # raises a CycleError that names the rooms
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(graph)


def any_of(module: str, names: set[str]) -> bool:
    """Whether a module, or something in it, is among absolute names."""
    return any(name == module or name.startswith(f"{module}.") for name in names)


def name_module(path: Path) -> str:
    """The name by which a file of the package is imported; of an `__init__.py`, that of its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(path: Path, modules: set[str]) -> set[str]:
    """Which of some modules a file imports itself, or something in them."""
    found = set()
    for name in imported(path):
        while name not in modules and "." in name:
            name = name.rpartition(".")[0]
        if name in modules:
            found.add(name)
    return found


def test_files_do_not_import_in_a_circle():
    """Imports inside functions and for annotations count. The package's own `__init__` brings its parts together."""
    modules = {name_module(path) for path in FILES}
    graph = {name_module(path): modules_imported(path, modules) for path in FILES}
    # raises a CycleError that names the files
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == modules


EXAMPLES = sorted(path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_import_the_installed_package_alone(path):
    siblings = {file.stem for file in EXAMPLES} | {"examples", "scaffold", "tests"}
    if path.parts[0] == "benchmarks":  # one program with a scaffold for its files
        siblings.remove("scaffold")
    names = {name.partition(".")[0] for name in imported(ROOT / "examples" / path)}
    assert not names & siblings
    assert not any_of("modeling_lotlip.commands", imported(ROOT / "examples" / path))


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_examples_end_in_one_line_after_a_mistake(path):
    """Instead of a traceback; train_lotlip.py parses by itself, to be read and changed."""
    if path.name == "train_lotlip.py":
        return
    text = (ROOT / "examples" / path).read_text(encoding="utf-8")
    assert "__main__" not in text or f'with exit_on_error("{path.name}"):' in text


def test_no_message_puts_a_full_stop_behind_that_of_an_error():
    """An error of another library may end in one: see `without_stop`."""
    followed_by_stop = re.compile(r"\{(?:str\()?(?:\w+\.)?(?:error|message|problem|failure|detail)\)?\}\.")
    found = []
    for path in FILES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if followed_by_stop.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert found == []


def test_datasets_are_spelled_in_one_way():
    """As Hugging Face does, also where a line ends between the two parts."""
    two_words = re.compile(r"\bdata[\s#\"-]+sets?\b", re.IGNORECASE)
    endings = (".html", ".ipynb", ".md", ".mjs", ".py")
    found = []
    for folder in ("modeling_lotlip", "examples", "docs", "tests"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            if path.suffix in endings and two_words.search(path.read_text(encoding="utf-8")):
                found.append(path.relative_to(ROOT).as_posix())
    assert found == []


def test_tests_are_skipped_for_data_and_programs_from_elsewhere_alone():
    """Each of these names what it needs; of a dependency the lack is an error."""
    skips = re.compile(r"pytest\.(?:mark\.)?(?:skip|skipif|importorskip|xfail)\(")
    found = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        count = len(skips.findall(path.read_text(encoding="utf-8")))
        if count > 0:
            found[path.relative_to(ROOT / "tests").as_posix()] = count
    assert found == {
        "common.py": 1,  # a small checkpoint of the original
        "encoder/test_onnx.py": 3,  # Node, and a registry of npm that answers, in time
        "examples/test_align.py": 2,  # what Windows does not have
        "examples/test_reproduce.py": 1,  # ImageInWords
        "test_convert.py": 1,  # the shapes of the released checkpoints
    }


@pytest.mark.parametrize("folder", MEASURED_FOLDERS)
def test_code_is_written_openly(folder):
    """`python -m tests.clarity "RULE"` lists the places of a rule that has more of them than its goal."""
    assert find_excesses(folder) == {}
