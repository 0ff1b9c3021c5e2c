"""`lotlip evaluate` on benchmarks; mistakes in it and in `lotlip embed`: one line that names the remedy."""

import csv
import dataclasses
import hashlib
import json
import shutil

import pytest

import lotlip
from modeling_lotlip.data.benchmarks import BENCHMARKS
from tests.conftest import run_together
from tests.helpers.commands import read_error, run_command, to_argv
from tests.helpers.data_files import write_lines
from tests.helpers.dual_encoders import IMAGES, LONG, sentence
from tests.helpers.images import save_images


def test_a_model_whose_weights_were_cut_off(model_dir, tmp_path, capsys):
    shutil.copytree(model_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes((model_dir / "model.safetensors").read_bytes()[:1000])
    error = read_error(capsys, "evaluate", "--max_eval_samples", 2, "--model", tmp_path)
    assert f"--model_name_or_path {tmp_path}` cannot be used" in error


@pytest.mark.processes
def test_two_processes_say_once_which_images_have_no_captions(model_dir, tmp_path):
    folder = save_images(tmp_path / "images", IMAGES)
    content = (folder / "0.png").read_bytes()
    row = {"key": hashlib.sha256(content).hexdigest(), "caption": "A boat. The sea."}
    argv = to_argv(
        "evaluate",
        dataset_name="imagefolder",
        data_dir=folder,
        eval_split="train",
        caption_files=write_lines(tmp_path / "captions.jsonl", [row]),
        key_column="image",
        model=model_dir,
    )
    messages = run_together(tmp_path / "log", 2, argv)
    assert messages.count(f"Of {len(IMAGES)} images {len(IMAGES) - 1} have no captions in `--caption_files`") == 1


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
    rows = []
    for line in markdown.strip().splitlines():
        cells = line.strip("|").split("|")
        rows.append([cell.strip() for cell in cells])
    return rows[0], rows[2:]


def test_benchmarks_of_several_models_in_one_table(family_folders, benchmarks, tmp_path, capsys):
    clip = str(family_folders("clip"))
    own = str(family_folders("lotlip"))
    several = ("--model_name_or_path", clip, own, "--benchmark", "urban1k", "flickr30k")
    arguments = (*several, "--data_dir", benchmarks, "--allow_partial")
    rows = run_command("evaluate", tmp_path / "results.json", *arguments)["rows"]

    assert len(rows) == 4
    for row, (model, benchmark, kind, num_captions, model_type, max_length) in zip(
        rows,
        (
            (clip, "urban1k", "long", 9, "clip", 77),
            (clip, "flickr30k", "short", 45, "clip", 77),
            (own, "urban1k", "long", 9, "lotlip", 126),
            (own, "flickr30k", "short", 45, "lotlip", 126),
        ),
    ):
        assert row["model"] == model
        assert row["benchmark"] == benchmark
        assert row["revision"] is None
        assert row["dtype"] == "float32"
        assert row[f"{kind}_num_images"] == 9
        assert row[f"{kind}_num_captions"] == num_captions
        assert row["model_type"] == model_type
        assert row["max_length"] == max_length
        # each alone gives the same
        data = ("--benchmark", benchmark, "--data_dir", benchmarks / benchmark, "--allow_partial")
        alone = run_command("evaluate", tmp_path / "alone.json", "--model_name_or_path", model, *data)
        assert alone["rows"] == [row]

    # the same as CSV and as Markdown
    for name in ("results.csv", "results.md"):
        argv = to_argv("evaluate", *arguments, device="cpu", output_file=tmp_path / name)
        status = lotlip.main(argv)
        assert status == 0
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        for row, cells in zip(rows, csv.DictReader(file), strict=True):
            filled = {name: cell for name, cell in cells.items() if cell != ""}
            assert filled == {name: str(value) for name, value in row.items() if value is not None}
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
