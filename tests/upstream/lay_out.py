"""
Make the model's files from `modular_lotlip.py`: for this package (`make modular`), or as a model of transformers.

    python -m tests.upstream.lay_out --package
    python -m tests.upstream.lay_out --output_dir ../transformers

`--output_dir` is a checkout of transformers, or an empty folder, which becomes a copy of the installed version. With
`--test` the model's tests run there, with the mixins of the library's own tests, which are in its sources only:

    pip download --no-deps --no-binary transformers transformers==5.24.0
    tar -xf transformers-5.24.0.tar.gz
    python -m tests.upstream.lay_out --output_dir outputs/upstream --test transformers-5.24.0/tests
"""

import argparse
import ast
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import transformers
from pycodelift.adapters.transformers import make_transformers_flattener

from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.utils.files import write_text


HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "modeling_lotlip"
MODULAR = PACKAGE / "modular_lotlip.py"
INSTALLED = Path(transformers.__file__).parent
SOURCE = Path("src/transformers")
MODEL = SOURCE / "models" / "lotlip"
TESTS = Path("tests/models/lotlip")
PACKAGE_TESTS = Path("tests/models/lotlip_package")
PAGE = Path("docs/source/en/model_doc/lotlip.md")

TEST_MODULES = {
    "library_modeling_tests": "test_modeling_lotlip",
    "library_image_processing_tests": "test_image_processing_lotlip",
    "library_processing_tests": "test_processing_lotlip",
    "library_tokenization_tests": "test_tokenization_lotlip",
}

# What the library's source distribution lacks of its tests, so that the others can be imported
LACKING = {
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "tests/utils/tiny_model_summary.json": "{}\n",
    "tests/fixtures/sample_text.txt": "A text.\n",
}

# From this package's way of importing the library to that of the library's own files
IMPORTS = (
    (r"^from transformers import", "from ... import"),
    (r"^from transformers\.models\.", "from .."),
    (r"^from transformers\.", "from ..."),
)

# A line at the head of the modular file: a file of the package, and the base classes that the others take from it
HUB_BASES = re.compile(r"^    (hub\w*_lotlip): (.+)$", re.MULTILINE)

SHORT_LICENSE = "# SPDX-License-Identifier: Apache-2.0\n"
# Which has the library's license and lazy import
TEMPLATE = INSTALLED / "models/siglip/__init__.py"

TOKENIZER = '"LotlipTokenizer" if is_tokenizers_available() else None'
# Lists of the library, by file: the list and the entry
REGISTRIES = {
    "models/auto/auto_mappings.py": (
        ("CONFIG_MAPPING_NAMES", '("lotlip", "LotlipConfig")'),
        ("CONFIG_MAPPING_NAMES", '("lotlip_text_model", "LotlipTextConfig")'),
        ("CONFIG_MAPPING_NAMES", '("lotlip_vision_model", "LotlipVisionConfig")'),
        ("SPECIAL_MODEL_TYPE_TO_MODULE_NAME", '("lotlip_text_model", "lotlip")'),
        ("SPECIAL_MODEL_TYPE_TO_MODULE_NAME", '("lotlip_vision_model", "lotlip")'),
        ("PROCESSOR_MAPPING_NAMES", '("lotlip", "LotlipProcessor")'),
        (
            "IMAGE_PROCESSOR_MAPPING_NAMES",
            '("lotlip", {"pil": "LotlipImageProcessorPil", "torchvision": "LotlipImageProcessor"})',
        ),
    ),
    "models/auto/modeling_auto.py": (
        ("MODEL_MAPPING_NAMES", '("lotlip", "LotlipModel")'),
        ("MODEL_MAPPING_NAMES", '("lotlip_text_model", "LotlipTextModel")'),
        ("MODEL_MAPPING_NAMES", '("lotlip_vision_model", "LotlipVisionModel")'),
        ("MODEL_FOR_IMAGE_MAPPING_NAMES", '("lotlip_vision_model", "LotlipVisionModel")'),
        ("MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES", '("lotlip_text_model", "LotlipTextModel")'),
        ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES", '("lotlip", "LotlipModel")'),
    ),
    "models/auto/tokenization_auto.py": (
        ("TOKENIZER_MAPPING_NAMES", f'("lotlip", {TOKENIZER})'),
        ("TOKENIZER_MAPPING_NAMES", f'("lotlip_text_model", {TOKENIZER})'),
    ),
}

