"""The oldest and the newest transformers read what the other saved, and compute the same; see `make versions`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, python_environment
from tests.test_hub import LOAD


VERSIONS = ("oldest", "newest")

SAVE = """
import sys

from modeling_lotlip import LotlipModel, LotlipProcessor

model_dir, folder = sys.argv[1:]
LotlipModel.from_pretrained(model_dir).save_pretrained(folder)
LotlipProcessor.from_pretrained(model_dir).save_pretrained(folder)
"""


def run(version: str, home: Path, code: str, *arguments) -> None:
    """Runs code with one of the versions, which `make versions` has put beside the environment's packages."""
    packages = Path(sys.prefix) / f"transformers-{version}"
    assert (packages / "transformers").is_dir(), f"there is no {packages}: run `make versions`"
    code = f"import transformers; assert transformers.__file__.startswith({str(packages)!r})\n{code}"
    environment = python_environment(HF_HOME=home, PYTHONPATH=f"{packages}{os.pathsep}{ROOT}")
    command = [sys.executable, "-c", code, *map(str, arguments)]
    finished = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.versions
def test_versions_read_each_other_and_agree(model_dir, tmp_path):
    outputs = {}
    for saved_by in VERSIONS:
        folder = tmp_path / f"saved-by-{saved_by}"
        run(saved_by, tmp_path, SAVE, model_dir, folder)
        (loaded_by,) = set(VERSIONS) - {saved_by}
        for source in ("package", "remote"):
            results = tmp_path / f"{loaded_by}-{source}.safetensors"
            run(loaded_by, tmp_path, LOAD, source, results, folder)
            outputs[loaded_by, source] = load_file(results)

    expected = outputs["newest", "package"]
    assert all(tensor.isfinite().all() and tensor.std() > 0 for tensor in expected.values())
    for case, tensors in outputs.items():
        assert tensors.keys() == expected.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, expected[name]), (case, name)
