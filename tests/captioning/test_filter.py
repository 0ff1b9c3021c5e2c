"""Files of captions through the rules."""

import hashlib
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import concatenate_datasets
from pyarrow import parquet
from transformers import AutoModel, AutoProcessor
from transformers.utils import logging

from modeling_lotlip import DualEncoder, LotlipModel, LotlipProcessor
from modeling_lotlip.captioning.arguments import FilterArguments, RuleArguments, SimilarityArguments
from modeling_lotlip.captioning.filter import (
    CaptionFilter,
    Examples,
    cast_column,
    find_files,
    format_report,
    has_kept,
    set_column,
)
from modeling_lotlip.captioning.records import RowsHash, hash_caption
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.utils.sub_captions import join_sub_captions, mark_sub_captions, split_sub_captions
from tests.helpers.caption_files import BOAT, SCHEMA, make_rows
from tests.helpers.methods import PooledModel, make_like


def read_folder(folder: Path) -> list[dict]:
    rows = []
    for name in ("0.parquet", "1.parquet"):
        rows += parquet.read_table(folder / name).to_pylist()
    assert len(list(folder.glob("*.parquet"))) == 2
    return rows


def test_files_are_mended_and_marked_row_by_row(captions_dir, run, tmp_path):
    run(captions_dir / "*.parquet", "out")
    before = make_rows()
    after = read_folder(tmp_path / "out")
    expected = [None] * 24
    expected[19] = "refusal"
    expected[23] = "of_the_past"
    for index in range(0, 12, 2):  # of the images 0 to 5, of which 0 and 1 are one
        expected[index] = "duplicate"
    assert [row["rejected_by"] for row in after] == expected
    for old, new in zip(before, after, strict=True):
        untouched = old.keys() - {"caption", "rejected_by"}
        assert {name: old[name] for name in untouched} == {name: new[name] for name in untouched}
    assert after[1]["caption"] == f"Boat 0. {BOAT}"
    assert after[1]["caption_before_rules"] == before[1]["caption"]
    assert after[21]["caption"] is None
    for index in (19, 23):
        assert after[index]["caption"] == before[index]["caption"]
        assert after[index]["caption_before_rules"] is None


def test_the_report_counts_captions_by_captioner_and_rule(captions_dir, run):
    report = run(captions_dir / "*.parquet", "out")
    examples = report["llava"].pop("examples")
    assert report["llava"] == {
        "num_captions": 12,
        "num_failed": 1,
        "num_unmeasured": 0,
        "num_edited": 0,
        "num_kept": 9,
        "rejected": {"refusal": 1},
        "changed": {"announcement": 9},
        "marked_before": {"of_the_past": 1},
        "left_marked": {"of_the_past": 1},
    }
    assert report["blip"]["num_kept"] == 6
    assert examples["rejected"] == {"refusal": [{"key": "0009", "caption": "I cannot see the image."}]}
    assert len(examples["changed"]["announcement"]) == 5
    example = examples["changed"]["announcement"][0]
    number = int(example["key"])
    assert example["before"] == f"The image shows boat {number}. {BOAT}"
    assert example["after"] == f"Boat {number}. {BOAT}"


def test_a_second_time_nothing_changes(captions_dir, run, tmp_path):
    report = run(captions_dir / "*.parquet", "out")
    again = run(tmp_path / "out" / "*.parquet", "again")
    assert read_folder(tmp_path / "again") == read_folder(tmp_path / "out")
    for name, counts in again.items():
        marked_before = counts.pop("marked_before")
        assert marked_before == report[name]["rejected"] | report[name]["left_marked"]
        del report[name]["marked_before"]
    assert again == report


def test_filtered_files_are_read_as_caption_files(captions_dir, run, tmp_path):
    run(captions_dir / "*.parquet", "out")
    captions = CaptionFiles([str(tmp_path / "out" / "*.parquet")], "key", ["caption"])
    assert captions["0005"] == [f"Boat 5. {BOAT}"]
    assert captions["0011"] == ["Picture number 11 of a boat."]
    first, second = (parquet.read_schema(tmp_path / "out" / f"{shard}.parquet") for shard in (0, 1))
    assert first.equals(second, check_metadata=True)
    assert first.names == [*SCHEMA.names, "caption_before_rules", "caption_hash"]
    assert first.metadata == SCHEMA.metadata


def read_captions(path: Path) -> list[tuple]:
    """The caption, that of before the rules, and the mark of each row of a file."""
    rows = parquet.read_table(path).to_pylist()
    return [(row["caption"], row["caption_before_rules"], row["rejected_by"]) for row in rows]


def write_captions(path: Path, rows: list[dict]) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), path)


