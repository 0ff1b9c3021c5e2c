"""Folders of images, with archives and metadata."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import fsspec
import pandas as pd
import PIL.Image
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset_builder
from pyarrow import parquet

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.folder import list_files
from modeling_lotlip.data.image_folder import find_file_names, open_metadata
from modeling_lotlip.data.images import UnreadableImageError, read_image, undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.rows import read_key
from tests.helpers.data_files import write_captions, write_images, write_lines


both_ways = pytest.mark.parametrize("streaming", [False, True])


PHOTOS = [
    "IMG_1.JPG",
    "beach_test.png",
    "train_station.png",
    "val_thorens.png",
    "test/e.png",
    "2020 [x]/train.png",
]


def open_folder(folder: Path, is_builder: bool, **options) -> SourceArguments:
    if is_builder:
        return SourceArguments("imagefolder", data_dir=str(folder), **options)
    return SourceArguments(str(folder), **options)


@both_ways
@pytest.mark.parametrize("is_builder", [True, False])
def test_words_in_names_are_no_splits(tmp_path, caplog, is_builder, streaming):
    folder = tmp_path / "photos [2020]"
    write_images(folder, PHOTOS)
    (folder / "IMG_1.JPG.json").write_text("{}")  # what Google Takeout puts beside an image
    source = open_folder(folder, is_builder, streaming=streaming)
    splits = ["train", "test"]
    if not streaming:
        splits.append("train[:6]")
    for split in splits:
        rows = load_split(source, split).cast_column("image", Image(decode=False))
        paths = [Path(row["image"]["path"]) for row in rows]
        assert sorted(str(path.relative_to(folder)) for path in paths) == sorted(PHOTOS)
    assert "All images of" in caplog.text
    assert "is outside of test" in caplog.text


@both_ways
@pytest.mark.parametrize("is_builder", [True, False])
def test_folders_called_train_and_val_are_splits(tmp_path, caplog, is_builder, streaming):
    write_images(tmp_path, ["train/a/test_1.png", "train/b/2.png", "val/a/train.png", "val/b/4.png"])
    source = open_folder(tmp_path, is_builder, streaming=streaming)
    for split, names in {"train": ["test_1.png", "2.png"], "val": ["train.png", "4.png"]}.items():
        rows = load_split(source, split)
        assert rows.features["label"].names == ["a", "b"]
        rows = rows.cast_column("image", Image(decode=False))
        assert [Path(row["image"]["path"]).name for row in rows] == names
    assert not caplog.text


@both_ways
@pytest.mark.parametrize("is_builder", [True, False])
def test_images_without_a_line_of_metadata_are_named(tmp_path, caplog, is_builder, streaming):
    write_images(tmp_path, ["train_station.png", "beach_test.png", "in_no_line.png"])
    names = ["train_station.png", "beach_test.png"]
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": name, "caption": name[:5]} for name in names])
    rows = load_split(open_folder(tmp_path, is_builder, streaming=streaming), "train")
    assert [row["caption"] for row in rows] == ["train", "beach"]
    if not streaming:
        assert rows["file_name"][:] == names
    assert f"1 images are left out, as '{tmp_path}/in_no_line.png'" in caplog.text


def test_files_that_cannot_be_used_are_counted(tmp_path, caplog):
    write_images(tmp_path, ["a.png", ".hidden.png"])
    PIL.Image.new("RGB", (4, 3)).save(os.fsencode(tmp_path) + b"/\xff.png", "PNG")
    (tmp_path / "b.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "c.png")
    (tmp_path / "linked").symlink_to(tmp_path)
    assert len(load_split(open_folder(tmp_path, True), "train")) == 1
    assert "1 with a name that is not UTF-8" in caplog.text
    assert "1 linked to no file" in caplog.text
    assert "1 that is a pipe" in caplog.text
    assert "1 in a linked" in caplog.text


@both_ways
def test_images_of_any_column_are_not_left_out(tmp_path, caplog, streaming):
    write_images(tmp_path, ["a.png", "b.png", "c.png", "d.png", "unused.png"])
    row = {"image_file_name": "a.png", "mask_file_name": "b.png", "others_file_names": ["c.png", "d.png"]}
    write_lines(tmp_path / "metadata.jsonl", [row])
    assert len(list(load_split(open_folder(tmp_path, True, streaming=streaming), "train"))) == 1
    assert f"1 images are left out, as '{tmp_path}/unused.png'" in caplog.text


def test_tsv_files_beside_images_are_warned_of(tmp_path, caplog):
    write_images(tmp_path, ["0.png", "1.png"])
    (tmp_path / "captions.tsv").write_text("image\tcaption\n0.png\tA boat\n")
    assert len(load_split(SourceArguments(str(tmp_path)), "train")) == 2
    assert "left out: 1 with rows that are no metadata.jsonl, as 'captions.tsv'" in caplog.text


@both_ways
def test_keys_of_csv_files_are_text(tmp_path, streaming):
    (tmp_path / "rows.csv").write_text("key,number\n007,1\n,2\nNA,3\n")
    source = SourceArguments(str(tmp_path / "rows.csv"), streaming=streaming)
    rows = load_split(source, "train", with_images=False, key_column="key")
    assert [(read_key(row, "key"), row["number"]) for row in rows] == [("007", 1), (None, 2), ("NA", 3)]
    assert len(list(load_split(source, "train", with_images=False, key_column="other"))) == 3

    write_images(tmp_path / "folder", ["a.png", "b.png"])
    metadata = "file_name,key,number,word\na.png,007,1,\nb.png,7,2,NA\n"
    (tmp_path / "folder" / "metadata.csv").write_text(metadata)
    source = open_folder(tmp_path / "folder", True, streaming=streaming)
    rows = list(load_split(source, "train", key_column="key"))
    cells = [(row["key"], row["number"], row["word"]) for row in rows]
    assert cells == [("007", 1, None), ("7", 2, "NA")]
    assert [row["image"].size for row in rows] == [(4, 3), (4, 3)]


def test_metadata_of_equal_time_that_is_named_with_its_images_is_read_anew(tmp_path):
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "0.png")
    source = SourceArguments("imagefolder", data_files=[str(tmp_path / "*.png"), str(tmp_path / "metadata.jsonl")])
    found = []
    for caption in ("a red boat", "a car"):
        write_captions(tmp_path, "metadata.jsonl", [caption])
        found += load_split(source, "train", with_images=False)["caption"]
    assert found == ["a red boat", "a car"]


def test_files_are_known_by_their_names_in_the_folder_they_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [str(tmp_path / "more" / "a.json"), "more/b/a.json"]
    assert SourceArguments("json", data_files=files).data_file_names == ["a.json", "b/a.json"]
    assert SourceArguments("json").data_file_names == []


def write_archive(path: Path, names: list[str], metadata: list[dict]) -> None:
    """Writes a zip archive of images, with metadata if there are rows of it."""
    content = io.BytesIO()
    PIL.Image.new("RGB", (4, 3), "red").save(content, "PNG")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content.getvalue())
        if metadata:
            archive.writestr("metadata.jsonl", "\n".join(map(json.dumps, metadata)))


@both_ways
def test_images_in_archives_that_no_metadata_names_are_warned_of(tmp_path, caplog, streaming):
    metadata = [{"file_name": "a.png", "caption": "a boat"}]
    write_archive(tmp_path / "0.zip", ["a.png", "b.png", "__MACOSX/._a.png"], metadata)
    write_archive(tmp_path / "1.zip", ["c.png"], [])
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert [row["caption"] for row in rows.select_columns("caption")] == ["a boat"]
    archive = tmp_path / "0.zip"
    assert f"2 images are left out, as 'zip://b.png::{archive}': they are in no line of metadata" in caplog.text


@both_ways
def test_archives_without_metadata_leave_out_nothing(tmp_path, caplog, streaming):
    write_archive(tmp_path / "0.zip", ["a.png", "b.png"], [])
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert [row["file_name"] for row in rows] == ["0.zip/a.png", "0.zip/b.png"]
    assert "left out" not in caplog.text


@both_ways
def test_an_archive_that_was_cut_off_is_named(tmp_path, streaming):
    write_archive(tmp_path / "0.zip", ["a.png", "b.png"], [])
    content = (tmp_path / "0.zip").read_bytes()
    (tmp_path / "0.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="The archive .*0.zip was cut off, or is no zip file"):
        load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")


def test_a_damaged_image_in_an_archive_is_unreadable(tmp_path):
    write_archive(tmp_path / "0.zip", ["a.png", "b.png"], [])
    content = bytearray((tmp_path / "0.zip").read_bytes())
    content[60] ^= 0xFF  # of the first image
    (tmp_path / "0.zip").write_bytes(content)
    first, second = undecoded(load_split(SourceArguments(str(tmp_path)), "train"), "image")
    with pytest.raises(UnreadableImageError, match="Bad CRC-32 for file 'a.png'"):
        read_image(first["image"])
    assert read_image(second["image"]).size == (4, 3)


@both_ways
def test_texts_of_metadata_stay_as_they_are_wherever_they_stand(tmp_path, streaming):
    write_images(tmp_path, ["a.png"])
    captions = ["a boat"] * 10_000 + ["1.50", "1e3"]  # of which `datasets` reads 10,000 at a time
    lines = [f"a.png,{caption}\n" for caption in captions]
    (tmp_path / "metadata.csv").write_text("file_name,caption\n" + "".join(lines))
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert [row["caption"] for row in rows.select_columns("caption")] == captions


@both_ways
def test_texts_of_metadata_are_those_of_all_splits(tmp_path, streaming):
    for split, caption in {"train": "a boat", "test": "12"}.items():
        write_images(tmp_path, [f"{split}/a.png"])
        (tmp_path / split / "metadata.csv").write_text(f"file_name,caption\na.png,{caption}\n")
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train+test")
    assert [row["caption"] for row in rows.select_columns("caption")] == ["a boat", "12"]


def test_metadata_keeps_its_files_where_those_of_another_split_are_elsewhere(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png,a boat\n")
    with fsspec.open(f"memory://{tmp_path.name}/metadata.csv", "w") as file:
        file.write("file_name,caption\na.png,12\n")
    files = {"train": str(tmp_path / "metadata.csv"), "test": f"memory://{tmp_path.name}/metadata.csv"}
    builder = open_metadata(load_dataset_builder("imagefolder", data_files=files), "train")
    assert list_files(builder, "train") == [files["train"]]


@both_ways
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_folder_of_images_may_have_brackets_in_its_name(tmp_path, ending, streaming):
    folder = tmp_path / "photos [2024] *"
    write_images(folder, ["a.png"])
    (folder / "metadata.csv").write_text("file_name,caption,id\na.png,2024-01-02,007\n")
    if ending == "jsonl":
        (folder / "metadata.csv").unlink()
        write_lines(folder / "metadata.jsonl", [{"file_name": "a.png", "caption": "2024-01-02", "id": "007"}])
    (row,) = load_split(SourceArguments(str(folder), streaming=streaming), "train", key_column="id")
    assert row["caption"] == "2024-01-02"
    assert row["id"] == "007"
    assert row["image"].size == (4, 3)


def test_metadata_with_texts_and_lists_in_a_column_is_refused(tmp_path):
    write_images(tmp_path, ["0.png", "1.png"])
    captions = {"0.png": "A boat.", "1.png": ["A dog.", "A cat."]}
    rows = [{"file_name": name, "caption": caption} for name, caption in captions.items()]
    write_lines(tmp_path / "metadata.jsonl", rows)
    with pytest.raises(
        ValueError, match="'caption' holds values of several types: write those of one type in all rows"
    ):
        load_split(SourceArguments(str(tmp_path)), "train")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("are_archives", [False, True])
def test_metadata_of_several_types_in_its_files_is_refused(tmp_path, ending, are_archives):
    for folder, label in {"a": 1, "b": "007"}.items():
        write_images(tmp_path, [f"{folder}/0.png"])
        rows = [{"file_name": "0.png", "label": label}]
        if ending == "jsonl":
            write_lines(tmp_path / folder / "metadata.jsonl", rows)
        else:
            parquet.write_table(pa.Table.from_pylist(rows), tmp_path / folder / "metadata.parquet")
        if are_archives:
            pack(tmp_path / folder)
    with pytest.raises(
        ValueError, match="the column 'label' holds values of several|metadata.parquet.* has other types"
    ):
        load_split(SourceArguments(str(tmp_path)), "train")


def write_labels(folder: Path, names_of_classes: dict[str, list[str]]) -> None:
    """Writes folders of an image with a `metadata.parquet`, in which its label is 1 of some names."""
    for name, names in names_of_classes.items():
        write_images(folder, [f"{name}/0.png"])
        features = Features({"file_name": Value("string"), "label": ClassLabel(names=names)})
        rows = Dataset.from_dict({"file_name": ["0.png"], "label": [1]}, features=features)
        rows.to_parquet(folder / name / "metadata.parquet")


@both_ways
def test_labels_of_metadata_in_several_files_keep_their_names(tmp_path, streaming):
    write_labels(tmp_path, {"a": ["cat", "dog"], "b": ["cat", "dog"]})
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert [row["label"] for row in rows] == [1, 1]
    assert rows.features["label"].names == ["cat", "dog"]


def test_labels_of_metadata_that_mean_other_classes_in_another_file_are_refused(tmp_path):
    write_labels(tmp_path, {"a": ["cat", "dog"], "b": ["boat", "car"]})
    with pytest.raises(ValueError, match="b/metadata.parquet: the labels in the column 'label' are numbers to which"):
        load_split(SourceArguments(str(tmp_path)), "train")


def pack(folder: Path) -> None:
    """Makes a zip archive of a folder, and removes that."""
    shutil.make_archive(str(folder), "zip", folder)
    shutil.rmtree(folder)


# What is in a metadata.csv and metadata.jsonl
CELLS = {
    "caption": ["2020-01-01", "None", "7", "NA"],
    "year": ["1.50", "2.0", "x", "3"],
    "key": ["000", "001", "7", "8"],
}


@both_ways
@pytest.mark.parametrize("key_column", [None, "key"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_metadata_in_an_archive_is_read_as_in_a_folder(tmp_path, ending, key_column, streaming):
    table = pd.DataFrame({"file_name": [f"{index}.png" for index in range(4)], **CELLS})
    for name in ("folder", "archive"):
        write_images(tmp_path / name / "photos", table["file_name"].tolist())
        if ending == "csv":
            table.to_csv(tmp_path / name / "photos" / "metadata.csv", index=False)
        else:
            write_lines(tmp_path / name / "photos" / "metadata.jsonl", table.to_dict("records"))
    pack(tmp_path / "archive" / "photos")
    for name in ("folder", "archive"):
        rows = load_split(SourceArguments(str(tmp_path / name), streaming=streaming), "train", key_column=key_column)
        found = list(rows.select_columns(list(CELLS)))
        assert {column: [row[column] for row in found] for column in CELLS} == CELLS


def test_damaged_metadata_in_an_archive_is_named(tmp_path):
    write_archive(tmp_path / "0.zip", [], [{"file_name": "a.png", "caption": "a boat"}])
    content = bytearray((tmp_path / "0.zip").read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "0.zip").write_bytes(content)
    with pytest.raises(ValueError, match="zip://metadata.jsonl::.*0.zip cannot be read: Bad CRC-32"):
        load_split(SourceArguments("imagefolder", data_files=[str(tmp_path / "0.zip")]), "train")


@both_ways
def test_decimals_of_metadata_stay_decimals_beside_whole_numbers_of_another_file(tmp_path, streaming):
    for folder, number in {"a": 1, "b": 1.5, "c": 2}.items():
        write_images(tmp_path, [f"{folder}/0.png"])
        write_lines(tmp_path / folder / "metadata.jsonl", [{"file_name": "0.png", "number": number}])
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert sorted(row["number"] for row in rows) == [1, 1.5, 2]


@both_ways
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "zip"])
def test_files_of_metadata_are_read_in_the_order_of_their_names(tmp_path, ending, streaming):
    for folder in "cafbde":
        rows = [{"file_name": "0.png", "caption": folder}]
        if ending == "zip":
            write_archive(tmp_path / f"{folder}.zip", ["0.png"], rows)
            continue
        write_images(tmp_path, [f"{folder}/0.png"])
        if ending == "jsonl":
            write_lines(tmp_path / folder / "metadata.jsonl", rows)
        else:
            getattr(Dataset.from_list(rows), f"to_{ending}")(tmp_path / folder / f"metadata.{ending}")
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert "".join(row["caption"] for row in rows) == "abcdef"


def test_files_of_metadata_from_elsewhere_are_read_in_the_order_of_their_names(tmp_path):
    folder = f"memory://{tmp_path.name}"
    files = []
    for name in "cafbde":
        files.append(f"{folder}/{name}/metadata.csv")
        with fsspec.open(files[-1], "w") as file:
            file.write(f"file_name,caption\n0.png,{name}\n")
    rows = load_split(SourceArguments("imagefolder", data_files=files, streaming=True), "train")
    assert "".join(row["caption"] for row in undecoded(rows, "image")) == "abcdef"


# Labels in the metadata of three folders, of which the second says more than the others
LABELS_OF_METADATA = {
    "dates before words": ["2020-01-01", "a boat", None],
    "words before dates": ["a boat", "2020-01-01", None],
    "nothing before texts": [None, "x", None],
    "nothing before lists": [None, ["x"], None],
    "whole numbers before decimals": [1, 1.5, 2],
}


@both_ways
@pytest.mark.parametrize("name", LABELS_OF_METADATA)
@pytest.mark.parametrize("is_nothing_written", [False, True])
def test_files_of_metadata_have_the_columns_of_all(tmp_path, name, is_nothing_written, streaming):
    labels = LABELS_OF_METADATA[name]
    for index, label in enumerate(labels):
        row = {"file_name": "0.png"}
        if label is not None or is_nothing_written:
            row["label"] = label
        write_images(tmp_path, [f"{index}/0.png"])
        write_lines(tmp_path / str(index) / "metadata.jsonl", [row])
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert [row["label"] for row in rows] == labels


# More than 10 MiB of captions, which `datasets` reads at a time
MANY_CAPTIONS = [f"{index} boats. {'A red boat. ' * 20_000}" for index in range(45)]


@both_ways
@pytest.mark.parametrize("is_archive", [False, True])
@pytest.mark.parametrize(
    ("first", "last", "first_read"),
    [
        ({}, ["A boat."], None),
        ({"label": None}, ["A boat."], None),
        ({"label": []}, ["A boat."], []),
        ({"label": 1}, 1.5, 1),
        ({"label": {"a": "x"}}, {"a": "x", "b": "007"}, {"a": "x", "b": None}),
    ],
    ids=str,
)
def test_a_column_of_metadata_may_begin_late(tmp_path, first, last, first_read, is_archive, streaming):
    rows = [{"file_name": "0.png", "caption": caption, **first} for caption in MANY_CAPTIONS]
    rows.append({"file_name": "0.png", "caption": "A dog.", "label": last})
    if is_archive:
        write_archive(tmp_path / "0.zip", ["0.png"], rows)
    else:
        write_images(tmp_path, ["0.png"])
        write_lines(tmp_path / "metadata.jsonl", rows)
    found = list(undecoded(load_split(SourceArguments(str(tmp_path), streaming=streaming), "train"), "image"))
    assert [row["caption"] for row in found] == [*MANY_CAPTIONS, "A dog."]
    assert [row["label"] for row in found] == [first_read] * len(MANY_CAPTIONS) + [last]


def test_a_late_column_of_metadata_from_elsewhere_is_no_loss(tmp_path):
    rows = [{"file_name": "0.png", "caption": caption} for caption in MANY_CAPTIONS]
    rows.append({"file_name": "0.png", "caption": "A dog.", "label": "A boat."})
    file = f"memory://{tmp_path.name}/metadata.jsonl"
    with fsspec.open(file, "w") as opened:
        opened.write("\n".join(map(json.dumps, rows)))
    stream = load_split(SourceArguments("imagefolder", data_files=[file], streaming=True), "train")
    with pytest.raises(ValueError, match="metadata.jsonl has the column 'label', but none of the rows at its begin"):
        list(undecoded(stream, "image"))


@both_ways
def test_metadata_of_a_split_has_its_own_types(tmp_path, streaming):
    for split, label in {"train": 1, "test": "007"}.items():
        write_images(tmp_path, [f"{split}/0.png"])
        write_lines(tmp_path / split / "metadata.jsonl", [{"file_name": "0.png", "label": label}])
    source = SourceArguments(str(tmp_path), streaming=streaming)
    found = [next(iter(load_split(source, split)))["label"] for split in ("train", "test")]
    assert found == [1, "007"]


@both_ways
@pytest.mark.parametrize("has_metadata", [False, True])
def test_rows_of_a_folder_of_images_have_the_names_of_their_files(tmp_path, has_metadata, streaming):
    """Of several splits too, and of the first rows alone."""
    for split, name in {"train": "a.png", "test": "b.png"}.items():
        write_images(tmp_path, [f"{split}/{name}"])
        if has_metadata:
            write_lines(tmp_path / split / "metadata.jsonl", [{"file_name": name, "caption": "A boat."}])
    source = SourceArguments(str(tmp_path), streaming=streaming)
    for max_samples, expected in ((None, ["train/a.png", "test/b.png"]), (1, ["train/a.png"])):
        rows = load_split(source, "train+test", max_samples)
        assert find_file_names(rows) == "file_name"
        assert [row["file_name"] for row in rows] == expected


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("place", ["first", "later", "alone"])
def test_lists_that_begin_with_null_keep_their_values(tmp_path, streaming, place):
    """Of which pyarrow moves the values to other rows, if there is another null; else they cannot be read."""
    captions = [[None, "red"], ["green"], ["blue", None], ["yellow"]]
    if place == "alone":
        captions[2] = ["blue"]
    if place == "later":  # in several blocks of 300 kB
        words = "a boat at the pier " * 10
        captions = [[f"{words}{index}"] for index in range(3000)]
        captions += [[None, f"{words}{index}"] for index in range(3000)]
    write_images(tmp_path, ["0.png"])
    rows = []
    for index, texts in enumerate(captions):
        rows.append({"file_name": "0.png", "day": f"2020-01-0{index % 9 + 1}", "long_captions": texts})
    write_lines(tmp_path / "metadata.jsonl", rows)
    found = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train", with_images=False)
    for row, expected in zip(found, rows, strict=True):
        assert row["long_captions"] == expected["long_captions"]
        assert row["day"] == expected["day"]


def test_lists_from_elsewhere_that_begin_with_null_are_refused(tmp_path):
    captions = [[None, "red"], ["green"], ["blue", None], ["yellow"]]
    file = f"memory://{tmp_path.name}/metadata.jsonl"
    with fsspec.open(file, "w") as opened:
        opened.write("\n".join(json.dumps({"file_name": "0.png", "long_captions": texts}) for texts in captions))
    source = SourceArguments("imagefolder", data_files=[file], streaming=True)
    with pytest.raises(ValueError, match="metadata.jsonl has lists that begin with null, .*: leave null out of"):
        list(undecoded(load_split(source, "train"), "image"))


@both_ways
def test_images_of_phones_are_read_where_patterns_or_a_card_name_the_files(tmp_path, caplog, streaming):
    """`datasets` does not know their endings, and a card is read by it."""
    write_images(tmp_path, ["train/0.jpg", "train/1.png"])
    (tmp_path / "train" / "1.png").rename(tmp_path / "train" / "1.HEIC")
    source = SourceArguments(str(tmp_path), data_files=["train/*"], streaming=streaming)
    assert [row["file_name"] for row in load_split(source, "train")] == ["train/0.jpg", "train/1.HEIC"]
    assert "left out" not in caplog.text
    card = '---\nconfigs:\n- config_name: default\n  data_files: "train/*"\n---\n'
    (tmp_path / "README.md").write_text(card)
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert [row["file_name"] for row in rows] == ["train/0.jpg"]
    assert f"1 images of {tmp_path}, as 'train/1.HEIC', are in no split of its card" in caplog.text
    caplog.clear()
    folder = tmp_path / "with_metadata"  # which may name any image
    shutil.copytree(tmp_path, folder)
    (folder / "train" / "metadata.csv").write_text("file_name\n0.jpg\n1.HEIC\n")
    rows = load_split(SourceArguments(str(folder), streaming=streaming), "train")
    assert [row["file_name"] for row in rows] == ["train/0.jpg", "train/1.HEIC"]
    assert "in no split" not in caplog.text


@pytest.mark.parametrize(("separator", "name"), [(";", "file_name"), (",", "filename")])
def test_metadata_that_names_no_images_says_what_it_lacks(tmp_path, separator, name):
    write_images(tmp_path, ["0.png"])
    (tmp_path / "metadata.csv").write_text(f"{name}{separator}caption\n0.png{separator}A boat.\n")
    with pytest.raises(ValueError, match="metadata has no column file_name, which names the image"):
        load_split(SourceArguments(str(tmp_path)), "train")
