"""
How openly code is written, in figures: where much is said in one line, where a function asks much of its reader, and
where a docstring keeps a shape or an argument to itself. A figure says where to read. Say one thing after another,
with good names, until it is within its goal; a line that is only split is no easier to read.

    python -m tests.clarity                         the figures of the package, the examples and the tests
    python -m tests.clarity "nested comprehension"  where they are, the files with most of them first
"""

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


ROOT = Path(__file__).parents[1]
FOLDERS = ("modeling_lotlip", "examples", "tests")

MAX_COLUMNS = 104
MAX_LINES = 60
MAX_ARGUMENTS = 8
MAX_COMPLEXITY = 12
NUM_ARGUMENTS_TO_DESCRIBE = 4

LONG_LINE = f"line of more than {MAX_COLUMNS} columns"
SEVERAL_ASSIGNMENTS = "several assignments in one"
NESTED_COMPREHENSION = "nested comprehension"
CONDITIONAL_EXPRESSION = "conditional expression"
WALRUS = "walrus"
TRICK = "truth value as a number, or starred condition"
MESSAGE_IN_PARTS = "message in parts"
COMPOUND_ASSERT = "compound assert"
COMPLEX_FUNCTION = f"function of a complexity above {MAX_COMPLEXITY}"
LONG_FUNCTION = f"function of more than {MAX_LINES} lines"
MANY_ARGUMENTS = f"function of more than {MAX_ARGUMENTS} arguments"
NO_SHAPE = "public function of tensors without a shape"
NO_ARGS = f"public function of {NUM_ARGUMENTS_TO_DESCRIBE} arguments or more without Args"
UNKNOWN_ARGUMENT = "description of an argument that is not there"
NO_DESCRIPTION = "class whose Args leave an argument out"
REPEATED_NAME = "public name that several files define"

# The max number of places for 1,000 lines of code
GOALS_PER_1000_LINES = {
    LONG_LINE: 35.0,
    SEVERAL_ASSIGNMENTS: 2.0,
    NESTED_COMPREHENSION: 1.5,
    CONDITIONAL_EXPRESSION: 12.0,
    WALRUS: 1.0,
    COMPLEX_FUNCTION: 2.0,
    LONG_FUNCTION: 2.0,
    MANY_ARGUMENTS: 0.6,
}
# The max number of places in all. The name that several files may define is `run`, of each command
GOALS_IN_ALL = {
    TRICK: 0,
    MESSAGE_IN_PARTS: 0,
    COMPOUND_ASSERT: 0,
    NO_SHAPE: 0,
    NO_ARGS: 0,
    UNKNOWN_ARGUMENT: 0,
    NO_DESCRIPTION: 0,
    REPEATED_NAME: 3,
}
# What differs in other folders: an example is a program by itself, and nobody calls a test
OTHER_GOALS_PER_1000_LINES = {
    "tests": {CONDITIONAL_EXPRESSION: 6.0, LONG_FUNCTION: 1.0, MANY_ARGUMENTS: 0.5, COMPOUND_ASSERT: 3.0},
}
RULES_LEFT_OUT = {
    "examples": {REPEATED_NAME},
    "tests": {NO_SHAPE, NO_ARGS, UNKNOWN_ARGUMENT, NO_DESCRIPTION, REPEATED_NAME},
}

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Names of what is put together to a message later, so that nobody finds it by its words
MESSAGE_NAMES = {"cause", "remedy", "reason", "why", "known", "wrong", "problem", "message"}
TENSOR_TYPE = re.compile(r"\b(Tensor|LongTensor|FloatTensor|ndarray)\b")
# "(batch, dim)", "shape" or "scalar"
SHAPE = re.compile(r"\(\s*[\w.*+]+(\s*,\s*[\w.*+ ]+)*,?\s*\)|\b(shape|scalar)\b")
# up to the next line that begins with a word
ARGS_SECTION = re.compile(r"^Args:\n((?: .*\n|\n)*)", re.MULTILINE)
# "name:" or "name (`type`):", but not a line of the description below it
ARGUMENT = re.compile(r"^ {4}(\w+)(?: \(.*\))?:", re.MULTILINE)