def test_rules_are_taken_back(run, tmp_path):
    texts = [f"The image shows a dog. {BOAT}", "I cannot see the image.", BOAT]
    write_captions(tmp_path / "rows.parquet", [{"caption": text} for text in texts])
    run(tmp_path / "rows.parquet", "out")
    report = run(tmp_path / "out" / "rows.parquet", "back", without_rules=["all"])
    assert read_captions(tmp_path / "back" / "rows.parquet") == [(text, None, None) for text in texts]
    assert report["captions"]["num_kept"] == 3
    assert report["captions"]["rejected"] == {}
    assert report["captions"]["marked_before"] == {"refusal": 1}


def test_only_the_rule_that_is_left_out_is_taken_back(run, tmp_path):
    texts = [f"The image shows a dog. {BOAT} In the", "I cannot see the image.", "Dog."]
    write_captions(tmp_path / "rows.parquet", [{"caption": text} for text in texts])
    run(tmp_path / "rows.parquet", "out")
    report = run(tmp_path / "out" / "rows.parquet", "back", without_rules=["announcement", "too_short"])
    assert read_captions(tmp_path / "back" / "rows.parquet") == [
        (f"The image shows a dog. {BOAT}", texts[0], None),
        (texts[1], None, "refusal"),
        ("Dog.", None, None),
    ]
    assert report["captions"]["marked_before"] == {"refusal": 1, "too_short": 1}


def test_an_answer_that_was_cut_off_is_judged_as_one(run, tmp_path):
    expected = [
        (BOAT, f"{BOAT} Behind it lies a", None),
        ("A red boat that lies", None, "cut_off"),
        ("A boat that lies on", None, "cut_off"),
    ]
    names = ("caption", "caption_before_rules", "rejected_by")
    rows = [dict(zip(names, values)) for values in expected]
    # of the last one only the mark is known
    for row, is_cut_off in zip(rows, (True, True, None), strict=True):
        row["is_cut_off"] = is_cut_off
        row["caption_hash"] = hash_caption(row["caption"])
    write_captions(tmp_path / "rows.parquet", rows)
    run(tmp_path / "rows.parquet", "out")
    assert read_captions(tmp_path / "out" / "rows.parquet") == expected


DOG = f"The image shows a dog. {BOAT}"


@pytest.mark.parametrize(
    ("original", "edited"),
    [
        (DOG, f"A poodle. {BOAT}"),
        (DOG, f"Dog. {BOAT}"),  # shorter
        (DOG, f"The image shows a poodle. {BOAT}"),  # which the rules would cut
        (DOG, DOG),  # put back
        (f"{DOG} In the", f"A dog. {BOAT} In the"),  # what some of the rules make of it
        (BOAT, f"Certainly! {BOAT}"),  # of what no rule had changed
        ("I cannot see the image.", f"The image shows a poodle. {BOAT}"),  # of what a rule had rejected
    ],
)
def test_a_caption_that_somebody_has_edited_stays_as_it_is_written(run, tmp_path, caplog, original, edited):
    write_captions(tmp_path / "rows.parquet", [{"caption": original, "is_cut_off": True}, {"caption": BOAT}])
    run(tmp_path / "rows.parquet", "out")
    first, second = parquet.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    write_captions(tmp_path / "edited.parquet", [first | {"caption": edited}, second])

    for name, options in (("again", {}), ("once_more", {}), ("back", {"without_rules": ["all"]})):
        caplog.clear()
        report = run(tmp_path / "edited.parquet", name, **options)
        assert "1 captions have been edited since rules were applied to them" in caplog.text
        assert report["captions"]["num_edited"] == 1
        assert read_captions(tmp_path / name / "edited.parquet") == [
            (edited, first["caption_before_rules"], None),
            (BOAT, None, None),
        ]
        assert read_column(tmp_path / name / "edited.parquet", "caption_hash") == [
            hash_caption(edited, is_edited=True),
            hash_caption(BOAT),
        ]
        shutil.copy(tmp_path / name / "edited.parquet", tmp_path / "edited.parquet")


def test_an_edited_caption_may_be_rejected(run, tmp_path):
    write_captions(tmp_path / "rows.parquet", [{"caption": DOG}])
    run(tmp_path / "rows.parquet", "out")
    (row,) = parquet.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    write_captions(tmp_path / "edited.parquet", [row | {"caption": "Dog."}])
    run(tmp_path / "edited.parquet", "again")
    assert read_captions(tmp_path / "again" / "edited.parquet") == [("Dog.", DOG, "too_short")]


