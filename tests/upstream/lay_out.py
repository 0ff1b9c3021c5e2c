# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
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
Lay LoTLIP out as a model of transformers' own source tree.

Into a checkout of transformers, or into an empty folder with the registries of the installed version:

    python -m tests.upstream.lay_out --output_dir ../transformers

With `--test` the same files also go into a copy of the installed transformers, and their tests run there. Those that
every model has need the mixins of the library's own tests, which are in its sources only:

    pip download --no-deps --no-binary transformers transformers==5.24.0
    tar -xf transformers-5.24.0.tar.gz
    python -m tests.upstream.lay_out --output_dir outputs/upstream --test \
        --library_tests transformers-5.24.0/tests
"""

import argparse
import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import transformers

from modeling_lotlip.arguments import HelpFormatter
from modeling_lotlip.data.scenes import load_scenes


ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(transformers.__file__).parent
SOURCE = Path("src/transformers")
MODEL = SOURCE / "models" / "lotlip"
TESTS = Path("tests/models/lotlip")
DOCS = Path("docs/source/en/model_doc")

MODULES = (
    "configuration_lotlip",
    "modeling_lotlip",
    "image_processing_lotlip",
    "image_processing_pil_lotlip",
    "processing_lotlip",
    "tokenization_lotlip",
    "weights_lotlip",
    "convert_lotlip_to_hf",
)
# Tests on the mixins of the library, and the others, and what both are called there
LIBRARY_TESTS = {
    f"library_{part}_tests": f"test_{part}_lotlip"
    for part in ("modeling", "image_processing", "processing", "tokenization")
}
TEST_MODULES = LIBRARY_TESTS | {
    "test_configuration_lotlip": "test_configuration_lotlip",
    "test_modeling_lotlip": "test_modeling_lotlip_properties",
    "test_image_processing_lotlip": "test_image_processing_lotlip_properties",
    "test_processing_lotlip": "test_processing_lotlip_properties",
    "test_tokenization_lotlip": "test_tokenization_lotlip_properties",
}

# What the library's source distribution lacks of its tests, so that the others can be imported
LACKING = {
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "tests/fixtures/sample_text.txt": "A text.\n",
}

# What clamps `logit_scale`: the library leaves that to the training script
CLAMP = {"MAX_LOGIT_SCALE", "clamp_logit_scale"}
# What of the tests needs the clamp, the data of the original implementation, or a fixture shared with other tests
LEFT_OUT = {
    "MAX_LOGIT_SCALE",
    "ClampLogitScaleCallback",
    "BERT_NAMES",
    "REFERENCE",
    "reference",
    "build_reference_model",
}

IMPORTS = (
    # from the code of a model
    (r"^from transformers import (Auto.*)$", r"from ..auto import \1"),
    (r"^from transformers import", "from ... import"),
    (r"^from transformers\.", "from ..."),
    # from examples in docstrings
    (r"\bfrom modeling_lotlip import", "from transformers import"),
    (r"\bmodeling_lotlip\.(?=\w+_lotlip)", "transformers.models.lotlip."),
)
TEST_IMPORTS = IMPORTS[-2:]

# What the page and the configurations name as an example
CHECKPOINT = "weiwu-ww/LoTLIP-ViT-B-16-100M"

# Code that has another form in the tree: module, pattern, what stands there instead
EDITS = (
    # documentation that the library makes itself, out of files in its own tree only
    *(
        (
            "configuration_lotlip",
            rf"^@strict\n(?=class {name}\()",
            f'@auto_docstring(checkpoint="{CHECKPOINT}")\n@strict\n',
        )
        for name in ("LotlipTextConfig", "LotlipVisionConfig", "LotlipConfig")
    ),
    (
        "configuration_lotlip",
        r"^(from transformers\.configuration_utils import .*?\n)",
        r"\1from transformers.utils import auto_docstring\n",
    ),
    # the library does not depend on ftfy; of code on the Hub it asks for all that it imports when it loads
    (
        "tokenization_lotlip",
        r"^        import ftfy .*?\n",
        "        try:\n            import ftfy\n        except ImportError as error:\n"
        "            raise ImportError(\n"
        '                "`LotlipTokenizer` cleans this text with ftfy, as it was in training: `pip install ftfy`."\n'
        "            ) from error\n",
    ),
    # the form of transformers 5.21 and 5.22, which know no other
    ("processing_lotlip", r"class LotlipProcessorKwargs\(.*?\n\n\n", ""),
    ("processing_lotlip", r"valid_processor_kwargs = LotlipProcessorKwargs", 'text_kwargs = {"padding": True}'),
    ("processing_lotlip", r"import ProcessingKwargs, ProcessorMixin", "import ProcessorMixin"),
    # what is in the original's layout is converted by the script alone
    *(
        (module, rf"class {name}\(LotlipLoadingMixin, ", f"class {name}(")
        for module, name in (
            ("configuration_lotlip", "LotlipTextConfig"),
            ("configuration_lotlip", "LotlipVisionConfig"),
            ("configuration_lotlip", "LotlipConfig"),
            ("image_processing_lotlip", "LotlipImageProcessor"),
            ("image_processing_pil_lotlip", "LotlipImageProcessorPil"),
            ("modeling_lotlip", "LotlipPreTrainedModel"),
            ("processing_lotlip", "LotlipProcessor"),
            ("tokenization_lotlip", "LotlipTokenizer"),
        )
    ),
    ("weights_lotlip", r"find_pretrained\(name_or_path\)", "name_or_path"),
    # the model that compares tokens is this package's
    ("configuration_lotlip", r"^        token_wise \(`bool`.*?\n.*?\n", ""),
    ("configuration_lotlip", r"^    token_wise: bool = False\n\n    @property\n.*?(?=    def __post_init__)", "\n"),
    ("configuration_lotlip", r"^        # as older folders have it.*?\n.*?\n.*?\n", ""),
    *(
        (
            "configuration_lotlip",
            rf"^        # by which the Auto classes choose\n[^\n]*\n *self\.architectures = {architectures}\n",
            "",
        )
        for architectures in (r'\["LotlipTextModel"\]', r'\["LotlipVisionModel"\]', r"\[self\.default_architecture\]")
    ),
    ("modeling_lotlip", r"^    # whether it compares all tokens.*?\n    is_token_wise = False\n", ""),
    ("modeling_lotlip", r"^        if config\.token_wise != .*?\n            \)\n", ""),
    # what is saved carries neither code nor a model card
    (
        "configuration_lotlip",
        r"^LotlipTextConfig\.register_for_auto_class\(\)\n.*?LotlipConfig\.register_for_auto_class\(\)\n\n",
        "\n",
    ),
    *(
        (module, r"^Lotlip\w+\.register_for_auto_class\(\).*?\n\n", "\n")
        for module in (
            "modeling_lotlip",
            "tokenization_lotlip",
            "processing_lotlip",
            "image_processing_lotlip",
            "image_processing_pil_lotlip",
        )
    ),
    ("modeling_lotlip", r"^from \.saving_lotlip import .*?\n", ""),
    ("modeling_lotlip", r"\(LotlipSavingMixin, PreTrainedModel\)", "(PreTrainedModel)"),
    (
        "modeling_lotlip",
        r"^    # that find the class.*?\n    auto_classes = .*?\n",
        "",
    ),
    ("modeling_lotlip", r"^    auto_classes = \(\"AutoModel\", .*?\n", ""),
    ("image_processing_lotlip", r"^    def to_dict\(self\).*?        return output\n", "    pass\n"),
    ("image_processing_lotlip", r"^from typing import Any\n", ""),
    ("convert_lotlip_to_hf", r"^from \.hub import .*?\n", ""),
    ("convert_lotlip_to_hf", r"^from huggingface_hub\.utils\.sha import .*?\n", ""),
    ("convert_lotlip_to_hf", r'^    with open\(checkpoint_path, "rb"\) as file:\n        sha256 = .*?\n', ""),
    ("convert_lotlip_to_hf", r"^        write_model_card\(\n.*?^        \)\n", ""),
    ("convert_lotlip_to_hf", r"^    repo_id: str \| None = None,\n", ""),
    ("convert_lotlip_to_hf", r"^        repo_id \(.*?\n.*?\n", ""),
    ("convert_lotlip_to_hf", r"^    card_name: str \| None = None,\n", ""),
    ("convert_lotlip_to_hf", r"^        card_name \(.*?\n.*?\n", ""),
    ("convert_lotlip_to_hf", r", card_name\)", ")"),
    ("convert_lotlip_to_hf", r"^ *card_name=args\.push_to_hub,\n", ""),
    (
        "convert_lotlip_to_hf",
        r'^( *)print\(f"Uploaded to .*?\n',
        r"\1LotlipModel.from_pretrained(args.output_dir).push_to_hub(args.push_to_hub)\n"
        r"\1LotlipProcessor.from_pretrained(args.output_dir).push_to_hub(args.push_to_hub)\n",
    ),
)

# The lazy import that every model has
LAZY_IMPORT = """\
{licence}from typing import TYPE_CHECKING

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
        ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES", '("lotlip", "LotlipModel")'),
    ),
    "models/auto/tokenization_auto.py": (
        ("TOKENIZER_MAPPING_NAMES", '("lotlip", "LotlipTokenizer" if is_tokenizers_available() else None)'),
        ("TOKENIZER_MAPPING_NAMES", '("lotlip_text_model", "LotlipTokenizer" if is_tokenizers_available() else None)'),
    ),
}

