# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Make the model's files from `modular_lotlip.py`, for this package, or as a model of transformers' source tree.

    python -m tests.upstream.lay_out --package
    python -m tests.upstream.lay_out --output_dir ../transformers

The first writes the generated files beside `modular_lotlip.py` (`make modular`). The second lays the model out in a
checkout of transformers, or in an empty folder with the lists of the installed version. With `--test` the same files
also go into a copy of the installed transformers, and their tests run there. They need the mixins of the library's own
tests, which are in its sources only:

    pip download --no-deps --no-binary transformers transformers==5.24.0
    tar -xf transformers-5.24.0.tar.gz
    python -m tests.upstream.lay_out --output_dir outputs/upstream --test transformers-5.24.0/tests
"""

import argparse
import ast
import datetime
import json
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

from modeling_lotlip.convert_lotlip_to_hf import BERT_NAMES, TIMM_NAMES
from modeling_lotlip.data.scenes import load_scenes


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
    f"library_{part}_tests": f"test_{part}_lotlip"
    for part in ("modeling", "image_processing", "processing", "tokenization")
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

# The base classes that the package's files take from `hub_lotlip.py`
HUB_BASES = {"PilBackend", "PreTrainedConfig", "PreTrainedModel", "ProcessorMixin", "TokenizersBackend"}
HUB_BASES |= {"TorchvisionBackend"}

SHORT_LICENCE = "# SPDX-License-Identifier: Apache-2.0\n"
LICENCE = """\
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""

# The lazy import that every model has
LAZY_IMPORT = """\
from typing import TYPE_CHECKING

from ...utils import _LazyModule
from ...utils.import_utils import define_import_structure


if TYPE_CHECKING:
{imports}
else:
    import sys

    _file = globals()["__file__"]
    sys.modules[__name__] = _LazyModule(__name__, _file, define_import_structure(_file), module_spec=__spec__)
"""

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
        ("TOKENIZER_MAPPING_NAMES", '("lotlip", "LotlipTokenizer" if is_tokenizers_available() else None)'),
        ("TOKENIZER_MAPPING_NAMES", '("lotlip_text_model", "LotlipTokenizer" if is_tokenizers_available() else None)'),
    ),
}

# How the original's checkpoints are read: the operation on the word table, and the names. Each is put before a line.
SPLIT_OPERATION = '''\
class LotlipSplitCornerTokens(ConversionOps):
    """Cuts LoTLIP's corner tokens, the last rows of the word table in the checkpoints, out of the table."""

    @torch.no_grad
    def convert(self, input_dict, source_patterns, target_patterns, config=None, **kwargs):
        table = next(iter(input_dict.values()))
        table = table[0] if isinstance(table, list) else table
        parts = table.tensor_split([config.get_text_config().vocab_size])
        return {target: part.contiguous() for target, part in zip(target_patterns, parts) if len(part) > 0}

    @property
    def reverse_op(self) -> ConversionOps:
        return Concatenate(dim=0)


'''


def make_conversion() -> str:
    """How `conversion_mapping` of the library reads the original's names: the tables of the converter."""

    def rename(theirs: str, ours: str) -> str:
        start = "^" if theirs in ("cls_token", "norm.") else ""
        return f'            WeightRenaming(r"{start}{re.escape(theirs)}", "{ours}"),'

    def convert(source: str, targets: list[str], operation: str) -> str:
        return (
            f'            WeightConverter(source_patterns=r"{source}", target_patterns={json.dumps(targets)}, '
            f"operations=[{operation}]),"
        )

    parts = {"text": [r"^text\.transformer\.", r"^text\.proj\."], "vision": [r"^visual\.trunk\."]}
    targets = {"text": ["text_model.", "text_projection."], "vision": ["vision_model."]}
    whole = {}
    for kind, sources in parts.items():
        pairs = zip(sources, targets[kind])
        whole[kind] = [f'            WeightRenaming(r"{source}", "{target}"),' for source, target in pairs]
    words = ["embeddings.word_embeddings.weight", "embeddings.corner_tokens"]
    classes = {
        "lotlip": whole["text"] + whole["vision"],
        "LotlipTextModelWithProjection": whole["text"],
        "LotlipVisionModelWithProjection": whole["vision"],
        "LotlipTextModel": [
            r'            PrefixChange(prefix_to_remove=r"text\.transformer"),',
            *(rename(theirs, ours) for ours, theirs in BERT_NAMES),
            convert(r"embeddings\.word_embeddings\.weight", words, "LotlipSplitCornerTokens()"),
        ],
        "LotlipVisionModel": [
            r'            PrefixChange(prefix_to_remove=r"visual\.trunk"),',
            *(rename(theirs, ours) for ours, theirs in TIMM_NAMES if theirs != ".attn."),
            *(
                convert(rf"\.attn\.qkv\.{kind}", [f".self_attn.{part}_proj.{kind}" for part in "qkv"], "Chunk(dim=0)")
                for kind in ("weight", "bias")
            ),
        ],
    }
    return "".join(f'        "{name}": [\n' + "\n".join(lines) + "\n        ],\n" for name, lines in classes.items())


