"""The notebooks run from start to end, with a small model; they install the package and need no clone."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT


NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


@pytest.mark.pages
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, model_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("LOTLIP_MODEL", str(model_dir))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    # the commands of this environment, as where it is active
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("NUM_PICTURES", "24")
    monkeypatch.setenv("STEPS", "2")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    install = notebook.cells.pop(1)
    assert install.source == '%pip install --quiet "lotlip[app]"'
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = []
    for cell in notebook.cells:
        shown += cell.get("outputs", [])
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(pictures) >= {"quickstart": 4, "fine_tune": 0, "long_texts": 2}[path.stem]
    if path.stem == "fine_tune":
        assert (tmp_path / "tuned" / "model.safetensors").exists()
        assert (tmp_path / "comparison.json").exists()