def test_the_similarity_of_an_edited_caption_is_forgotten_with_its_mark(run, tmp_path):
    mark = "image_text_similarity"
    rows = [{"caption": f"{BOAT} {number}", "rejected_by": mark, mark: 0.1} for number in ("One.", "Two.")]
    write_captions(tmp_path / "rows.parquet", rows)
    run(tmp_path / "rows.parquet", "out")
    first, second = parquet.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    write_captions(tmp_path / "edited.parquet", [first | {"caption": f"{BOAT} Three."}, second])
    run(tmp_path / "edited.parquet", "again")
    assert read_column(tmp_path / "again" / "edited.parquet", mark) == [None, pytest.approx(0.1)]
    assert read_column(tmp_path / "again" / "edited.parquet", "rejected_by") == [None, mark]

    # one that is measured after the edit stays
    first, second = parquet.read_table(tmp_path / "again" / "edited.parquet").to_pylist()
    write_captions(tmp_path / "measured.parquet", [first | {mark: 0.5}, second])
    run(tmp_path / "measured.parquet", "once_more")
    assert read_column(tmp_path / "once_more" / "measured.parquet", mark) == [0.5, pytest.approx(0.1)]


def test_a_caption_that_somebody_has_taken_out_is_rejected_by_no_rule(run, tmp_path):
    write_captions(tmp_path / "rows.parquet", [{"caption": None, "rejected_by": "refusal"}, {"caption": BOAT}])
    report = run(tmp_path / "rows.parquet", "out")
    assert read_captions(tmp_path / "out" / "rows.parquet") == [(None, None, None), (BOAT, None, None)]
    assert report["captions"]["num_failed"] == 1


def test_texts_of_a_file_that_are_not_utf_8_are_refused(run, tmp_path):
    captions = pa.array([BOAT.encode(), b"\xff\xfe boat"]).view(pa.string())
    parquet.write_table(pa.table({"caption": captions}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="rows.parquet cannot be read, it is damaged"):
        run(tmp_path / "rows.parquet", "out")


def test_an_edited_output_file_is_not_written_over(run, tmp_path):
    write_captions(tmp_path / "rows.parquet", [{"caption": DOG}, {"caption": BOAT}])
    for _ in range(2):  # what nobody has edited is
        run(tmp_path / "rows.parquet", "out")
    rows = pd.read_parquet(tmp_path / "out" / "rows.parquet")
    rows.loc[0, "caption"] = f"A poodle. {BOAT}"
    rows.to_parquet(tmp_path / "out" / "rows.parquet")
    with pytest.raises(ValueError, match="out/rows.parquet has been changed since it was written"):
        run(tmp_path / "rows.parquet", "out")
    assert read_captions(tmp_path / "out" / "rows.parquet")[0][0] == f"A poodle. {BOAT}"


def test_a_file_of_another_folder_is_not_written_over(run, tmp_path):
    """It may hold what somebody has edited there."""
    write_captions(tmp_path / "rows.parquet", [{"caption": BOAT}])
    for name in ("out", "other"):
        run(tmp_path / "rows.parquet", name)
    shutil.copy(tmp_path / "other" / "rows.parquet", tmp_path / "out" / "rows.parquet")
    with pytest.raises(ValueError, match="out/rows.parquet has been changed since it was written"):
        run(tmp_path / "rows.parquet", "out")
    (tmp_path / "other").rename(tmp_path / "moved")
    run(tmp_path / "rows.parquet", "moved")


def test_marks_of_another_column_are_not_taken_away(run, tmp_path):
    write_captions(tmp_path / "rows.parquet", [{"a": "I cannot see the image.", "b": BOAT}])
    run(tmp_path / "rows.parquet", "out", caption_column="a")
    with pytest.raises(ValueError, match="rows.parquet was filtered by `--caption_column a`"):
        run(tmp_path / "out" / "rows.parquet", "again", caption_column="b")


@pytest.mark.parametrize("rules", [["all"], []])
@pytest.mark.parametrize("blank", ["", "  ", None])
def test_a_blank_caption_is_none(run, tmp_path, blank, rules):
    write_captions(tmp_path / "rows.parquet", [*[{"caption": blank}] * 5, {"caption": BOAT}])
    report = run(tmp_path / "rows.parquet", "out", without_rules=rules)
    assert report["captions"]["num_failed"] == 5
    assert report["captions"]["num_kept"] == 1
    assert report["captions"]["rejected"] == {}


def test_images_beside_captions_are_not_looked_at(run, tmp_path):
    rows = [{"caption": BOAT, "image": {"bytes": b"one", "path": None}, "files": [b"two"]}]
    write_captions(tmp_path / "rows.parquet", rows)
    run(tmp_path / "rows.parquet", "out")
    assert parquet.read_table(tmp_path / "out" / "rows.parquet").to_pylist()[0]["image"] == rows[0]["image"]
    table = pa.Table.from_pylist(rows)
    other = pa.Table.from_pylist([rows[0] | {"image": {"bytes": b"three", "path": None}}])
    edited = pa.Table.from_pylist([rows[0] | {"caption": "By hand."}])
    hashes = []
    for of_rows in (table, other, edited):
        rows_hash = RowsHash(tmp_path)
        rows_hash.update(of_rows)
        hashes.append(rows_hash.to_metadata())
    assert hashes[0] == hashes[1] != hashes[2]


def test_hashes_of_something_else_are_refused(run, tmp_path):
    write_captions(tmp_path / "rows.parquet", [{"caption": DOG, "caption_hash": 32 * "a"}])
    with pytest.raises(ValueError, match="rows.parquet has 'a*' in its column 'caption_hash'"):
        run(tmp_path / "rows.parquet", "out")


@pytest.mark.parametrize("key", [0, 1])
def test_an_image_by_the_number_0_is_one_of_several_rows(run, tmp_path, key):
    write_captions(tmp_path / "rows.parquet", 4 * [{"key": key, "caption": BOAT}])
    report = run(tmp_path / "rows.parquet", "out")
    assert report["captions"]["num_kept"] == 4


def test_a_caption_before_rules_without_a_hash_is_refused(run, tmp_path):
    write_captions(tmp_path / "rows.parquet", [{"caption": f"A poodle. {BOAT}", "caption_before_rules": DOG}])
    with pytest.raises(ValueError, match="rows.parquet has captions in 'caption_before_rules' without a hash"):
        run(tmp_path / "rows.parquet", "out")


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("is_cut_off", "False", "booleans"),
        ("image_text_similarity", "0.3", "numbers"),
        ("caption_hash", 1, "strings"),
        ("caption", 1, "strings"),
        ("captioner", 1, "strings"),
        ("rejected_by", False, "strings"),
    ],
)
def test_columns_of_another_type_are_refused(run, tmp_path, column, value, wanted):
    write_captions(tmp_path / "rows.parquet", [{"caption": BOAT} | {column: value}])
    with pytest.raises(ValueError, match=f"The column '{column}' of .*rows.parquet must hold {wanted}, not"):
        run(tmp_path / "rows.parquet", "out")