# The list of all models: a line of it, and ours before that
PUBLIC = "models/__init__.py", "    from .lw_detr import *\n", "    from .lotlip import *\n"


def register(text: str, registry: str, entry: str) -> str:
    """Adds an entry to one of the library's sorted lists, if it is not there yet."""
    opening = rf"^{registry}\b[^\n]*= OrderedDict[^\n]*\(\n    \[\n"
    found = re.search(rf"{opening}(.*?)^    \]", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"transformers {transformers.__version__} has no list `{registry}` where it used to be.")
    line = f"        {entry},\n"
    entries = found[1]
    if line in entries:
        return text
    key = ast.literal_eval(re.search(r'"[^"]+"', entry)[0])
    position = found.end(1)
    for other in re.finditer(r'^        \("([^"]+)"', entries, re.MULTILINE):
        if other[1] > key:
            position = found.start(1) + other.start()
            break
    return text[:position] + line + text[position:]


@cache
def convert(modular: str) -> dict[str, str]:
    """The model's files as the library's converter of modular files makes them, by their names, not yet formatted."""
    for pattern, replacement in IMPORTS:
        modular = re.sub(pattern, replacement, modular, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MODEL / "modular_lotlip.py"
        write_text(file, modular)
        converted = make_transformers_flattener().convert(str(file))
    files = {"modular_lotlip.py": modular}
    for part in sorted(converted):
        files[f"{part}_lotlip.py"] = converted[part]
    return files


def import_of_the_package(node: ast.ImportFrom, hub_files: dict[str, str]) -> str:
    """Writes an import of the library's tree as an absolute one, but that base classes come from `hub_files`."""
    module = ["transformers"]
    if node.level == 2:
        module.append("models")
    if node.module:
        module.append(node.module)
    kept = [ast.unparse(alias) for alias in node.names if alias.name not in hub_files]
    swapped = [alias.name for alias in node.names if alias.name in hub_files]
    lines = []
    if kept:
        lines.append(f"from {'.'.join(module)} import {', '.join(kept)}")
    for name in swapped:
        lines.append(f"from .{hub_files[name]} import {name}")
    return "\n".join(lines)


def make_package_files() -> dict[Path, str]:
    """What the library would generate, but that imports are absolute and some base classes are the package's."""
    modular = MODULAR.read_text(encoding="utf-8")
    hub_files = {}
    for file, names in HUB_BASES.findall(modular):
        hub_files |= dict.fromkeys(names.split(", "), file)
    texts = {}
    for name, text in convert(modular).items():
        if name.startswith("modular"):
            continue
        lines = text.replace("src/transformers/models/lotlip/", "modeling_lotlip/").splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                # the same number of lines, so that the other imports stay where the tree says
                lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
                lines[node.lineno - 1] = import_of_the_package(node, hub_files)
        texts[Path(name)] = "\n".join(lines) + "\n"
    return format_files(texts)


def format_files(texts: dict[Path, str]) -> dict[Path, str]:
    """Sorts imports, drops unused ones and formats, by the rules of the library, before anything is written."""
    check = ["check", "--fix", "--select", "F,I001"]
    check += ["--exclude", "__init__.py"]  # its modules are imported for others to use
    check += ["--config", "lint.isort.lines-after-imports=2"]
    check += ["--config", 'lint.isort.known-first-party=["transformers"]']
    options = ["--isolated", "--line-length", "119", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in texts.items():
            write_text(Path(folder) / file, text)
        for words in (check, ["format"]):
            command = [sys.executable, "-m", "ruff", *words, *options, folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise ValueError(f"ruff refuses the files: {done.stderr or done.stdout}")
        return {file: (Path(folder) / file).read_text(encoding="utf-8") for file in texts}


def lay_out(output_dir: str | Path) -> list[Path]:
    """
    Writes the files of the model, of its tests and its page into a tree of transformers, and enters the model into its
    lists; an empty folder first becomes a copy of the installed version, of links to its files. Returns the files.
    """
    output_dir = Path(output_dir)
    if not (output_dir / SOURCE).exists():
        for part in (".", "models", "models/auto"):
            (output_dir / SOURCE / part).mkdir(parents=True, exist_ok=True)
            for source in (INSTALLED / part).iterdir():
                if source.name not in ("__pycache__", "models", "auto"):
                    (output_dir / SOURCE / part / source.name).symlink_to(source)
    template = TEMPLATE.read_text()
    license, lazy_import = re.search(r"(#\n# Licensed.*?)(from typing.*)", template, re.DOTALL).groups()
    modular = MODULAR.read_text(encoding="utf-8").replace(SHORT_LICENSE, license)
    license = modular.partition('"""')[0]
    texts = {MODEL / name: text for name, text in convert(modular).items()}
    generated = [file.stem for file in texts if not file.stem.startswith("modular")]
    imports = "".join(f"    from .{name} import *\n" for name in generated)
    texts[MODEL / "__init__.py"] = license + re.sub(r"(    from \.\w+ import \*\n)+", imports, lazy_import)
    for name, name_there in TEST_MODULES.items():
        texts[TESTS / f"{name_there}.py"] = license + (HERE / f"{name}.py").read_text(encoding="utf-8")
    texts[TESTS / "__init__.py"] = ""
    texts = format_files(texts)
    page = (HERE / "model_page.md").read_text(encoding="utf-8")
    texts[PAGE] = page.replace("DATE", datetime.date.today().isoformat())

    for file, entries in REGISTRIES.items():
        texts[SOURCE / file] = (output_dir / SOURCE / file).read_text(encoding="utf-8")
        for registry, entry in entries:
            texts[SOURCE / file] = register(texts[SOURCE / file], registry, entry)
    file, next_line, line = PUBLIC
    text = (output_dir / SOURCE / file).read_text(encoding="utf-8")
    if line not in text:
        text = text.replace(next_line, line + next_line)
    texts[SOURCE / file] = text
    for file, text in texts.items():
        write_text(output_dir / file, text)
    return list(texts)


def copy_library_tests(library_tests: Path, folder: Path):
    """Copies the mixins of the library's tests, and what they import; a drawn image stands for those on the Hub."""
    ignored = shutil.ignore_patterns("models", "__pycache__")
    shutil.copytree(library_tests, folder / "tests", ignore=ignored, dirs_exist_ok=True)
    for file, text in LACKING.items():
        if not (folder / file).exists():
            write_text(folder / file, text)
    for package in ("", "models", "exporters", "generation", "utils"):
        (folder / "tests" / package / "__init__.py").touch()
    image = folder / "tests/fixtures/image.png"
    load_scenes(num_scenes=1, seed=0)[0]["image"].resize((640, 480)).save(image)
    finder = f"def url_to_local_path(*_):\n    return {str(image)!r}\n"
    write_text(folder / "utils/fetch_hub_objects_for_ci.py", finder)


def copy_package_tests(folder: Path):
    """Writes the same tests for the classes of this package."""
    write_text(folder / PACKAGE_TESTS / "__init__.py", "")
    for name, name_there in TEST_MODULES.items():
        text = (HERE / f"{name}.py").read_text(encoding="utf-8")
        text = re.sub(r"from transformers import (\(\s+)?Lotlip", r"from modeling_lotlip import \1Lotlip", text)
        if name != "library_image_processing_tests":  # it finds the classes by the library's lists
            write_text(folder / PACKAGE_TESTS / f"{name_there}.py", text)


def run_tests(folder: Path, tests: Path, import_from: Path) -> int:
    """Runs tests in a folder, with what is imported from another; returns pytest's exit code."""
    environment = {**os.environ, "PYTHONPATH": str(import_from.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    return subprocess.run(command, cwd=folder, env=environment).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="store_true", help="Make the generated files of this package.")
    parser.add_argument("--output_dir", type=Path, help="A checkout of transformers, or an empty folder.")
    parser.add_argument("--test", type=Path, help="Run the tests: the folder `tests` of transformers' sources.")
    args = parser.parse_args()
    if args.package:
        for file, text in make_package_files().items():
            write_text(PACKAGE / file, text)
            print(f"Wrote {PACKAGE / file}")
    if args.output_dir is None:
        return
    folder = args.output_dir.resolve()
    is_tree = (folder / SOURCE / "models").is_dir()
    if folder.exists() and any(folder.iterdir()) and (args.test is not None or not is_tree):
        parser.error(f"--output_dir {folder} is no checkout of transformers, nor (as --test needs it) an empty folder")
    for file in lay_out(folder):
        print(f"Wrote {folder / file}")
    if args.test is not None:
        copy_library_tests(args.test, folder)
        copy_package_tests(folder)
        runs = ((TESTS, folder / "src"), (PACKAGE_TESTS, PACKAGE.parent))
        sys.exit(max(run_tests(folder, tests, import_from) for tests, import_from in runs))


if __name__ == "__main__":
    main()
