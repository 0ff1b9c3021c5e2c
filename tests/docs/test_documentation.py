"""Every snippet of README and docs, and every example of a docstring, is run."""

import argparse
import dataclasses
import doctest
import importlib
import inspect
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tyro
from accelerate.commands.launch import launch_command_parser
from filelock import FileLock
from transformers import ViTImageProcessor

import lotlip
from modeling_lotlip.captioning.captioner import CAPTIONERS
from modeling_lotlip.data.row_functions import ROW_READERS
from modeling_lotlip.data.scenes import load_scenes, save_scenes
from modeling_lotlip.encoder.arguments import DEFAULT_MODEL
from modeling_lotlip.training.objectives import OBJECTIVES
from tests.conftest import ROOT, forget_accelerator
from tests.helpers.captioners import save_captioner
from tests.helpers.dual_encoders import save_family
from tests.helpers.towers import WORDS, save_bert, save_vit


PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
GENERATED = {
    path.name
    for path in (ROOT / "modeling_lotlip").glob("*_lotlip.py")
    if "automatically generated" in path.read_text(encoding="utf-8")[:1500]
}


def list_modules(folder: str) -> list[str]:
    """The names of all modules in a folder of the repository."""
    names = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names.append(name.removesuffix(".__init__"))
    return names


MODULES = [*list_modules("modeling_lotlip"), *list_modules("examples/paper"), "examples.train_lotlip", "lotlip"]

# A documented training command, made small
SMALL_CELL = (
    "--max_train_steps 2 --max_train_samples 16 --max_eval_samples 8 --per_device_train_batch_size 4 "
    "--warmup_steps 1 --dataloader_num_workers 0"
)
# A documented grid of trainings
SMALL_ABLATION = f"{SMALL_CELL} --groups captions --seeds 0"
SMALL_BENCHMARK = "--layers 1 --repeats 1 --threads 1"
# A documented measurement on few scenes
SMALL_MEASUREMENTS = {"draw_scenes.py": "--num_scenes 16", "sensitivity": "--max_eval_samples 8"}
# Where a documented command needs what lies on the Hub, a small model of the same architecture
LOCAL = {
    "google/vit-base-patch16-224-in21k": "local/vit",
    "google-bert/bert-base-uncased": "local/bert",
    "google-bert/bert-base-multilingual-cased": "local/bert",
}


def run_command(monkeypatch, command: str) -> None:
    """Runs `lotlip COMMAND`, `python SCRIPT`, `python -m MODULE` or `accelerate launch` of these in this process."""
    for name, folder in LOCAL.items():
        command = command.replace(name, folder)
    name, *arguments = without_launcher(shlex.split(command))
    if name == "lotlip":
        arguments += SMALL_MEASUREMENTS.get(arguments[0], "").split()
    if arguments[:1] == ["train"]:
        if "--num_train_epochs" in arguments:
            position = arguments.index("--num_train_epochs")
            del arguments[position : position + 2]
        arguments += SMALL_CELL.split()
        if "--resume_from_checkpoint" not in arguments:
            arguments += ["--overwrite_output_dir"]
        if "--checkpointing_steps" in arguments:
            arguments += ["--checkpointing_steps", "1"]
    arguments += SMALL_MEASUREMENTS.get(Path(name).name, "").split()
    if "/benchmarks/" in name and not name.endswith("install_size.py"):
        arguments += SMALL_BENCHMARK.split()
    converts = "--checkpoint_path" in arguments or arguments[:1] == ["convert"]
    if converts and "--to_original" not in arguments:
        arguments += ["--tokenizer_path", "local/bert"]
    is_ablation = name.endswith("ablation.py")
    if is_ablation and "--plugin" in arguments:
        arguments += f"{SMALL_CELL} --seeds 0".split()
    elif is_ablation:
        arguments += SMALL_ABLATION.split()
    forget_accelerator()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setitem(CAPTIONERS, "llava", "local/llava")
    if name == "lotlip":
        monkeypatch.setenv("LOTLIP_DEBUG", "1")
        status = lotlip.main(arguments)
        assert status == 0
    elif is_ablation:
        run_small_ablation(monkeypatch)
    elif name.endswith(".py"):
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__")