def test_a_caption_that_some_rules_have_cut_is_not_taken_for_an_edited_one(run, tmp_path, caplog):
    original = f"The image shows a dog. {BOAT} In the"
    write_captions(tmp_path / "rows.parquet", [{"caption": original}])
    run(tmp_path / "rows.parquet", "out", without_rules=["cut_off"])
    run(tmp_path / "out" / "rows.parquet", "again")
    assert read_captions(tmp_path / "again" / "rows.parquet") == [(f"A dog. {BOAT}", original, None)]
    assert "edited" not in caplog.text


def read_column(file: Path, name: str) -> list:
    return parquet.read_table(file).column(name).to_pylist()


def test_a_mark_of_the_similarity_stays_where_none_is_measured(run, tmp_path):
    mark = "image_text_similarity"
    write_captions(tmp_path / "rows.parquet", [{"caption": BOAT, "rejected_by": mark, mark: 0.1}])
    report = run(tmp_path / "rows.parquet", "out")
    assert report["captions"]["left_marked"] == {mark: 1}
    assert report["captions"]["rejected"] == {}
    assert read_column(tmp_path / "out" / "rows.parquet", "rejected_by") == [mark]
    report = run(tmp_path / "rows.parquet", "back", without_rules=["all"])
    assert report["captions"]["num_kept"] == 1


def test_the_similarity_of_a_text_that_changes_is_forgotten(run, tmp_path):
    texts = [f"The image shows a dog. {BOAT}", BOAT]
    rows = [{"caption": text, "image_text_similarity": 0.5} for text in texts]
    write_captions(tmp_path / "rows.parquet", rows)
    run(tmp_path / "rows.parquet", "out")
    assert read_column(tmp_path / "out" / "rows.parquet", "image_text_similarity") == [None, 0.5]


def test_examples_are_chosen_among_all_and_the_same_in_every_run():
    kept = []
    for _ in range(2):
        examples = Examples()
        for number in range(1000):
            examples.add("llava", "refusal", {"key": str(number)})
        kept.append(examples.list("llava"))
    numbers = [int(example["key"]) for example in kept[0]["refusal"]]
    assert kept[0] == kept[1]
    assert len(set(numbers)) == 5
    assert max(numbers) > 100


