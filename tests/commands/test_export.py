"""`lotlip export`: what is asked for wrongly (its graphs: tests/embedding/test_onnx.py)."""

import dataclasses
import sys

import pytest

import lotlip
from modeling_lotlip.commands.export import ExportArguments
from modeling_lotlip.embedding.onnx import SUFFIXES


def test_dtypes_are_those_of_the_library():
    (dtype,) = (field for field in dataclasses.fields(ExportArguments) if field.name == "dtype")
    arguments = ExportArguments(output_dir="out", dtype=list(dtype.metadata["choices"]))
    assert arguments.dtype == list(SUFFIXES)


def test_a_mistake_is_one_line(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit) as exit:
        lotlip.main(["export", "--output_dir", str(tmp_path / "out"), "--dtype", "int4"])
    assert exit.value.code == 2 and "--dtype" in capsys.readouterr().err

    # a module that is None counts as not installed
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "modeling_lotlip.embedding.onnx")
    assert lotlip.main(["export", "--model", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lotlip export: error: ") and 'pip install "lotlip[onnx]"' in line
    assert not (tmp_path / "out").exists()