def without_launcher(words: list[str]) -> list[str]:
    """The words of a command from the script, the module or `lotlip` on."""
    if words[:2] == ["accelerate", "launch"]:
        argv = [re.sub(r"^\$.*", "0", word) for word in words[2:]]  # variables of a cluster
        launched = launch_command_parser().parse_args(argv)
        return [launched.training_script, *launched.training_script_args]
    if words[:2] == ["python", "-m"]:
        return words[2:]
    if words[0] == "python":
        return words[1:]
    return words


def run_small_ablation(monkeypatch) -> None:
    """Runs the grid of trainings with two settings of a group."""
    ablation = importlib.import_module("examples.paper.ablation")
    captions = ablation.GROUPS["captions"]
    two = dict(list(captions.settings.items())[:2])
    small = dataclasses.replace(captions, settings=two, gains=[])
    with monkeypatch.context() as context:
        context.setitem(ablation.GROUPS, "captions", small)
        context.setenv("PYTHONPATH", str(ROOT))  # of its processes
        ablation.main()


def make_workspace(folder: Path) -> None:
    """Makes a folder like a clone after `make demo`, with pictures and small towers of other models."""
    folder.mkdir()
    for name in ("examples", "modeling_lotlip"):
        (folder / name).symlink_to(ROOT / name)
    save_scenes(folder / "my_photos" / "train", num_scenes=32)  # as README does
    save_scenes(folder / "my_photos" / "test", num_scenes=8, seed=9)
    (folder / "class_names.txt").write_text("\n".join(load_scenes(1).features["label"].names))

    unused = [f"[unused{index}]" for index in range(30512)]
    save_bert(folder / "local" / "bert", [*WORDS, *unused], 30522)
    save_vit(folder / "local" / "vit", ViTImageProcessor(resample=3))
    save_captioner("llava", folder / "local" / "llava")
    # instead of those on the Hub
    save_family("clip", folder / "openai" / "clip-vit-base-patch16")
    save_family("siglip2_fixed", folder / "google" / "siglip2-base-patch16-224")
    text_model = "sentence-transformers/all-MiniLM-L6-v2"
    vision_model = "facebook/dinov2-small"
    save_bert(folder / text_model, [*WORDS, *unused], 30522)
    save_vit(folder / vision_model, ViTImageProcessor(size={"height": 32, "width": 32}))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        run_command(monkeypatch, "lotlip train --output_dir outputs/demo")
        # instead of the released model, which is on the Hub
        Path(DEFAULT_MODEL).parent.mkdir()
        Path(DEFAULT_MODEL).symlink_to(Path("..", "outputs", "demo"))
        towers = "--text_model_name_or_path local/bert --vision_model_name_or_path local/vit"
        run_command(monkeypatch, f"lotlip train --output_dir outputs/original {towers}")
        encoders = f"--text_model {text_model} --vision_model {vision_model}"
        splits = "--dataset_name my_photos --train_split train --eval_split test"
        run_command(monkeypatch, f"lotlip align --output_dir outputs/aligned {encoders} {splits} --num_train_epochs 1")
        arguments = "--checkpoint_path outputs/original --to_original model.pt"
        run_command(monkeypatch, f"python -m modeling_lotlip.convert_lotlip_to_hf {arguments}")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, worker_id) -> Path:
    """A copy of what [`make_workspace`] makes: one worker makes it for all."""
    own = tmp_path_factory.mktemp("workspace") / "clone"
    if worker_id == "master":  # of pytest without workers
        make_workspace(own)
        return own
    shared = tmp_path_factory.getbasetemp().parent / "workspace"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            make_workspace(own)
            own.rename(shared)
    shutil.copytree(shared, own, symlinks=True)
    return own


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the content of each block that is run, in the order of the page."""
    content = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```$", content, re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What the files of a page register is forgotten after it."""
    registries = (OBJECTIVES, ROW_READERS)
    before = [set(registry) for registry in registries]
    yield
    for registry, names in zip(registries, before):
        for name in set(registry) - names:
            del registry[name]