def test_files_of_other_columns_are_filtered_and_keep_them(run, tmp_path):
    """Columns of another name, and none of what `lotlip recaption` writes beside the caption."""
    text = f"The image shows a dog. {BOAT}"
    table = pa.table({"id": [1, 2], "text": [text, "Dog."], "box": [[1, 2], []]})
    parquet.write_table(table, tmp_path / "other.parquet")
    report = run(tmp_path / "other.parquet", "out", caption_column="text", min_words=2)
    assert report["captions"]["num_kept"] == 1
    first, second = parquet.read_table(tmp_path / "out" / "other.parquet").to_pylist()
    mended = {"text": f"A dog. {BOAT}", "text_before_rules": text, "rejected_by": None}
    mended["text_hash"] = hash_caption(mended["text"])
    assert first == {"id": 1, "box": [1, 2], **mended}
    marked = {"text": "Dog.", "text_before_rules": None, "rejected_by": "too_short"}
    marked["text_hash"] = hash_caption("Dog.")
    assert second == {"id": 2, "box": [], **marked}
    with pytest.raises(ValueError, match="`--caption_column caption` is no column .* has .*'text'"):
        run(tmp_path / "other.parquet", "out")


@pytest.mark.parametrize("bad", ["", " ", "\x00", "\n\n", "{}", "x" * 100_000, '"', "<think>", "- ", None])
def test_a_bad_caption_leaves_the_others_as_they_are(run, tmp_path, bad):
    captions = [BOAT, bad, f"Look. {BOAT}"]
    write_captions(tmp_path / "rows.parquet", [{"caption": caption} for caption in captions])
    report = run(tmp_path / "rows.parquet", "out")
    first, second, third = read_captions(tmp_path / "out" / "rows.parquet")
    assert first == (BOAT, None, None)
    assert second[0] == bad
    assert third == (f"Look. {BOAT}", None, None)
    assert report["captions"]["num_kept"] == 2


