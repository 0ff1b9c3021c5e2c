"""`lotlip evaluate` on benchmarks; mistakes in it and in `lotlip embed`: one line that names the remedy."""

import csv
import dataclasses
import json
import shutil

import pytest

import lotlip
from modeling_lotlip.data.benchmarks import BENCHMARKS
from tests.helpers.commands import read_error, run_command
from tests.helpers.dual_encoders import IMAGES, LONG, sentence


def test_a_model_whose_weights_were_cut_off(model_dir, tmp_path, capsys):
    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes((model_dir / "model.safetensors").read_bytes()[:1000])
    error = read_error(capsys, "evaluate", "--max_eval_samples", 2, "--model", tmp_path)
    assert f"--model_name_or_path {tmp_path}` cannot be used" in error


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """The long captions as a complete Urban1k, the short ones as a part of Flickr30k, in miniature."""
    root = tmp_path / "benchmarks"
    for folder in ("urban1k/image", "urban1k/caption", "flickr30k/flickr30k-images"):
        (root / folder).mkdir(parents=True)
    rows = []
    for index, image in enumerate(IMAGES):
        image.save(root / f"urban1k/image/{index}.jpg")
        (root / f"urban1k/caption/{index}.txt").write_text(LONG[index][0] + "\nmore")
        image.save(root / f"flickr30k/flickr30k-images/{index}.jpg")
        captions = [{"raw": sentence(7 * index + k, 4)} for k in range(5)]
        rows.append({"filename": f"{index}.jpg", "split": "test", "sentences": captions})
    (root / "flickr30k/dataset_flickr30k.json").write_text(json.dumps({"images": rows}))

    urban1k = dataclasses.replace(BENCHMARKS["urban1k"], num_images=9, num_texts=9)
    monkeypatch.setitem(BENCHMARKS, "urban1k", urban1k)
    return root


def read_table(markdown):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.strip().splitlines()]
    return rows[0], rows[2:]


def test_benchmarks_of_several_models_in_one_table(family_folders, benchmarks, tmp_path, capsys):
    models = [family_folders("clip"), family_folders("lotlip")]
    arguments = ("--model_name_or_path", *models, "--benchmark", "urban1k", "flickr30k", "--data_dir", benchmarks)
    rows = run_command("evaluate", tmp_path / "results.json", *arguments, "--allow_partial")["rows"]

    assert [(row["model"], row["benchmark"]) for row in rows] == [
        (str(model), name) for model in models for name in ("urban1k", "flickr30k")
    ]
    for row in rows:
        kind = "long" if row["benchmark"] == "urban1k" else "short"
        assert row["revision"] is None
        assert row["dtype"] == "float32"
        assert row[f"{kind}_num_images"] == 9
        assert row[f"{kind}_num_captions"] == (9 if kind == "long" else 45)
        assert row["model_type"] == ("clip" if row["model"] == str(models[0]) else "lotlip")
        assert row["max_length"] == (77 if row["model"] == str(models[0]) else 126)
        # each alone gives the same
        name = row["benchmark"]
        model = row["model"]
        alone = ("--model_name_or_path", model, "--benchmark", name, "--data_dir", benchmarks / name)
        assert run_command("evaluate", tmp_path / "alone.json", *alone, "--allow_partial")["rows"] == [row]

    # the same as CSV and as Markdown
    for name in ("results.csv", "results.md"):
        argv = ["evaluate", "--device", "cpu", *arguments, "--allow_partial", "--output_file", tmp_path / name]
        assert lotlip.main(list(map(str, argv))) == 0
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        for row, cells in zip(rows, csv.DictReader(file), strict=True):
            assert {name: cell for name, cell in cells.items() if cell != ""} == {
                name: str(value) for name, value in row.items() if value is not None
            }
    markdown = (tmp_path / "results.md").read_text()
    assert markdown in capsys.readouterr().out
    titles, lines = read_table(markdown)
    assert titles[:4] == ["model", "urban1k I2T", "urban1k T2I", "flickr30k (9 of 1000 images) I2T"]
    for line, long, short in zip(lines, rows[::2], rows[1::2], strict=True):
        recalls = [long["long_i2t_recall@1"], long["long_t2i_recall@1"]]
        recalls += [short["short_i2t_recall@1"], short["short_t2i_recall@1"]]
        recalls += [(recalls[0] + recalls[2]) / 2, (recalls[1] + recalls[3]) / 2]
        share = (long["long_truncated"] + short["short_truncated"]) / 2
        assert line == [long["model"], *(f"{recall:.2f}" for recall in recalls), f"{100 * share:.0f}%"]
    assert rows[0]["long_truncated"] > rows[2]["long_truncated"] > 0