INSERTIONS = (
    (SOURCE / "core_model_loading.py", r"^def process_target_pattern\(", SPLIT_OPERATION),
    (SOURCE / "conversion_mapping.py", r"^    MergeModulelist,\n", "    LotlipSplitCornerTokens,\n"),
    (SOURCE / "conversion_mapping.py", r'^        "CLIPTextModel": \[', make_conversion()),
    (SOURCE / "models/__init__.py", r"^    from \.lw_detr import \*\n", "    from .lotlip import *\n"),
)


def write(file: Path, text: str):
    """An atomic write; a link is replaced, not followed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def register(text: str, registry: str, entry: str) -> str:
    """Adds an entry to one of the library's sorted lists, if it is not there yet."""
    opening = rf"^{registry}\b[^\n]*= OrderedDict[^\n]*\(\n    \[\n"
    found = re.search(rf"{opening}(.*?)^    \]", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"transformers {transformers.__version__} has no list `{registry}` where it used to be.")
    line, entries = f"        {entry},\n", found[1]
    if line in entries:
        return text
    key = ast.literal_eval(re.search(r'"[^"]+"', entry)[0])
    later = (other.start() for other in re.finditer(r'^        \("([^"]+)"', entries, re.MULTILINE) if other[1] > key)
    place = found.start(1) + next(later, len(entries))
    return text[:place] + line + text[place:]


def insert(text: str, pattern: str, addition: str, file: Path) -> str:
    """Puts lines before the one place that a pattern matches, if they are not there."""
    places = list(re.finditer(pattern, text, re.MULTILINE))
    if len(places) != 1:
        raise ValueError(f"`{file}` has {len(places)} places that match {pattern!r}, instead of one.")
    return text if addition in text else text[: places[0].start()] + addition + text[places[0].start() :]