def test_of_several_files_the_damaged_one_is_named_and_nothing_is_written(captions_dir, run, tmp_path):
    (captions_dir / "1.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"1.parquet cannot be read, it is damaged or cut off: .*[^.]\.$"):
        run(captions_dir / "*.parquet", "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("images, mark", [("abc", None), ("abcab", None), ("abcd", "duplicate")])
def test_duplicates_are_those_of_more_than_three_images(run, tmp_path, images, mark):
    """By one captioner: that another says the same is no fault."""
    rows = [{"captioner": "llava", "sha256": image, "caption": BOAT} for image in images]
    rows += [{"captioner": "blip", "sha256": "e", "caption": BOAT}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    run(tmp_path / "rows.parquet", "out")
    marks = read_column(tmp_path / "out" / "rows.parquet", "rejected_by")
    assert marks == [mark] * len(images) + [None]


def test_a_named_column_of_keys_that_is_not_there_is_refused(captions_dir, run):
    with pytest.raises(ValueError, match="`--file_key_column urll` is no column of .*0.parquet"):
        run(captions_dir / "*.parquet", "out", file_key_column="urll")


@pytest.mark.parametrize("known_by, is_said", [(None, True), ("sha256", False), ("key", False)])
def test_without_keys_it_is_said_that_each_row_is_an_image(run, tmp_path, caplog, known_by, is_said):
    logging.get_logger("transformers").warning_once.cache_clear()
    row = {"caption": BOAT}
    if known_by is not None:
        row[known_by] = "a"
    rows = [row] * 5
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    report = run(tmp_path / "rows.parquet", "out")
    assert ("have neither a column 'key' nor 'sha256'" in caplog.text) == is_said
    assert report["captions"]["num_kept"] == (0 if is_said else 5)


@pytest.mark.parametrize("other", ["Café.parquet", "cafe\u0301.parquet"])
def test_names_that_the_disk_takes_for_one_file_are_refused_and_only_there(tmp_path, monkeypatch, other):
    for name in ("café.parquet", other):
        (tmp_path / name).touch()
    patterns = [str(tmp_path / "*.parquet")]
    monkeypatch.setattr("modeling_lotlip.captioning.filter.are_one_file", lambda name, other, folder: False)
    assert len(find_files(patterns, tmp_path / "out")) == 2
    monkeypatch.setattr("modeling_lotlip.captioning.filter.are_one_file", lambda name, other, folder: True)
    with pytest.raises(ValueError, match="which are one file on the disk of `--output_dir"):
        find_files(patterns, tmp_path / "out")


def test_files_of_the_same_name_are_refused(captions_dir, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.parquet").write_bytes((captions_dir / "0.parquet").read_bytes())
    patterns = [str(captions_dir / "*.parquet"), str(tmp_path / "b" / "*")]
    with pytest.raises(ValueError, match="2 files of `--captions` have the name 0.parquet: filter"):
        find_files(patterns, tmp_path / "out")
    # named by two patterns, a file is one
    assert find_files([patterns[0], str(captions_dir / "0.*t")], tmp_path / "out") == [
        captions_dir / "0.parquet",
        captions_dir / "1.parquet",
    ]


def test_a_damaged_file_is_refused_and_leaves_no_output(captions_dir, run, tmp_path):
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
    with pytest.raises(ValueError, match="The column 'caption' of .* must hold strings, not int64"):
        run(tmp_path / "numbers.parquet", "numbers")
    run(captions_dir / "0.parquet", "out")
    with pytest.raises(ValueError, match="holds other captions, such as 0.parquet"):
        run(tmp_path / "empty.parquet", "out")


def test_captions_unlike_their_images(run, tmp_path, model_dir):
    scenes = load_scenes(8, seed=5)
    files = [row["image"]["bytes"] for row in undecoded(scenes, "image")]
    digests = [hashlib.sha256(file).hexdigest() for file in files]
    words = ["red", "green", "blue", "yellow", "sea", "sand", "house", "tree"]
    rows = []
    for digest, word in zip([*digests[:7], "f" * 64], words):
        row = {"key": None, "sha256": digest}
        llava = f"a photo of a {word} boat. the ground is sand."
        rows.append({**row, "captioner": "llava", "caption": llava})
        rows.append({**row, "captioner": "blip", "caption": f"the tree is {word} and {word}. a house."})
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet")
    scenes.save_to_disk(tmp_path / "scenes")
    options = {
        "dual_encoder": str(model_dir),
        "dataset_name": str(tmp_path / "scenes"),
        "key_column": "image",
        "file_key_column": "sha256",
        "batch_size": 3,
    }

    model = AutoModel.from_pretrained(model_dir).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    expected = {}
    for row in rows:
        if row["sha256"] in digests:
            image = scenes[digests.index(row["sha256"])]["image"]
            text = join_sub_captions(split_sub_captions(row["caption"]))  # as evaluations read it
            with torch.inference_mode():
                outputs = model(**processor(text=[text], images=image, return_tensors="pt"))
            similarity = torch.cosine_similarity(outputs.text_embeds, outputs.image_embeds).item()
            expected[row["captioner"], row["sha256"]] = similarity
    threshold = sorted(expected.values())[5] + 1e-4

    def read_rows(folder: str) -> dict:
        rows = parquet.read_table(tmp_path / folder / "captions.parquet").to_pylist()
        return {(row["captioner"], row["sha256"]): row for row in rows}

    rule = "image_text_similarity"
    report = run(tmp_path / "captions.parquet", "out", **options, min_image_text_similarity=threshold)
    for key, row in read_rows("out").items():
        assert row[rule] == pytest.approx(expected.get(key), abs=1e-5)
        if key in expected and expected[key] < threshold:
            assert row["rejected_by"] == rule
        else:
            assert row["rejected_by"] is None
    # of the image that is not in the dataset nothing is measured
    assert {name: of["num_unmeasured"] for name, of in report.items()} == {"blip": 1, "llava": 1}
    # images outside the part that was read are unmeasured, too
    limits = {"max_train_samples": 3, "min_image_text_similarity": -1, "reject_unmeasured": True}
    few = run(tmp_path / "captions.parquet", "few", **options, **limits)
    kept = [row["sha256"] for row in read_rows("few").values() if row["rejected_by"] is None]
    assert set(kept) == set(digests[:3])
    assert few["llava"]["num_unmeasured"] == few["llava"]["rejected"][rule] == 5
    assert few["llava"]["num_kept"] == 3
    with pytest.raises(ValueError, match=f"`--dual_encoder {tmp_path}` cannot be used"):
        run(tmp_path / "captions.parquet", "few", **options | {"dual_encoder": str(tmp_path)})
    with pytest.raises(ValueError, match="None of 8 images has a caption"):
        run(tmp_path / "captions.parquet", "none", **options | {"file_key_column": "captioner"})


def test_two_images_of_one_key_are_no_similarity(run, tmp_path, model_dir):
    scenes = load_scenes(3, seed=5)
    scenes = concatenate_datasets([scenes, scenes.select([0])])  # an image may come twice
    save = {"once": ["a", "b", "c", "a"], "twice": ["a", "b", "a", "a"]}
    for name, keys in save.items():
        scenes.add_column("id", keys).save_to_disk(tmp_path / name)
    parquet.write_table(pa.Table.from_pylist([{"key": "a", "caption": BOAT}]), tmp_path / "captions.parquet")
    options = {"dual_encoder": str(model_dir), "key_column": "id", "min_image_text_similarity": -1}
    report = run(tmp_path / "captions.parquet", "out", **options, dataset_name=str(tmp_path / "once"))
    assert sum(counts["num_unmeasured"] for counts in report.values()) == 0
    with pytest.raises(ValueError, match="Two different images have the key 'a', the second in row 2"):
        run(tmp_path / "captions.parquet", "other", **options, dataset_name=str(tmp_path / "twice"))


def test_captions_are_embedded_as_long_ones(run, tmp_path, model_dir):
    """Of which a class of one's own may make something else."""
    make_like(LotlipModel.from_pretrained(model_dir), PooledModel).save_pretrained(tmp_path / "pooled")
    LotlipProcessor.from_pretrained(model_dir).save_pretrained(tmp_path / "pooled")
    scenes = load_scenes(2, seed=5)
    scenes.add_column("id", ["0", "1"]).save_to_disk(tmp_path / "scenes")
    captions = ["a photo of a red boat. the ground is sand.", "the tree is green. a house."]
    rows = [{"key": f"{index}", "caption": text} for index, text in enumerate(captions)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet")
    options = {"dual_encoder": str(tmp_path / "pooled"), "dataset_name": str(tmp_path / "scenes")}
    run(tmp_path / "captions.parquet", "out", **options, key_column="id", min_image_text_similarity=-1)
    encoder = DualEncoder.from_pretrained(tmp_path / "pooled", device="cpu")
    texts = encoder.encode_text([mark_sub_captions(text) for text in captions], is_long=True)
    expected = (texts * encoder.encode_image(list(scenes["image"]))).sum(axis=1)
    written = parquet.read_table(tmp_path / "out" / "captions.parquet")
    assert written["image_text_similarity"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_images_that_captions_were_not_made_of_are_counted(run, tmp_path, model_dir, caplog):
    """As where images were numbered anew since."""
    scenes = load_scenes(4, seed=5)
    digests = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in undecoded(scenes, "image")]
    rows = []
    for index, digest in enumerate(digests):
        caption = f"{BOAT} {index}"
        rows.append({"key": f"{index}", "sha256": digest, "captioner": "llava", "caption": caption})
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet")
    options = {"dual_encoder": str(model_dir), "key_column": "id", "min_image_text_similarity": -1}
    for name, keys in {"same": "0123", "other": "1023"}.items():
        scenes.add_column("id", list(keys)).save_to_disk(tmp_path / name)
        run(tmp_path / "captions.parquet", f"out_{name}", **options, dataset_name=str(tmp_path / name))
        assert ("2 of 4 images are not those that the captions" in caplog.text) == (name == "other")


def test_what_is_not_a_number_is_unmeasured():
    options = {"dual_encoder": "model", "min_image_text_similarity": 0.3}
    arguments = FilterArguments(["captions.parquet"], Path("out"))
    captions = CaptionFilter(arguments, RuleArguments(), SimilarityArguments(**options))
    captions.similarities = {("1", BOAT): float("nan"), ("2", BOAT): 0.5, ("3", BOAT): 0.25}
    rows = [{"key": key, "caption": BOAT, "rejected_by": None} for key in (1, 2, 3, 4)]
    captions.compare(rows)
    assert [row["rejected_by"] for row in rows] == [None, None, "image_text_similarity", None]
    assert [row["image_text_similarity"] for row in rows] == [None, 0.5, 0.25, None]


def test_captions_of_which_the_model_reads_the_beginning_are_counted(run, tmp_path, model_dir, caplog):
    scenes = load_scenes(2, seed=5)
    scenes.add_column("id", ["a", "b"]).save_to_disk(tmp_path / "scenes")
    captions = {"a": BOAT, "b": " ".join(f"The boat number {number} is red." for number in range(50))}
    write_captions(tmp_path / "rows.parquet", [{"key": key, "caption": text} for key, text in captions.items()])
    run(
        tmp_path / "rows.parquet",
        "out",
        dual_encoder=str(model_dir),
        key_column="id",
        without_rules=["all"],
        dataset_name=str(tmp_path / "scenes"),
    )
    assert "1 of 2 captions have more than the 126 tokens that the dual encoder reads" in caplog.text


def test_a_similarity_of_an_earlier_model_stays_beside_no_caption():
    arguments = FilterArguments(["captions.parquet"], Path("out"))
    captions = CaptionFilter(arguments, RuleArguments(), SimilarityArguments(dual_encoder="model"))
    captions.similarities = {("1", BOAT): 0.5}
    row = {"key": "1", "caption": BOAT, "image_text_similarity": 0.25}
    rows = [row | {"rejected_by": None}, row | {"rejected_by": "too_long"}]
    captions.compare(rows)
    assert [row["image_text_similarity"] for row in rows] == [0.5, None]


def test_a_pattern_of_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`--captions .*nothing.parquet` names no file"):
        find_files([str(tmp_path / "nothing.parquet")], tmp_path / "out")


def test_an_output_folder_of_the_captions_or_of_others_is_refused(tmp_path):
    for name in ("mine/a.parquet", "out/b.parquet"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    captions = [str(tmp_path / "mine" / "*.parquet")] * 2
    with pytest.raises(ValueError, match="mine` is the folder of `--captions`: name another one"):
        find_files(captions, tmp_path / "mine")
    with pytest.raises(ValueError, match="out` holds other captions, such as b.parquet"):
        find_files(captions, tmp_path / "out")
    assert find_files(captions, tmp_path / "new") == [tmp_path / "mine" / "a.parquet"]


@pytest.mark.parametrize(
    ("values", "wanted", "expected"),
    [
        (pa.array([None, None], pa.null()), pa.string(), [None, None]),
        (pa.array([None, None], pa.float64()), pa.string(), [None, None]),
        (pa.array([float("nan"), None], pa.float64()), pa.string(), [None, None]),
        (pa.array(["a", None]), pa.string(), ["a", None]),
        (pa.array(["a", None], pa.large_string()), pa.string(), ["a", None]),
        (pa.array(["a", None]).dictionary_encode(), pa.string(), ["a", None]),
        (pa.array([1.0, 0.0, None]), pa.bool_(), [True, False, None]),
        (pa.array([1, 0]), pa.bool_(), [True, False]),
        (pa.array([1, None]), pa.float32(), [1.0, None]),
        (pa.array([0.5, float("nan")]), pa.float32(), [0.5, None]),
    ],
)
def test_columns_that_other_programs_write_otherwise_are_read(values, wanted, expected):
    table = cast_column(pa.table({"column": values}), "column", wanted, Path("a.parquet"))
    assert table["column"].to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "wanted", "named"),
    [
        (pa.array([1]), pa.string(), "strings, not int64"),
        (pa.array([0.5, None]), pa.string(), "strings, not double"),
        (pa.array(["False"]), pa.bool_(), "booleans, not string"),
        (pa.array([0.5]), pa.bool_(), "booleans, not double"),
        (pa.array(["0.5"]), pa.float32(), "numbers, not string"),
    ],
)
def test_columns_of_something_else_are_refused(values, wanted, named):
    with pytest.raises(ValueError, match=f"The column 'column' of a.parquet must hold {named}"):
        cast_column(pa.table({"column": values}), "column", wanted, Path("a.parquet"))


def test_a_column_is_replaced_where_it_is_or_added_at_the_end():
    table = pa.table({"a": [1], "b": [2]}).replace_schema_metadata({"huggingface": "{}", "mine": "kept"})
    replaced = set_column(table, "a", pa.array([3]))
    assert replaced.to_pydict() == {"a": [3], "b": [2]}
    added = set_column(table, "c", pa.array([4]))
    assert list(added.to_pydict().items()) == [("a", [1]), ("b", [2]), ("c", [4])]
    assert added.schema.metadata == {b"mine": b"kept"}, "the types of columns are not those of before"


def make_counts(**changes: object) -> dict:
    counts = {"num_captions": 9, "num_failed": 1, "num_unmeasured": 0, "num_kept": 0}
    return counts | {"rejected": {}, "changed": {}, "marked_before": {}, "left_marked": {}} | changes


def test_a_report_has_a_row_for_each_captioner_and_each_rule():
    report = {
        "a": make_counts(num_kept=5, rejected={"refusal": 2}, left_marked={"mine": 1}, marked_before={"mine": 1}),
        "b": make_counts(num_unmeasured=4, changed={"lists": 3}, left_marked={"refusal": 1}),
    }
    captions, rules = format_report(report).split("\n\n")
    assert captions.splitlines()[2:] == ["| a | 9 | 1 | 0 | 5 | 1 |", "| b | 9 | 1 | 4 | 0 | 0 |"]
    assert rules.splitlines()[2:] == [
        "| refusal | 2 | 0 | 1 | 0 |",
        "| mine | 1 | 0 | 0 | 0 |",
        "| lists | 0 | 0 | 0 | 3 |",
    ]
    assert has_kept(report)
    assert not has_kept({"b": report["b"]})


def test_each_pattern_must_name_a_file(tmp_path):
    (tmp_path / "a.parquet").touch()
    patterns = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    with pytest.raises(ValueError, match="`--captions .*b.parquet` names no file"):
        find_files(patterns, tmp_path / "out")


@pytest.mark.parametrize("pattern", ["**/*.parquet", "deep [1]/er/a.parquet"])
def test_files_of_captions_in_folders_in_folders_are_found(tmp_path, pattern):
    file = tmp_path / "deep [1]" / "er" / "a.parquet"
    file.parent.mkdir(parents=True)
    file.touch()
    assert find_files([str(tmp_path / pattern)], tmp_path / "out") == [file]


def test_a_pattern_of_all_folders_names_files_alone(tmp_path):
    """A folder would be read as one file of all that it holds."""
    files = [tmp_path / "captions" / "a.parquet", tmp_path / "captions" / "more" / "b.parquet"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert find_files([str(tmp_path / "captions" / "**")], tmp_path / "out") == files
