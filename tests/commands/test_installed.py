"""Commands from an installed wheel, in an empty folder, far from the clone."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.captioners import save_captioner


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources."""
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
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
def installed(wheel, tmp_path_factory) -> Path:
    """A folder into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel]
    subprocess.run(list(map(str, command)), check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def workspace(installed, model_dir, tmp_path_factory) -> Path:
    """A user's folder: a model, pictures, a captioner."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(model_dir, folder / "model")
    (folder / "photos").mkdir()
    for index, scene in enumerate(load_scenes(6, seed=3)):
        scene["image"].save(folder / "photos" / f"{index}.png")
    Image.new("RGB", (40, 30), "red").save(folder / "photos" / "red.jpg")
    save_captioner("llava", folder / "captioner")
    return folder


@pytest.fixture
def run(installed, workspace):
    """Runs a command of the installed package in the user's folder."""

    def run(*command: str, status: int = 0) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        environment |= {"HF_HOME": str(workspace / "cache")}
        environment["PATH"] = f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_the_wheel_has_every_file_of_the_package(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = [
        path for path in (ROOT / "modeling_lotlip").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    missing = [path for path in files if str(path.relative_to(ROOT)) not in packed]
    assert missing == [] and "lotlip.py" in packed


def test_the_package_is_that_of_the_wheel_and_its_metric_loads_by_its_constant(run, installed):
    code = (
        "import evaluate, torch, modeling_lotlip, lotlip\n"
        "from modeling_lotlip.metrics import IMAGE_TEXT_RETRIEVAL\n"
        "metric = evaluate.load(IMAGE_TEXT_RETRIEVAL)\n"
        "recalls = metric.compute(image_embeds=torch.eye(12), text_embeds=torch.eye(12))\n"
        "print(modeling_lotlip.__file__, lotlip.__file__, recalls['t2i_recall@1'])"
    )
    *paths, recall = run(sys.executable, "-c", code).stdout.split()[-3:]
    assert all(path.startswith(str(installed)) for path in paths) and recall == "100.0"


# Commands that read files of the package
CASES = {
    "train": "--output_dir trained --max_train_samples 8 --max_eval_samples 8 --max_train_steps 1 "
    "--per_device_train_batch_size 4",
    "evaluate": "--model model --max_eval_samples 8 --output_file results.json",
    "visualize": "--model model --output_dir maps",
    "search": "photos 'a red boat' --model model --k 3",
    "recaption": "--captioner captioner --dataset_name imagefolder --data_dir photos --output_dir captions",
}


@pytest.mark.parametrize("command", CASES)
def test_command(command, run, workspace):
    run("lotlip", command, *shlex.split(CASES[command]))
    if command == "evaluate":
        assert json.loads((workspace / "results.json").read_text())["long_num_images"] == 8
