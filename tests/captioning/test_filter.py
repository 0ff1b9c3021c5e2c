"""Files of captions through the rules."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from modeling_lotlip.captioning import files
from modeling_lotlip.captioning.report import NUM_EXAMPLES
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.output_folder import OutputFolder
from tests.helpers.caption_files import BOAT, SCHEMA, make_rows


def read_folder(folder: Path) -> list[dict]:
    paths = sorted(folder.glob("*.parquet"))
    assert [path.name for path in paths] == ["0.parquet", "1.parquet"]
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


def test_files(captions_dir, run, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROWS_PER_BATCH", 3)
    report = run(captions_dir / "*.parquet", "out", rules=["all", "duplicate=4"])
    before, after = make_rows(), read_folder(tmp_path / "out")
    expected = [None] * 24
    expected[19], expected[23] = "refusal", "of_the_past"
    expected[10] = "duplicate"  # of the images 0 to 5, of which 0 and 1 are one, the fifth
    assert [row["rejected_by"] for row in after] == expected
    for old, new in zip(before, after):
        assert {**old, "caption": None, "rejected_by": None} == {**new, "caption": None, "rejected_by": None}
    assert after[1]["caption"] == f"Boat 0. {BOAT}" and after[21]["caption"] is None
    assert after[19]["caption"] == before[19]["caption"] and after[23]["caption"] == before[23]["caption"]
    llava = report["captioners"]["llava"]
    assert llava == {
        "num_captions": 12,
        "num_failed": 1,
        "num_unmeasured": 0,
        "num_kept": 9,
        "rejected": {"refusal": 1, "of_the_past": 1},
        "changed": {"announcement": 9},
    }
    assert report["captioners"]["blip"]["num_kept"] == 11 and report["rules"]["duplicate"] == 4
    shown = [(example["rule"], example["captioner"]) for example in report["examples"]]
    assert shown.count(("refusal", "llava")) == 1 and shown.count(("announcement", "llava")) == NUM_EXAMPLES

    # a second time nothing changes
    again = run(tmp_path / "out" / "*.parquet", "again", rules=["all", "duplicate=4"])
    assert read_folder(tmp_path / "again") == after
    assert {name: of["rejected"] for name, of in again["captioners"].items()} == {
        name: of["rejected"] for name, of in report["captioners"].items()
    }
    assert not any(of["changed"] for of in again["captioners"].values())
    # and the files are read as caption files
    captions = CaptionFiles([str(tmp_path / "out" / "*.parquet")], "key", ["caption"])
    assert captions["0000"] == ["A picture of some things.", f"Boat 0. {BOAT}"]
    assert captions["0005"] == [f"Boat 5. {BOAT}"] and captions["0011"] == ["Picture number 11 of a boat."]
    assert parquet.read_schema(tmp_path / "out" / "0.parquet").equals(SCHEMA, check_metadata=True)


def test_other_files(run, tmp_path):
    """Columns of another name, and none of what `lotlip recaption` writes beside the caption."""
    table = pa.table({"id": [1, 2], "text": [f"The image shows a dog. {BOAT}", "Dog."], "box": [[1, 2], []]})
    parquet.write_table(table, tmp_path / "other.parquet")
    report = run(tmp_path / "other.parquet", "out", caption_column="text", without_rule=["duplicate"])
    assert report["captioners"]["captions"]["num_kept"] == 1
    assert parquet.read_table(tmp_path / "out" / "other.parquet").to_pylist() == [
        {"id": 1, "text": f"A dog. {BOAT}", "box": [1, 2], "rejected_by": None},
        {"id": 2, "text": "Dog.", "box": [], "rejected_by": "too_short"},
    ]
    with pytest.raises(ValueError, match="`--caption_column caption` is no column .* has .*'text'"):
        run(tmp_path / "other.parquet", "out")


def find_duplicates(run, tmp_path, rows: list[tuple[str, str, str]], most: int) -> list[int]:
    """The places of the captions, given with captioner and image, that are marked as duplicates."""
    table = pa.Table.from_pylist([dict(zip(("captioner", "sha256", "caption"), row)) for row in rows])
    parquet.write_table(table, tmp_path / "rows.parquet")
    run(tmp_path / "rows.parquet", "out", rules=[f"duplicate={most}"])
    marks = parquet.read_table(tmp_path / "out" / "rows.parquet").column("rejected_by").to_pylist()
    assert set(marks) <= {None, "duplicate"}
    return [place for place, mark in enumerate(marks) if mark is not None]


def test_duplicates_are_those_of_other_images(run, tmp_path):
    rows = [("llava", image, BOAT) for image in "abcab"]
    assert find_duplicates(run, tmp_path, rows, 1) == [1, 2, 4]
    assert find_duplicates(run, tmp_path, rows, 2) == [2]
    assert find_duplicates(run, tmp_path, rows, 3) == []


def test_duplicates_are_those_of_the_same_captioner(run, tmp_path):
    rows = [(captioner, image, BOAT) for image in "abc" for captioner in ("llava", "blip")]
    assert find_duplicates(run, tmp_path, rows, 2) == [4, 5]
    rows = [("llava", "a", BOAT), ("llava", "b", BOAT), ("blip", "c", BOAT), ("blip", "d", BOAT)]
    assert find_duplicates(run, tmp_path, rows, 2) == []
    assert find_duplicates(run, tmp_path, rows, 1) == [1, 3]


def test_files_of_the_same_name_and_of_other_kinds_are_refused(captions_dir, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.parquet").write_bytes((captions_dir / "0.parquet").read_bytes())
    patterns = [str(captions_dir / "*.parquet"), str(tmp_path / "b" / "*")]
    with pytest.raises(ValueError, match="Several of `--captions` are named 0.parquet"):
        files.find_files(patterns, tmp_path / "out")
    (tmp_path / "notes.txt").write_text("a boat")
    with pytest.raises(ValueError, match="must be parquet files"):
        files.find_files([str(tmp_path / "notes.txt")], tmp_path / "out")
    # named by two patterns, a file is one
    assert files.find_files([patterns[0], str(captions_dir / "0.*t")], tmp_path / "out") == [
        captions_dir / "0.parquet",
        captions_dir / "1.parquet",
    ]


def test_nothing_is_kept(captions_dir, run):
    """The report, for which nothing is loaded, says why."""
    report = run(captions_dir / "*.parquet", "out", rules=["too_short=100"], dual_encoder="nothing")
    assert {name: of["num_kept"] for name, of in report["captioners"].items()} == {"blip": 0, "llava": 0}
    assert report["captioners"]["llava"]["rejected"] == {"too_short": 10, "of_the_past": 1}
    assert "image_text_similarity" not in report


def test_bad_files(captions_dir, run, tmp_path):
    (captions_dir / "1.parquet").write_bytes((captions_dir / "1.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match="1.parquet cannot be read, it is damaged or cut off"):
        run(captions_dir / "*.parquet", "out")
    assert not (tmp_path / "out").exists()  # nothing by halves
    with pytest.raises(ValueError, match="names no file"):
        run(captions_dir / "*.csv", "out")
    with pytest.raises(ValueError, match="is the folder of"):
        run(captions_dir / "0.parquet", "captions")
    parquet.write_table(SCHEMA.empty_table(), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="have no rows"):
        run(tmp_path / "empty.parquet", "empty")
    parquet.write_table(pa.table({"caption": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match="`--caption_column caption` of .* must hold strings, not int64"):
        run(tmp_path / "numbers.parquet", "numbers")
    run(captions_dir / "0.parquet", "out")
    with pytest.raises(ValueError, match="holds other captions, such as 0.parquet"):
        run(tmp_path / "empty.parquet", "out")


def test_two_runs_do_not_write_to_one_folder(captions_dir, run, tmp_path):
    with OutputFolder(tmp_path / "out", content="filtered captions"):
        with pytest.raises(ValueError, match="is written by process"):
            run(captions_dir / "*.parquet", "out")
    run(captions_dir / "*.parquet", "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.*")) == [
        ".lock",
        "0.parquet",
        "1.parquet",
        "settings.json",
    ]
