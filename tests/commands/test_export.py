"""`lotlip export`: the graphs, and what is asked for wrongly."""

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


def test_graphs_and_a_table(model_dir, tmp_path, capsys):
    argv = ["export", "--model", str(model_dir), "--output_dir", str(tmp_path), "--dtype", "fp32", "float32"]
    assert lotlip.main(argv) == 0
    assert {path.name for path in (tmp_path / "onnx").glob("*.onnx")} == {"text_model.onnx", "vision_model.onnx"}
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| text_model.onnx", "| vision_model.onnx"]
    for name, megabytes, difference, cosine in rows:
        assert float(megabytes) == pytest.approx((tmp_path / "onnx" / name[2:]).stat().st_size / 1e6, abs=0.06)
        assert float(difference) < 1e-4 and cosine == "1.000000 |"


def test_a_mistake_is_one_line(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit) as exit:
        lotlip.main(["export", "--output_dir", str(tmp_path / "out"), "--dtype", "int4"])
    assert exit.value.code == 2 and "--dtype" in capsys.readouterr().err.splitlines()[-1]

    # a module that is None counts as not installed
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "modeling_lotlip.embedding.onnx")
    assert lotlip.main(["export", "--model", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lotlip export: error: ") and 'pip install "lotlip[onnx]"' in line
    assert not (tmp_path / "out").exists()
