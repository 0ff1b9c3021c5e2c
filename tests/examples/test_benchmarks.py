"""Every benchmark in miniature: what it measures is computed, and written."""

import itertools
import json
import multiprocessing
import runpy
import sys

import pytest
import torch
from scaffold import measure, report

from examples.benchmarks import gpu, rank, startup
from modeling_lotlip.metrics.image_text_retrieval import image_text_retrieval
from tests.conftest import ROOT, SERVER


BENCHMARKS = ROOT / "examples" / "benchmarks"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a benchmark in this process in miniature, and returns the tables that it wrote."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of its processes

    def run(name: str, *options: object) -> list[dict]:
        file = tmp_path / f"{name}.json"
        options = [*"--repeats 1 --threads 1 --device cpu".split(), *options]
        argv = [str(BENCHMARKS / f"{name}.py"), "--output_file", file, *options]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        runpy.run_path(argv[0], run_name="__main__")
        results = json.loads(file.read_text())
        assert results["machine"]["torch"] == torch.__version__
        assert results["settings"]["repeats"] == 1
        return results["tables"]

    return run


def test_variants_take_turns_and_are_compared_turn_by_turn(capsys):
    order = []
    variants = {name: lambda name=name: order.append(name) for name in "ab"}
    ticks = itertools.count()
    assert measure(variants, 2, "cpu", lambda: next(ticks)) == {"a": [1, 1], "b": [1, 1]}
    assert order == list("ababab")  # the first turn is not counted
    seconds = {"a": [1.0, 2.0, 9.0], "b": [2.0, 1.0, 3.0]}
    args = rank.RankArguments(device="cpu", threads=1)
    rows = report("Title", seconds, "a", args, {"images": {"b": "7"}})["rows"]
    assert rows["a"]["ratio"] == 1
    assert rows["b"] == {"median": 2, "min": 1, "max": 3, "ratio": 2, "images": "7"}
    assert "| b | 2.000 s | 1.000 s | 3.000 s | 2.00 | 7 |" in capsys.readouterr().out


def test_embed_measures_every_variant_of_texts_and_images(run):
    variants = ("original", "float32", "bfloat16", "OpenVINO float32", "auto", "sentence-transformers")
    tables = run("embed", "--layers", 1, "--size", 4, "--workloads", "short", "images", "--variants", *variants)
    assert [set(table["rows"]) for table in tables] == [set(variants), set(variants[:5])]
    for table in tables:
        cosines = {name: float(row["min cosine"] or "nan") for name, row in table["rows"].items()}
        assert table["rows"]["original"]["ratio"] == cosines["float32"] == 1
        assert 0.99 < cosines["bfloat16"] < 1
        assert cosines["OpenVINO float32"] > 0.9999
        assert cosines["auto"] > 0.99


def test_train_step_measures_every_variant(run):
    names = ["original", "float32, cached", "bfloat16", "float32, in chunks"]
    (table,) = run("train_step", "--layers", 1, "--images", 2, "--lengths", "mean_46", "--variants", *names)
    assert list(table["rows"]) == names
    assert table["peak_memory"] > 1e8


def test_the_scaffold_needs_nothing_that_windows_has_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    runpy.run_path(str(BENCHMARKS / "scaffold.py"))


def test_rank_measures_every_way_to_rank(run, monkeypatch):
    dtypes = []

    def compute(queries, candidates, dtype=None):
        dtypes.append(dtype)
        return similarity_blocks(queries, candidates, dtype)

    similarity_blocks = image_text_retrieval.similarity_blocks
    monkeypatch.setattr(image_text_retrieval, "similarity_blocks", compute)
    (table,) = run("rank", "--images", 300, "--width", 16)
    assert list(table["rows"]) == ["product alone", "product in blocks", "ranks", "sorting"]
    assert len(dtypes) == 5, "ranks once for their memory, then both ways in two turns"
    assert set(dtypes) == {torch.float64}, "blocks are of what ranks are counted in"


def test_images_measures_the_model_and_the_way_from_files(run):
    options = ("--layers", 1, "--images", 3, "--width", 700, "--height", 680, "--batch_size", 2, "--dtype", "bfloat16")
    (table,) = run("images", *options, "--dataloader_num_workers", 0)
    assert list(table["rows"]) == ["model alone", "from files, 0 workers", "encode_image", "sentence-transformers"]
    assert all(float(row["images a second"]) > 0 for row in table["rows"].values())


@pytest.mark.processes
def test_search_measures_every_method(run, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without faiss
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: SERVER)  # which has imported all
    (table,) = run("search", "--num_vectors", 1000, "--width", 16, "--queries", 20, "--device", "cpu:0")
    rows = table["rows"]
    # the second device has an exact search of its own
    assert "faiss is left out" in capsys.readouterr().out
    assert list(rows) == ["table", "memory", "exact", "exact, cpu:0"]
    assert rows["exact"]["recall@10"] == rows["exact, cpu:0"]["recall@10"] == 1
    assert rows["table"]["recall@10"] == rows["memory"]["recall@10"] > 0.98
    assert all(row["queries_a_second"] > 0 for row in rows.values())
    assert rows["table"]["megabytes_on_disk"] > 0.03


def test_search_with_filters(run):
    (table,) = run("search", "--filters", "--num_vectors", 1000, "--width", 16, "--queries", 20)
    assert table["title"] == "1,000 vectors of 16 in two folders"
    assert len(table["rows"]) == 8
    for row in table["rows"].values():
        assert row["recall@10"] > 0.98
        assert row["shown_recall"] == 1.0


def test_serve_measures_requests_together_and_one_after_the_other(run):
    (table,) = run("serve", "--layers", 1, "--clients", 3, "--requests", 2, "--words", 4)
    assert table["title"] == "3 clients, 4 words"
    assert list(table["rows"]) == ["together", "one after the other"]
    assert table["rows"]["one after the other"]["ratio"] == 1
    assert all(row["95th_percentile_seconds"] >= row["median_seconds"] > 0 for row in table["rows"].values())


def test_what_lotlip_answers_at_once(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for status, *command in startup.ANSWERS.values():
        startup.answer(status, *command)
    with pytest.raises(RuntimeError, match=f"ended with status {status}"):
        startup.answer(status + 1, *command)


def test_gpu_runs_every_benchmark_and_names_those_that_fail(monkeypatch, tmp_path, capfd):
    for name in ("embed", "train_step", "rank"):
        (tmp_path / f"{name}.py").write_text(f"import sys; print(sys.argv[1:]); sys.exit('{name}' == 'embed')")
    monkeypatch.setattr(gpu, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output_dir", str(tmp_path / "out"), "--device", "cpu"])
    with pytest.raises(SystemExit, match="Not measured: precisions, attention"):
        gpu.main()
    assert capfd.readouterr().out.count("'--device', 'cpu'") == 4