@pytest.fixture
def files() -> Iterator[list[str]]:
    """The modules of a page's files, which are forgotten after it."""
    names = []
    yield names
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "page", ["README.md", *(pytest.param(page, marks=pytest.mark.pages) for page in PAGES if page != "README.md")]
)
def test_page(page, workspace, files, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.syspath_prepend(workspace)
    shutil.rmtree("LoTLIP-ViT-B-16", ignore_errors=True)
    namespace = {"__name__": page}
    for language, block in blocks(page):
        if language == "python":
            named = re.match(r"# (\w+)\.py\n", block)
            if named:  # a file of the user
                Path(f"{named[1]}.py").write_text(block)
                files.append(named[1])
            else:
                exec(compile(block, page, "exec"), namespace)
            continue
        for command in block.replace("\\\n", " ").strip().splitlines():
            if command.startswith("make "):
                target = command.split()[1]
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            else:
                run_command(monkeypatch, command)


class Understood(BaseException):
    """Raised instead of a script's work, behind its arguments."""


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_not_run_are_understood(page, tmp_path, monkeypatch):
    """Commands for a cluster, for the Hub, for data that no test has: their arguments are those of the scripts."""
    monkeypatch.chdir(tmp_path)
    for _, block in blocks(page):
        named = re.match(r"# (\w+)\.py\n", block)
        if named:  # a plugin, which a command names
            Path(f"{named[1]}.py").write_text(block)

    def parse_only(parse):
        def wrapper(*args, **options):
            parse(*args, **options)
            raise Understood

        return wrapper

    content = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```text\n(.*?)^```$", content, re.DOTALL | re.MULTILINE):
        for command in block.replace("\\\n", " ").replace("...", "--output_dir out").splitlines():
            words = shlex.split(command)
            if not words or words[0] not in ("lotlip", "python", "accelerate"):
                continue
            name, *arguments = without_launcher(words)
            monkeypatch.setattr(sys, "argv", [name, *arguments])
            with monkeypatch.context() as context, pytest.raises(Understood):
                context.setattr(tyro, "cli", parse_only(tyro.cli))
                parse = argparse.ArgumentParser.parse_known_args
                context.setattr(argparse.ArgumentParser, "parse_known_args", parse_only(parse))
                if name == "lotlip":
                    lotlip.main(arguments)
                elif name.endswith(".py"):
                    runpy.run_path(str(ROOT / name), run_name="__main__")
                else:
                    runpy.run_module(name, run_name="__main__")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    # the closing fence of a Markdown block would be taken for expected output
    parser = doctest.DocTestParser()
    original_parse = parser.parse
    parser.parse = lambda string, label="<string>": original_parse(string.replace("```", ""), label)
    finder = doctest.DocTestFinder(parser=parser)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in finder.find(module, name, extraglobs={"__name__": name}):
        runner.run(test)
    assert runner.failures == 0


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("modeling_lotlip")])
def test_what_is_public_is_documented_with_an_example(name):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        item = getattr(module, public)
        if not callable(item):  # a constant
            continue
        texts = [inspect.getdoc(item) or "", inspect.getdoc(getattr(item, "forward", None)) or ""]
        assert texts[0], f"{name}.{public} has no docstring"
        # the examples of the model stand on its page, docs/how_it_works.md, as those of the library's models do
        path = Path(inspect.getsourcefile(item)).name
        is_of_model = path == "modular_lotlip.py" or path in GENERATED
        if not is_of_model:
            assert any(">>>" in text for text in texts), f"{name}.{public} has no example"


def test_every_example_is_listed():
    page = (ROOT / "examples/README.md").read_text()
    listed = set(re.findall(r"^\| `([a-z_]+\.py|[a-z_]+/)`", page, re.MULTILINE))
    names = set()
    for path in (ROOT / "examples").iterdir():
        if path.name.startswith("_"):
            continue
        if path.is_dir():
            names.add(f"{path.name}/")
        elif path.suffix == ".py":
            names.add(path.name)
    assert listed | {"node/"} == names