DOC_PAGE = """\
<!--Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.

Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance with
the License. You may obtain a copy of the License at

http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on
an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the
specific language governing permissions and limitations under the License.
-->

# LoTLIP

{overview}
The released checkpoints are in the format of open_clip. Convert one first:

```bash
hf download {checkpoint} model.pt --local-dir .
python -m transformers.models.lotlip.convert_lotlip_to_hf --checkpoint_path model.pt \\
    --output_dir LoTLIP-ViT-B-16 --tokenizer_path google-bert/bert-base-uncased
```

<hfoptions id="usage">
<hfoption id="Pipeline">

```python
from transformers import pipeline


classifier = pipeline(task="zero-shot-image-classification", model="LoTLIP-ViT-B-16")
classifier("image.jpg", candidate_labels=["a red boat", "a green car"])
```

</hfoption>
<hfoption id="AutoModel">

```python
import torch
from PIL import Image

from transformers import AutoModel, AutoProcessor


model = AutoModel.from_pretrained("LoTLIP-ViT-B-16")
processor = AutoProcessor.from_pretrained("LoTLIP-ViT-B-16")

texts = ["a red boat", "A red boat lies on the beach. The sky is grey. Two gulls sit on its bow."]
inputs = processor(text=texts, images=Image.open("image.jpg"), return_tensors="pt")
with torch.no_grad():
    probabilities = model(**inputs).logits_per_image.softmax(dim=-1)
```

</hfoption>
</hfoptions>

## Notes

{notes}
"""