@cache
def convert(modular: str) -> dict[str, str]:
    """The model's files as the library's converter of modular files makes them, by their names, not yet formatted."""
    for pattern, replacement in IMPORTS:
        modular = re.sub(pattern, replacement, modular, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MODEL / "modular_lotlip.py"
        write(file, modular)
        converted = make_transformers_flattener().convert(str(file))
    return {"modular_lotlip.py": modular} | {f"{part}_lotlip.py": converted[part] for part in sorted(converted)}


def make_package_files() -> dict[Path, str]:
    """What the library would generate, but that imports are absolute and base classes come from `hub_lotlip.py`."""
    texts = {}
    for name, text in convert(MODULAR.read_text(encoding="utf-8")).items():
        lines = text.replace("src/transformers/models/lotlip/", "modeling_lotlip/").splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                module = ".".join(["transformers", *["models"] * (node.level == 2), *filter(None, [node.module])])
                kept = [ast.unparse(alias) for alias in node.names if alias.name not in HUB_BASES]
                bases = [alias.name for alias in node.names if alias.name in HUB_BASES]
                line = f"from {module} import {', '.join(kept)}\n" * bool(kept)
                line += f"from .hub_lotlip import {', '.join(bases)}" * bool(bases)
                lines[node.lineno - 1 : node.end_lineno] = [line] + [""] * (node.end_lineno - node.lineno)
        if not name.startswith("modular"):
            texts[Path(name)] = "\n".join(lines) + "\n"
    return format_files(texts)


def format_files(texts: dict[Path, str]) -> dict[Path, str]:
    """Sorts imports, drops unused ones and formats, by the rules of the library, before anything is written."""
    isort = {"lines-after-imports": "2", "known-first-party": '["transformers"]'}
    isort = [option for name, value in isort.items() for option in ("--config", f"lint.isort.{name}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in texts.items():
            write(Path(folder) / file, text)
        # the modules of `__init__.py` are imported for others to use
        for command in (["check", "--fix", "--select", "F,I001", "--exclude", "__init__.py", *isort], ["format"]):
            options = ["--isolated", "--line-length", "119", "--quiet"]
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, *options, folder], capture_output=True, text=True
            )
            if done.returncode != 0:
                raise ValueError(f"ruff refuses the files: {done.stderr or done.stdout}")
        return {file: (Path(folder) / file).read_text(encoding="utf-8") for file in texts}


def lay_out(output_dir: str | Path) -> list[Path]:
    """
    Writes the files of the model, of its tests and its page into a checkout of transformers, or another folder, which
    gets the lists of the installed version, and enters the model into the lists. Returns the files.
    """
    output_dir = Path(output_dir)
    is_checkout = (output_dir / SOURCE / "__init__.py").is_file()
    library = output_dir / SOURCE if is_checkout else INSTALLED
    modular = MODULAR.read_text(encoding="utf-8").replace(SHORT_LICENCE, LICENCE)
    licence = modular.partition('"""')[0]
    texts = {MODEL / name: text for name, text in convert(modular).items()}
    names = [file.stem for file in texts if not file.stem.startswith("modular")]
    imports = "\n".join(f"    from .{name} import *" for name in names)
    texts[MODEL / "__init__.py"] = licence + LAZY_IMPORT.format(imports=imports)

    for name, name_there in TEST_MODULES.items():
        text = (HERE / f"{name}.py").read_text(encoding="utf-8")
        texts[TESTS / f"{name_there}.py"] = licence + text
    texts[TESTS / "__init__.py"] = ""
    texts = format_files(texts)
    page = (HERE / "model_page.md").read_text(encoding="utf-8")
    texts[PAGE] = page.replace("DATE", datetime.date.today().isoformat())

    for file, entries in REGISTRIES.items():
        text = (library / file).read_text(encoding="utf-8")
        for registry, entry in entries:
            text = register(text, registry, entry)
        texts[SOURCE / file] = text
    for file, pattern, addition in INSERTIONS:
        text = texts.get(file) or (library / file.relative_to(SOURCE)).read_text(encoding="utf-8")
        texts[file] = insert(text, pattern, addition, file)

    for file, text in texts.items():
        write(output_dir / file, text)
    return list(texts)


def copy_installed(folder: str | Path):
    """Makes a copy of the installed transformers, of links to its files, that `lay_out` can add the model to."""
    for part in (".", "models", "models/auto"):
        target = Path(folder) / SOURCE / part
        target.mkdir(parents=True, exist_ok=True)
        for source in (INSTALLED / part).iterdir():
            if source.name not in ("__pycache__", "models", "auto"):
                (target / source.name).symlink_to(source)


def copy_library_tests(library_tests: Path, folder: Path):
    """Copies the mixins of the library's tests, and what they import; a drawn image stands for those on the Hub."""
    shutil.copytree(
        library_tests, folder / "tests", ignore=shutil.ignore_patterns("models", "__pycache__"), dirs_exist_ok=True
    )
    for file, text in LACKING.items():
        if not (folder / file).exists():
            write(folder / file, text)
    for package in ("", "models", "exporters", "generation", "utils"):
        (folder / "tests" / package / "__init__.py").touch()
    image = folder / "tests/fixtures/image.png"
    load_scenes(num_scenes=1, seed=0)[0]["image"].resize((640, 480)).save(image)
    finder = f"def url_to_local_path(*_):\n    return {str(image)!r}\n"
    write(folder / "utils/fetch_hub_objects_for_ci.py", finder)


def copy_package_tests(folder: Path):
    """Writes the same tests for the classes of this package."""
    (folder / PACKAGE_TESTS).mkdir()
    (folder / PACKAGE_TESTS / "__init__.py").touch()
    for name, name_there in TEST_MODULES.items():
        text = (HERE / f"{name}.py").read_text(encoding="utf-8")
        text = re.sub(r"from transformers import (\(\s+)?Lotlip", r"from modeling_lotlip import \1Lotlip", text)
        if name != "library_image_processing_tests":  # it finds the classes by the library's lists
            write(folder / PACKAGE_TESTS / f"{name_there}.py", text)


def run_tests(folder: Path, tests: Path, import_from: Path) -> int:
    """Runs tests in a folder, with what is imported from another; returns pytest's exit code."""
    environment = {**os.environ, "PYTHONPATH": str(import_from.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    return subprocess.run(command, cwd=folder, env=environment).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="store_true", help="Make the generated files of this package.")
    parser.add_argument("--output_dir", type=Path, help="A checkout of transformers, or an empty folder.")
    parser.add_argument(
        "--test", type=Path, help="Also run the model's tests: the folder `tests` of transformers' sources."
    )
    args = parser.parse_args()
    output_dir = args.output_dir
    if args.package:
        for file, text in make_package_files().items():
            write(PACKAGE / file, text)
            print(f"Wrote {PACKAGE / file}")
    if output_dir is None:
        return
    if args.test is not None and not (args.test / "test_modeling_common.py").is_file():
        parser.error(f"--test {args.test} has no test_modeling_common.py")
    if output_dir.exists() and not (output_dir / SOURCE / "models").is_dir() and any(output_dir.iterdir()):
        parser.error(f"--output_dir {output_dir} is neither a checkout of transformers nor an empty folder")
    files = lay_out(output_dir)
    for file in files:
        print(f"Wrote {output_dir / file}")
    if args.test is not None:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            copy_installed(folder)
            lay_out(folder)
            copy_library_tests(args.test, folder)
            copy_package_tests(folder)
            runs = ((TESTS, folder / "src"), (PACKAGE_TESTS, PACKAGE.parent))
            sys.exit(max(run_tests(folder, tests, import_from) for tests, import_from in runs))


if __name__ == "__main__":
    main()
