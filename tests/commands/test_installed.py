"""Commands from an installed wheel, in an empty folder, far from the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, python_environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources."""
    sources = tmp_path_factory.mktemp("sources")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "lotlip.py"):
        shutil.copy(ROOT / name, sources / name)
    shutil.copytree(
        ROOT / "modeling_lotlip", sources / "modeling_lotlip", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sources]
    subprocess.run(list(map(str, command)), check=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel, model_dir, tmp_path_factory):
    """Runs a command of the installed wheel in a user's folder with a model; returns what it prints."""
    installed = tmp_path_factory.mktemp("installed")
    folder = tmp_path_factory.mktemp("user")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel]
    subprocess.run(list(map(str, command)), check=True, timeout=300)
    shutil.copytree(model_dir, folder / "model")
    paths = {"PYTHONPATH": installed, "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment = python_environment(**paths, HF_HOME=folder / "hf")

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_has_every_file_of_the_package(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "modeling_lotlip").rglob("*") if path.is_file()]
    missing = [path for path in files if "__pycache__" not in path.parts and str(path.relative_to(ROOT)) not in packed]
    assert missing == []
    assert "lotlip.py" in packed


# As `visualize` it reads files of the package
TRAIN = "train --output_dir out --max_train_samples 8 --max_eval_samples 8 --max_train_steps 1 "
TRAIN += "--per_device_train_batch_size 4"


def test_the_package_is_that_of_the_wheel_its_metric_loads_by_its_constant_and_it_trains(run):
    code = (
        "import evaluate, torch, modeling_lotlip, lotlip\n"
        "from modeling_lotlip.metrics import IMAGE_TEXT_RETRIEVAL\n"
        "metric = evaluate.load(IMAGE_TEXT_RETRIEVAL)\n"
        "recalls = metric.compute(image_embeds=torch.eye(12), text_embeds=torch.eye(12))\n"
        f"assert lotlip.main({TRAIN.split()}) == 0\n"
        "print(modeling_lotlip.__file__, lotlip.__file__, recalls['t2i_recall@1'])"
    )
    *paths, recall = run(sys.executable, "-c", code).split()[-3:]
    assert not any(path.startswith(str(ROOT)) for path in paths)
    assert recall == "100.0"


def test_the_wheel_brings_what_a_command_needs(run):
    run("lotlip", "visualize", "--model", "model", "--output_dir", "maps")