def write(file: Path, text: str):
    """Writes a file whole or not at all; a link is replaced, not followed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def substitute(text: str, pattern: str, replacement: str, name: str) -> str:
    """Replaces the one match of a pattern."""
    text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        raise ValueError(f"`{name}` has {count} places that match {pattern!r}, instead of one. Mend `EDITS`.")
    return text


def mentions(node: ast.AST, names: set[str]) -> bool:
    """Whether code defines or uses one of the names."""
    for part in ast.walk(node):
        if getattr(part, "id", None) in names or getattr(part, "arg", None) in names:
            return True
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and part.name in names:
            return True
    return False


def without(text: str, names: set[str]) -> tuple[str, list[str]]:
    """
    Drops the definitions and statements that mention one of the names, from the text of a module, from its classes and
    from their `__init__`, and the comments above them.

    Returns:
        The text, and the names of the functions that were dropped.
    """
    lines, functions = text.splitlines(keepends=True), []

    def drop(statements: list[ast.stmt]):
        for statement in statements:
            if not mentions(statement, names) or isinstance(statement, ast.Import | ast.ImportFrom):
                continue
            if isinstance(statement, ast.ClassDef) or getattr(statement, "name", None) == "__init__":
                drop(statement.body)
                continue
            if isinstance(statement, ast.FunctionDef):
                functions.append(statement.name)
            start = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", []))]) - 1
            while lines[start - 1].lstrip().startswith("# ") and not lines[start - 1].startswith("# ----"):
                start -= 1
            lines[start : statement.end_lineno] = [""] * (statement.end_lineno - start)

    drop(ast.parse(text).body)
    return "".join(lines), functions


def to_tree(text: str, imports: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in imports:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def tidy(texts: dict[Path, str]) -> dict[Path, str]:
    """Sorts imports, drops unused ones and formats, by the rules of the library, before anything is written."""
    if importlib.util.find_spec("ruff") is None:
        raise ValueError("ruff formats what is written, and is not installed: `pip install ruff`.")
    isort = {"lines-after-imports": "2", "known-first-party": '["transformers"]'}
    isort = [option for name, value in isort.items() for option in ("--config", f"lint.isort.{name}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in texts.items():
            write(Path(folder) / file, text)
        # the modules of `__init__.py` are imported for others to use
        for command in (["check", "--fix", "--select", "F401,I001", "--exclude", "__init__.py", *isort], ["format"]):
            options = ["--isolated", "--line-length", "119", "--quiet"]
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, *options, folder], capture_output=True, text=True
            )
            if done.returncode != 0:
                raise ValueError(f"ruff cannot format the files: {done.stderr or done.stdout}")
        return {file: (Path(folder) / file).read_text(encoding="utf-8") for file in texts}


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


def doc_page() -> str:
    """The page of the model: what this project's page says of it, and the classes."""
    page = (ROOT / "docs" / "lotlip.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    notes = re.split(r"\n(?=- )", sections["Usage tips"].strip())
    notes = "\n".join(note for note in notes if not note.startswith("- `logit_scale`"))
    autodoc = []
    for name in MODULES[:6]:
        namespace = ast.parse((ROOT / "modeling_lotlip" / f"{name}.py").read_text(encoding="utf-8"))
        public = next(ast.literal_eval(node.value) for node in namespace.body[::-1] if isinstance(node, ast.Assign))
        for item in public:
            methods = "\n    - forward" if name == "modeling_lotlip" and not item.endswith("PreTrainedModel") else ""
            methods += "\n    - get_text_features\n    - get_image_features" if item == "LotlipModel" else ""
            autodoc.append(f"## {item}\n\n[[autodoc]] {item}{methods}\n")
    # a sentence that leads to another page of this project
    overview = re.sub(r"\[[^]]*\]\((?!https:)[^)]*\)[^.]*\. ?", "", sections["Overview"])
    page = DOC_PAGE.format(overview=overview, notes=notes, checkpoint=CHECKPOINT)
    return page + "\n" + "\n".join(autodoc)


def lay_out(output_dir: str | Path) -> tuple[list[Path], list[str]]:
    """
    Writes the files of the model, of its tests and its page, and enters it into the library's lists.

    Args:
        output_dir (`str` or `Path`):
            A checkout of transformers, or another folder: that gets the lists of the installed version.

    Returns:
        The files, relative to the folder, and the tests that were left out.

    Raises:
        `ValueError`: if code or lists are not as they used to be, or ruff is not installed.

    Example:

    ```python
    >>> from tests.upstream.lay_out import lay_out

    >>> files, left_out = lay_out("transformers")
    >>> print(files[0])
    src/transformers/models/lotlip/configuration_lotlip.py
    ```"""
    output_dir, texts, left_out = Path(output_dir), {}, []
    is_checkout = (output_dir / SOURCE / "__init__.py").is_file()
    library = output_dir / SOURCE if is_checkout else INSTALLED
    licence = Path(__file__).read_text(encoding="utf-8").partition('"""')[0]
    for name in MODULES:
        text = (ROOT / "modeling_lotlip" / f"{name}.py").read_text(encoding="utf-8")
        for module, pattern, replacement in EDITS:
            if module == name:
                text = substitute(text, pattern, replacement, f"{name}.py")
        text, _ = without(text, CLAMP)
        texts[MODEL / f"{name}.py"] = to_tree(text, IMPORTS)
    for name, name_there in TEST_MODULES.items():
        folder = ROOT / "tests" / ("upstream" if name in LIBRARY_TESTS else "")
        text, dropped = without((folder / f"{name}.py").read_text(encoding="utf-8"), LEFT_OUT)
        left_out += [f"{name}.{function}" for function in dropped if function.startswith("test_")]
        texts[TESTS / f"{name_there}.py"] = licence + to_tree(text, TEST_IMPORTS)
    texts[TESTS / "__init__.py"] = ""
    texts[DOCS / "lotlip.md"] = doc_page()

    imports = "\n".join(f"    from .{name} import *" for name in sorted(MODULES[:6]))
    texts[MODEL / "__init__.py"] = LAZY_IMPORT.format(licence=licence, imports=imports)
    texts = tidy(texts)
    for file, entries in REGISTRIES.items():
        text = (library / file).read_text(encoding="utf-8")
        for registry, entry in entries:
            text = register(text, registry, entry)
        texts[SOURCE / file] = text
    models = (library / "models/__init__.py").read_text(encoding="utf-8")
    if "from .lotlip import *" not in models:
        lines = re.findall(r"^    from \.\w+ import \*\n", models, re.MULTILINE)
        line = "    from .lotlip import *\n"
        later = next((other for other in lines if other > line), None)
        if later is None:
            raise ValueError(f"`{library / 'models/__init__.py'}` does not import the models as it used to.")
        models = models.replace(later, line + later)
    texts[SOURCE / "models" / "__init__.py"] = models

    for file, text in texts.items():
        write(output_dir / file, text)
    return list(texts), left_out


def copy_installed(folder: str | Path):
    """
    Makes a copy of the installed transformers, of links to its files, that `lay_out` can add the model to.

    Args:
        folder (`str` or `Path`):
            The folder, which is to be empty. `PYTHONPATH=folder/src` imports the copy.

    Example:

    ```python
    >>> from tests.upstream.lay_out import copy_installed, lay_out

    >>> copy_installed("copy")
    >>> files, left_out = lay_out("copy")
    ```"""
    for part in (".", "models", "models/auto"):
        target = Path(folder) / SOURCE / part
        target.mkdir(parents=True, exist_ok=True)
        for source in (INSTALLED / part).iterdir():
            if source.name not in ("__pycache__", "models", "auto"):
                (target / source.name).symlink_to(source)


def copy_library_tests(library_tests: Path, folder: Path):
    """
    Copies the mixins of the library's tests, and what they import, beside the tests of the model. What the source
    distribution lacks is left empty, and a drawn picture takes the place of those on the Hub.
    """
    shutil.copytree(
        library_tests, folder / "tests", ignore=shutil.ignore_patterns("models", "__pycache__"), dirs_exist_ok=True
    )
    for file, text in LACKING.items():
        if not (folder / file).exists():
            write(folder / file, text)
    for package in ("", "models", "exporters", "generation", "utils"):
        (folder / "tests" / package / "__init__.py").touch()
    picture = folder / "tests/fixtures/picture.png"
    load_scenes(num_scenes=1, seed=0)[0]["image"].resize((640, 480)).save(picture)
    finder = f"def url_to_local_path(*_):\n    return {str(picture)!r}\n"
    write(folder / "utils/fetch_hub_objects_for_ci.py", finder)


def run_tests(folder: str | Path, *options: str) -> int:
    """
    Runs the model's tests with the copy of transformers in a folder; returns pytest's exit code. The tests that every
    model has run if [`copy_library_tests`] has put their mixins beside them.
    """
    if not (Path(folder) / "tests" / "test_modeling_common.py").is_file():
        options = (*options, *(f"--ignore={TESTS / name}.py" for name in LIBRARY_TESTS.values()))
    environment = {**os.environ, "PYTHONPATH": str(Path(folder).resolve() / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(TESTS)]
    return subprocess.run(command, cwd=folder, env=environment).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="A checkout of transformers, or an empty folder."
    )
    parser.add_argument(
        "--test", action="store_true", help="Also run the model's tests in a copy of the installed transformers."
    )
    parser.add_argument(
        "--library_tests", type=Path, help="With --test: the folder `tests` of transformers' sources, with its mixins."
    )
    args = parser.parse_args()
    output_dir = args.output_dir
    if args.library_tests is not None:
        if not args.test:
            parser.error("--library_tests is for --test")
        if not (args.library_tests / "test_modeling_common.py").is_file():
            parser.error(f"--library_tests {args.library_tests} has no test_modeling_common.py")
    if output_dir.exists() and not (output_dir / SOURCE / "models").is_dir():
        if not output_dir.is_dir() or any(output_dir.iterdir()):
            parser.error(f"--output_dir {output_dir} is neither a checkout of transformers nor an empty folder")

    try:
        files, left_out = lay_out(output_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing more is written: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Files are there whole or not at all: the same command writes them all.")
    for file in files:
        print(f"Wrote {output_dir / file}")
    print("Left out of the tests:", *left_out, sep="\n  ")
    if args.test:
        with tempfile.TemporaryDirectory() as folder:
            copy_installed(folder)
            lay_out(folder)
            if args.library_tests is not None:
                copy_library_tests(args.library_tests, Path(folder))
            try:
                sys.exit(run_tests(folder))
            except KeyboardInterrupt:
                sys.exit(130)


if __name__ == "__main__":
    main()