@dataclass
class Clarity:
    """
    Holds what was found in the files of a folder.

    Attributes:
        num_lines (`int`): The lines of code, without blank ones, comments and docstrings.
        places (`dict[str, list[tuple[str, int]]]`): By rule, the files and lines.
    """

    num_lines: int = 0
    places: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))

    def per_1000_lines(self, rule: str) -> float:
        """Returns the number of places for 1,000 lines of code."""
        return 1000 * len(self.places[rule]) / max(1, self.num_lines)


@cache
def measure(folder: Path) -> Clarity:
    """Measures all files of a folder but those that a program generates."""
    clarity = Clarity()
    definitions = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "automatically generated from" in text[:600]:
            continue
        name = path.relative_to(folder.parent).as_posix()
        tree = ast.parse(text)
        docstrings = find_docstring_lines(tree)
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.strip().startswith("#") or number in docstrings:
                continue
            clarity.num_lines += 1
            if len(line) > MAX_COLUMNS:
                clarity.places[LONG_LINE].append((name, number))
        for node in ast.walk(tree):
            for rule in list_rules(node, docstrings):
                clarity.places[rule].append((name, node.lineno))
        for node in tree.body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                definitions[node.name].append((name, node.lineno))
    for places in definitions.values():
        if len(places) > 1:
            clarity.places[REPEATED_NAME].append(places[0])
    return clarity


def find_docstring_lines(tree: ast.Module) -> set[int]:
    """Finds the lines that docstrings are on."""
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.update(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def list_rules(node: ast.AST, docstrings: set[int]) -> Iterator[str]:
    """Yields the rules that a node of the syntax is a place of."""
    if isinstance(node, ast.Assign) and is_several_assignments(node):
        yield SEVERAL_ASSIGNMENTS
    if isinstance(node, ast.Assign) and is_part_of_a_message(node):
        yield MESSAGE_IN_PARTS
    if isinstance(node, COMPREHENSIONS) and is_nested(node):
        yield NESTED_COMPREHENSION
    if isinstance(node, ast.IfExp):
        yield CONDITIONAL_EXPRESSION
    if isinstance(node, ast.NamedExpr):
        yield WALRUS
    if isinstance(node, ast.Starred) and isinstance(node.value, ast.IfExp):
        yield TRICK
    is_product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    if is_product and (is_truth_value(node.left) or is_truth_value(node.right)):
        yield TRICK
    if isinstance(node, ast.Assert) and isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And):
        yield COMPOUND_ASSERT
    if isinstance(node, FUNCTIONS):
        yield from list_rules_of_function(node, docstrings)
    if isinstance(node, ast.ClassDef):
        yield from list_rules_of_class(node)


def is_several_assignments(node: ast.Assign) -> bool:
    """Whether it is one as `a, b = 1, []`. An exchange, `a, b = b, a`, is not, nor what a call returns."""
    target = node.targets[0]
    if not isinstance(target, ast.Tuple) or not isinstance(node.value, ast.Tuple):
        return False
    names = Counter(ast.unparse(element) for element in target.elts)
    values = Counter(ast.unparse(element) for element in node.value.elts)
    return names != values


def is_part_of_a_message(node: ast.Assign) -> bool:
    """Whether it is one as `cause = f"..."`."""
    target = node.targets[0]
    if not isinstance(target, ast.Name) or target.id not in MESSAGE_NAMES:
        return False
    return isinstance(node.value, (ast.Constant, ast.JoinedStr, ast.IfExp))


def is_nested(comprehension: ast.AST) -> bool:
    """Whether a comprehension has two loops, or another one within."""
    if len(comprehension.generators) > 1:
        return True
    return any(isinstance(node, COMPREHENSIONS) for node in ast.walk(comprehension) if node is not comprehension)


def is_truth_value(node: ast.AST) -> bool:
    """Whether it is a comparison, or a call of `bool`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "bool"
    return isinstance(node, ast.Compare)


def list_rules_of_function(function: ast.FunctionDef | ast.AsyncFunctionDef, docstrings: set[int]) -> Iterator[str]:
    """Yields the rules that a function is a place of."""
    arguments = list_arguments(function)
    lines = set(range(function.lineno, function.end_lineno + 1)) - docstrings
    if len(lines) > MAX_LINES:
        yield LONG_FUNCTION
    if len(arguments) > MAX_ARGUMENTS:
        yield MANY_ARGUMENTS
    if count_branches(function) >= MAX_COMPLEXITY:
        yield COMPLEX_FUNCTION
    if function.name.startswith("_"):
        return
    docstring = ast.get_docstring(function) or ""
    described = list_described_arguments(docstring)
    catch_all = [argument.arg for argument in (function.args.vararg, function.args.kwarg) if argument is not None]
    if described - {argument.arg for argument in arguments} - set(catch_all):
        yield UNKNOWN_ARGUMENT
    types = [argument.annotation for argument in arguments if argument.annotation is not None]
    if function.returns is not None:
        types.append(function.returns)
    has_tensors = any(TENSOR_TYPE.search(ast.unparse(annotation)) for annotation in types)
    if has_tensors and not SHAPE.search(docstring):
        yield NO_SHAPE
    if len(arguments) >= NUM_ARGUMENTS_TO_DESCRIBE and not described:
        yield NO_ARGS


def list_rules_of_class(definition: ast.ClassDef) -> Iterator[str]:
    """Yields the rules that a class is a place of. Its Args are those of `__init__`, or its fields."""
    names = {
        node.target.id
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names = {argument.arg for argument in list_arguments(node)}
    described = list_described_arguments(ast.get_docstring(definition) or "")
    if described and names - described:
        yield NO_DESCRIPTION


def list_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    """Lists the arguments of a function that have names."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument for argument in arguments if argument.arg not in ("self", "cls")]


def list_described_arguments(docstring: str) -> set[str]:
    """Lists the arguments that the section `Args:` of a docstring describes."""
    section = ARGS_SECTION.search(f"{docstring}\n")
    if section is None:
        return set()
    return set(ARGUMENT.findall(section[1]))


def count_branches(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Counts where a function may go another way: its cyclomatic complexity (McCabe, 1976) less 1."""
    count = 0
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def find_excesses(folder: str) -> dict[str, float]:
    """Finds the figures of a folder of the repository that are above their goals, by rule."""
    clarity = measure(ROOT / folder)
    goals_per_1000_lines = GOALS_PER_1000_LINES | OTHER_GOALS_PER_1000_LINES.get(folder, {})
    excesses = {}
    for rule, goal in goals_per_1000_lines.items():
        figure = clarity.per_1000_lines(rule)
        if figure > goal:
            excesses[rule] = round(figure, 1)
    for rule, goal in GOALS_IN_ALL.items():
        figure = len(clarity.places[rule])
        if rule not in goals_per_1000_lines and figure > goal:
            excesses[rule] = figure
    for rule in RULES_LEFT_OUT.get(folder, ()):
        excesses.pop(rule, None)
    return excesses


def print_figures() -> None:
    """Prints every figure of every folder, and marks those above their goals."""
    for folder in FOLDERS:
        clarity = measure(ROOT / folder)
        excesses = find_excesses(folder)
        print(f"{folder}: {clarity.num_lines:,} lines of code")
        for rule in (*GOALS_PER_1000_LINES, *GOALS_IN_ALL):
            mark = "above its goal" if rule in excesses else ""
            print(f"  {rule:56}{len(clarity.places[rule]):6}{clarity.per_1000_lines(rule):8.1f}  {mark}")


def print_places(beginning: str) -> None:
    """Prints the places of the rules that begin so, the files with most of them first."""
    for folder in FOLDERS:
        for rule, places in measure(ROOT / folder).places.items():
            if rule.startswith(beginning):
                counts = Counter(name for name, _ in places)
                for name, line in sorted(places, key=lambda place: (-counts[place[0]], place)):
                    print(f"{name}:{line}: {rule}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_places(sys.argv[1])
    else:
        print_figures()
