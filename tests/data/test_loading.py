"""The dataset that the data arguments name: splits, files, columns, and what is said of those that are not there."""

import json
import os
import zipfile
from pathlib import Path

import pandas as pd
import PIL.Image
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, Value, load_dataset
from pyarrow import parquet

from modeling_lotlip.data import loading, options
from modeling_lotlip.data.arguments import CaptionArguments, SourceArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.images import UnreadableImageError, undecoded
from modeling_lotlip.data.loading import finish_split, load_split, split_by_process
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.rows import get_columns
from modeling_lotlip.data.scenes import make_scene
from tests.helpers.data_files import read_numbers, write_captions, write_images, write_json, write_lines, write_shard


both_ways = pytest.mark.parametrize("streaming", [False, True])


def test_scenes_are_drawn_without_a_dataset_and_split():
    source = SourceArguments()
    assert load_split(source, "train", 3)["caption"] == [make_scene(0, index).caption for index in range(3)]
    assert len(load_split(source, "test")) == 256
    expected = [make_scene(1, index).caption for index in (253, 254)]
    assert load_split(source, "test[-3:]", 2)["caption"] == expected


def test_what_scenes_have_not():
    with pytest.raises(ValueError, match="drawn scenes has no split 'validation' but 'train', 'test'"):
        load_split(SourceArguments(), "validation")
    with pytest.raises(ValueError, match="--data_dir has no effect on the drawn scenes: .*with --dataset_name"):
        load_split(SourceArguments(data_dir="photos"), "train")


@both_ways
def test_the_only_split_is_taken_and_logged_once(tmp_path, caplog, streaming):
    file = write_json(tmp_path / "a.json", range(5))
    source = SourceArguments("json", data_files=[file], streaming=streaming)
    for _ in range(2):
        assert read_numbers(source, "test") == list(range(5))
    told = [record.message for record in caplog.records if "no split" in record.message]
    assert len(told) == 1
    assert f"--data_files {tmp_path}/a.json` has no split 'test': its only one, 'train'" in told[0]
    if not streaming:
        assert read_numbers(source, "validation[1:3]") == [1, 2]


def test_of_several_splits_one_must_be_named(tmp_path):
    write_images(tmp_path, ["train/a.png", "test/b.png", "test/c.png"])
    source = SourceArguments("imagefolder", data_dir=str(tmp_path))
    assert len(load_split(source, "train")) == 1
    assert len(load_split(source, "test")) == 2
    assert len(load_split(source, "train+test")) == len(load_split(source, "all")) == 3
    named = f"`--dataset_name imagefolder --data_dir {tmp_path}`"
    for split in ("val", "val[:1]"):
        with pytest.raises(ValueError, match=f"{named} has no split 'val' but 'train', 'test': name one"):
            load_split(source, split)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_text_that_is_not_utf_8_is_named_and_a_byte_order_mark_is_none(tmp_path, name):
    write_images(tmp_path, ["a.png"])
    lines = {
        "metadata.csv": "file_name,caption\na.png,für\n",
        "metadata.jsonl": '{"file_name":"a.png","caption":"für"}',
    }
    (tmp_path / name).write_bytes(("\ufeff" + lines[name]).encode())
    assert load_split(SourceArguments(str(tmp_path)), "train")["caption"][:] == ["für"]
    (tmp_path / name).write_bytes(lines[name].encode("latin-1"))
    with pytest.raises(ValueError, match=f"{name} is not UTF-8: save it as UTF-8"):
        load_split(SourceArguments(str(tmp_path)), "train")


def test_files_outside_of_the_splits_of_names_are_warned_of(tmp_path, caplog):
    write_json(tmp_path / "train.json", range(2))
    extra = write_json(tmp_path / "extra.json", range(3))
    assert read_numbers(SourceArguments("json", data_dir=str(tmp_path)), "train") == [0, 1]
    assert f"1 of 2 files of {tmp_path} are left out, as '{extra}': words in the names" in caplog.text


@pytest.mark.parametrize("name", ["b.CSV", "b.jsonl", "b.jsonl.gz", "more/b.PARQUET"])
def test_files_of_rows_with_another_ending_are_warned_of(tmp_path, caplog, name):
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text(f"number\n{number}\n")
    (tmp_path / "settings.json").write_text("{}")  # of the command that wrote the others
    (tmp_path / "metadata.json").write_text('{\n  "license": "mine"\n}\n')
    (tmp_path / "notes.txt").write_text("no rows")
    extra = tmp_path / name
    extra.parent.mkdir(exist_ok=True)
    extra.touch()
    assert read_numbers(SourceArguments(str(tmp_path)), "train") == [0, 1, 2]
    assert f"1 files of {tmp_path}/ are left out, as '{extra}': those with the ending .csv are read" in caplog.text


@pytest.mark.parametrize("content", ['[{"number": 2}]', '{"number": 2}\n{"number": 3}\n'])
def test_json_with_rows_beside_csv_files_is_warned_of(tmp_path, caplog, content):
    (tmp_path / "0.csv").write_text("number\n0\n")
    (tmp_path / "1.csv").write_text("number\n1\n")
    (tmp_path / "more.json").write_text(content)
    assert read_numbers(SourceArguments(str(tmp_path)), "train") == [0, 1]
    assert "1 files of" in caplog.text
    assert "more.json': those with the ending .csv are read" in caplog.text


def test_a_card_says_what_the_splits_are(tmp_path):
    write_images(tmp_path, ["a.png", "b.png"])
    card = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: first",
        "    path: a.png",
        "---",
        "",
    ]
    (tmp_path / "README.md").write_text("\n".join(card))
    assert len(load_split(SourceArguments(str(tmp_path)), "first")) == 1


def test_splits_of_a_folder_that_was_saved(tmp_path):
    whole = Dataset.from_dict({"number": [0, 1, 2]})
    whole.save_to_disk(tmp_path / "one")
    DatasetDict({"train": whole, "val": whole.select([2])}).save_to_disk(tmp_path / "two")
    assert read_numbers(SourceArguments(str(tmp_path / "one")), "any[1:]") == [1, 2]
    assert read_numbers(SourceArguments(str(tmp_path / "two")), "val") == [2]
    assert read_numbers(SourceArguments(str(tmp_path / "two")), "train[:2]", 1) == [0]
    with pytest.raises(ValueError, match="has no split 'test' but 'train', 'val'"):
        read_numbers(SourceArguments(str(tmp_path / "two")), "test")
    with pytest.raises(ValueError, match="has no effect on .*was saved with `save_to_disk`: leave it"):
        read_numbers(SourceArguments(str(tmp_path / "one"), data_dir="a"), "train")


@pytest.mark.parametrize("format_type", ["torch", "numpy", None])
def test_rows_that_were_saved_with_a_format_are_read_without_it(tmp_path, format_type):
    rows = {"id": [5, 6], "caption": [["a boat", "a car"], ["a tree"]]}
    formatted = Dataset.from_dict(rows).with_format(format_type, columns=["id"])
    DatasetDict({"train": formatted}).save_to_disk(tmp_path / "saved")
    loaded = load_split(SourceArguments(str(tmp_path / "saved")), "train", with_images=False)
    assert loaded[0] == {"id": 5, "caption": ["a boat", "a car"]}


def test_a_folder_that_was_saved_without_rows_is_named(tmp_path):
    Dataset.from_dict({"number": []}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=f"`--dataset_name {tmp_path}/saved` cannot be read, since it has no rows"):
        read_numbers(SourceArguments(str(tmp_path / "saved")), "train")


def test_a_split_without_rows_that_was_saved_leaves_the_others_as_they_are(tmp_path):
    splits = {"val": [], "train": [0, 1], "test": [2]}
    saved = DatasetDict({name: Dataset.from_dict({"number": numbers}) for name, numbers in splits.items()})
    saved.save_to_disk(tmp_path / "saved")
    source = SourceArguments(str(tmp_path / "saved"))
    assert read_numbers(source, "train") == [0, 1]
    assert read_numbers(source, "all") == [0, 1, 2]
    with pytest.raises(ValueError, match="The split 'val' of .* cannot be read, since it has no rows"):
        read_numbers(source, "val")


def test_all_scenes_are_those_of_both_splits(monkeypatch):
    monkeypatch.setattr(loading, "NUM_SCENES", {"train": 5, "test": 3})
    rows = load_split(SourceArguments(), "all")
    expected = [make_scene(0, index).caption for index in range(5)] + [
        make_scene(1, index).caption for index in range(3)
    ]
    assert rows["caption"][:] == expected


def test_there_are_8192_scenes_to_train_on_and_256_to_test_on():
    assert loading.NUM_SCENES == {"train": 8192, "test": 256}


@both_ways
@pytest.mark.parametrize("again", ["*.jsonl", "2.jsonl", "./2.jsonl"])
def test_a_file_that_several_patterns_name_is_read_once(tmp_path, monkeypatch, again, streaming):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "1.jsonl", range(3))
    write_json(tmp_path / "2.jsonl", range(3))
    source = SourceArguments("json", data_files=["1.jsonl", "2.jsonl", again], streaming=streaming)
    assert read_numbers(source, "train") == [0, 1, 2, 0, 1, 2], "files of equal content are two"


def test_what_is_not_there_is_named(tmp_path):
    nothing = str(tmp_path / "nothing")
    with pytest.raises(ValueError, match=f"`--dataset_name {nothing}` cannot be loaded: .*Check these arguments"):
        load_split(SourceArguments(nothing), "train")
    with pytest.raises(ValueError, match=f"`--dataset_name json --data_files {nothing} b.json` cannot be loaded"):
        load_split(SourceArguments("json", data_files=[nothing, "b.json"]), "train")
    (tmp_path / "a.tar").touch()
    for files in ([f"{nothing}/*.tar"], [str(tmp_path / "*.tar"), f"{nothing}/*.tar"]):
        with pytest.raises(ValueError, match=rf"cannot be loaded: Unable to find '{nothing}/\*.tar'"):
            load_split(SourceArguments("webdataset", data_files=files), "train")
    (tmp_path / "damaged.json").write_text('{"number": ')
    with pytest.raises(ValueError, match="damaged.json` cannot be read: .*JSON"):
        load_split(SourceArguments("json", data_files=[str(tmp_path / "damaged.json")]), "train")
    (tmp_path / "rows.csv").write_text("image;caption\na.png;a boat\nb.png;a boat, red\n")
    with pytest.raises(ValueError, match="(?s)rows.csv` cannot be read: .*line 3.*Separate cells by ',', and"):
        load_split(SourceArguments(str(tmp_path / "rows.csv")), "train")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for streaming in (False, True):
        source = SourceArguments("json", data_files=[str(empty)], streaming=streaming)
        with pytest.raises(ValueError, match="--data_files .*empty.jsonl` cannot be read: there are no rows"):
            load_split(source, "train")


@both_ways
@pytest.mark.parametrize(("name", "builder"), [("a.csv", "csv"), ("a.jsonl", "json"), ("A.PARQUET", "parquet")])
def test_a_file_by_its_name_is_that_of_its_builder(tmp_path, name, builder, streaming):
    write_images(tmp_path, ["photos/a.png"])
    rows = Dataset.from_dict({"image": ["photos/a.png"], "caption": ["a boat"]})
    path = str(tmp_path / name)
    getattr(rows, f"to_{builder}")(path)
    source = SourceArguments(path, streaming=streaming)
    assert source == SourceArguments(builder, data_files=[path], streaming=streaming)
    (row,) = load_split(source, "test")
    assert row["caption"] == "a boat"
    assert row["image"].size == (4, 3)
    with pytest.raises(ValueError, match="--data_files has no effect on the file"):
        SourceArguments(path, data_files=["other.csv"])


def members(key: str, text: bytes = b"a boat", about: bytes = b'{"url": "x.org"}') -> dict[str, bytes]:
    return {f"{key}.jpg": b"jpeg", f"{key}.txt": text, f"{key}.json": about}


@both_ways
def test_shards_that_were_cut_off(tmp_path, streaming):
    shards = [write_shard(tmp_path / f"{number}.tar", members(str(number))) for number in range(3)]
    files = [str(tmp_path / "*.tar")]
    source = SourceArguments("webdataset", data_files=files, image_column="jpg", streaming=streaming)
    rows = load_split(source, "test", 2).select_columns("txt")
    assert len(list(rows)) == 2
    content = shards[1].read_bytes()
    for part in (content[: 4 * 512], content[:-1024].rstrip(b"\0"), content[:100], b""):
        shards[1].write_bytes(part)
        with pytest.raises(ValueError, match="The shard .*1.tar was cut off: write it anew"):
            load_split(source, "train")


BAD_ROWS = {
    "a caption that is a number": {"image": "0.png", "caption": 5},
    "a caption that is a dictionary": {"image": "0.png", "caption": {"text": "A boat."}},
    "no caption": {"image": "0.png"},
    "no image": {"image": None, "caption": "A boat."},
    "an image that is not there": {"image": "none.png", "caption": "A boat."},
    "an image that is none": {"image": "torn.png", "caption": "A boat."},
}


@both_ways
@pytest.mark.parametrize("position", [0, 3])
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_leaves_the_others_as_they_are(tmp_path, caplog, bad, position, streaming):
    good = [{"image": f"{index}.png", "caption": f"Boat {index}."} for index in range(3)]
    write_images(tmp_path, [row["image"] for row in good])
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    rows = [*good[:position], BAD_ROWS[bad], *good[position:]]
    source = SourceArguments(write_lines(tmp_path / "rows.jsonl", rows), streaming=streaming)
    loaded = undecoded(load_split(source, "train"), "image")
    reader = RowReader(["image", "caption"], CaptionArguments())
    captions = {}
    unreadable = []
    for index, row in enumerate(loaded):
        try:
            items = list(reader(index, row))
        except UnreadableImageError:
            unreadable.append(index)
        else:
            captions[index] = [item.content for item in items[1:]]
    if "caption" in bad:
        assert unreadable == []
    else:
        assert unreadable == [position]
    of_bad_row = captions.pop(position, [])
    assert of_bad_row == []
    assert list(captions.values()) == [[row["caption"]] for row in good]
    is_named = f"The captions of row {position} are left out" in caplog.text
    assert is_named == ("caption that is" in bad)


def write_table(path: Path, rows: list[dict]) -> None:
    names = {name: None for row in rows for name in row}
    Dataset.from_list([names | row for row in rows]).to_parquet(path)


WRITERS = {
    "csv": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False),
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "parquet": write_table,
}


@both_ways
@pytest.mark.parametrize("bad", [name for name in BAD_ROWS if "that is a" not in name])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_bad_row_of_another_file_leaves_the_others_as_they_are(tmp_path, ending, bad, streaming):
    good = [{"image": f"{index}.png", "caption": f"Boat {index}."} for index in range(3)]
    write_images(tmp_path, [row["image"] for row in good])
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    WRITERS[ending](tmp_path / f"rows.{ending}", [good[0], BAD_ROWS[bad], *good[1:]])
    source = SourceArguments(str(tmp_path / f"rows.{ending}"), streaming=streaming)
    reader = RowReader(["image", "caption"], CaptionArguments())
    captions = []
    unreadable = []
    for index, row in enumerate(undecoded(load_split(source, "train"), "image")):
        try:
            captions.append([item.content for item in reader(index, row)][1:])
        except UnreadableImageError:
            unreadable.append(index)
    if bad == "no caption":
        assert captions.pop(1) == []
    else:
        assert unreadable == [1]
    assert captions == [[row["caption"]] for row in good]


def test_the_first_rows_of_a_stream_are_the_same_for_any_number_of_processes(tmp_path):
    names = [write_json(tmp_path / "a.json", range(4)), write_json(tmp_path / "b.json", range(4, 40))]
    source = SourceArguments("json", data_files=names, streaming=True)
    stream = load_split(source, "train", 20, with_images=False)
    numbers = []
    for process in range(2):
        numbers += [row["number"] for row in split_by_process(stream, process, 2)]
    assert sorted(numbers) == list(range(20))


@both_ways
@pytest.mark.parametrize(("num_rows", "num_processes"), [(7, 3), (2, 4)])
def test_each_row_falls_to_one_process(num_rows, num_processes, streaming):
    rows = Dataset.from_dict({"number": list(range(num_rows))})
    if streaming:
        rows = rows.to_iterable_dataset()
    numbers = []
    counts = []
    for process in range(num_processes):
        part = list(split_by_process(rows, process, num_processes))
        numbers += [row["number"] for row in part]
        counts.append(len(part))
    assert sorted(numbers) == list(range(num_rows))
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.parquet", "metadata.jsonl"])
def test_another_content_of_equal_time_is_read_anew(tmp_path, name):
    """As copies, archives and containers leave it: the cache knows the rows of before."""
    for index in range(2):
        PIL.Image.new("RGB", (4, 3)).save(tmp_path / f"{index}.png")
    for captions in (["a red boat", "a house"], ["a car", "a cat"]):
        write_captions(tmp_path, name, captions)
        source = SourceArguments(str(tmp_path if name == "metadata.jsonl" else tmp_path / name))
        assert load_split(source, "train", with_images=False)["caption"][:] == captions


def test_an_arrow_file_of_equal_time_is_read_anew(tmp_path):
    path = tmp_path / "rows.arrow"
    source = SourceArguments("arrow", data_files=[str(path)])
    for captions in (["a red boat", "a house"], ["a car"]):
        table = pa.table({"caption": captions})
        with pa.ipc.new_stream(path, table.schema) as file:
            file.write_table(table)
        os.utime(path, ns=(10**18, 10**18))
        assert load_split(source, "train", with_images=False)["caption"][:] == captions


def test_a_shard_of_equal_time_is_read_anew(tmp_path):
    found = []
    for caption in (b"a red boat", b"a car"):
        shard = write_shard(tmp_path / "0.tar", {"0.txt": caption})
        os.utime(shard, ns=(10**18, 10**18))
        found += load_split(SourceArguments("webdataset", data_files=[str(shard)]), "train", with_images=False)["txt"]
    assert found == ["a red boat", "a car"]


def test_an_empty_dataset_is_an_error():
    with pytest.raises(ValueError, match="The split 'train' is empty"):
        finish_split(Dataset.from_dict({"number": []}), SourceArguments("rows"), "train", None, with_images=False)
    with pytest.raises(ValueError, match="The dataset has no rows: name other data or another split"):
        get_columns(IterableDataset.from_generator(lambda: iter(())))


@both_ways
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_the_folder_of_a_file_of_rows_may_have_brackets_in_its_name(tmp_path, name, streaming):
    folder = tmp_path / "data [2024]"
    write_images(folder, ["a.png"])
    rows = pd.DataFrame({"image": ["a.png"], "caption": ["a boat"]})
    if name.endswith("jsonl"):
        rows.to_json(folder / name, orient="records", lines=True)
    elif name.endswith("csv"):
        rows.to_csv(folder / name, index=False)
    else:
        rows.to_parquet(folder / name)
    (row,) = load_split(SourceArguments(str(folder / name), streaming=streaming), "train")
    assert row["caption"] == "a boat"
    assert row["image"].size == (4, 3)
    captions = CaptionFiles([str(folder / name)], "image", ["caption"])
    assert captions["a.png"] == ["a boat"]


def test_a_pattern_with_brackets_stays_one(tmp_path):
    for number in range(3):
        write_json(tmp_path / f"{number}.jsonl", range(number, number + 1))
    source = SourceArguments("json", data_files=[str(tmp_path / "[01].jsonl")])
    rows = load_split(source, "train", with_images=False)
    assert rows["number"][:] == [0, 1]


SPLITS = {
    "numbers and texts": ([1], ["007"]),
    "decimals and texts": ([1.5], ["1.50"]),
    "nothing and dates": ([None], ["2020-01-01"]),
    "truth values and texts": ([True], ["false"]),
}


@both_ways
@pytest.mark.parametrize("key_column", [None, "label"])
@pytest.mark.parametrize("values", SPLITS)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_values_of_a_split_are_none_of_the_types_of_another_one(tmp_path, ending, values, key_column, streaming):
    for split, labels in zip(("train", "test"), SPLITS[values]):
        rows = [{"caption": "A boat.", "label": label} for label in labels]
        if ending == "jsonl":
            write_lines(tmp_path / f"{split}.jsonl", rows)
        else:
            parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    source = SourceArguments(str(tmp_path), streaming=streaming)
    found = []
    for split in ("train", "test"):
        rows = load_split(source, split, with_images=False, key_column=key_column)
        found.append([row["label"] for row in rows])
    assert found == list(SPLITS[values])


# Values of a column in two splits, and its types in parquet if that is what they are in
JOINED_VALUES = {
    "decimals and whole numbers": ([1.5, 2], [3], None),
    "texts and several types": (["007"], ["12", ["A boat", "A car"], None], None),
    "numbers and texts": ([1], ["007"], None),
    "nothing and dictionaries": ([None], [{"id": 1}], None),
    "whole numbers of other lengths": ([1], [2**40], [pa.int32(), pa.int64()]),
    "texts of other lengths": (["a"], ["b"], [pa.string(), pa.large_string()]),
    "lists of other lengths": ([["a"]], [["b"]], [pa.list_(pa.string()), pa.large_list(pa.string())]),
    "decimals and whole numbers in parquet": ([1.5], [2], [pa.float64(), pa.int64()]),
}


@both_ways
@pytest.mark.parametrize("name", JOINED_VALUES)
@pytest.mark.parametrize("splits", [("train", "test"), ("test", "train")])
def test_splits_of_other_types_are_joined_with_the_values_of_both(tmp_path, name, splits, streaming):
    *values, types = JOINED_VALUES[name]
    for index, split in enumerate(splits):
        numbers = [(0, 1.5)[index]] * len(values[index])
        if types is None:
            rows = [{"label": label, "number": number} for label, number in zip(values[index], numbers)]
            write_lines(tmp_path / f"{split}.jsonl", rows)
        else:
            labels = pa.array(values[index], types[index])
            parquet.write_table(pa.table({"label": labels, "number": numbers}), tmp_path / f"{split}.parquet")
    source = SourceArguments(str(tmp_path), streaming=streaming)
    load_split(source, splits[0], with_images=False)  # which leaves its own types in the cache
    rows = list(load_split(source, "+".join(splits), with_images=False))
    assert [row["label"] for row in rows] == values[0] + values[1]
    assert [row["number"] for row in rows] == [0] * len(values[0]) + [1.5] * len(values[1])


@both_ways
def test_dictionaries_in_joined_splits_have_the_keys_of_both(tmp_path, streaming):
    write_lines(tmp_path / "train.jsonl", [{"label": {"id": 1}}])
    write_lines(tmp_path / "test.jsonl", [{"label": {"name": "a"}}])
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "test+train", with_images=False)
    assert [row["label"] for row in rows] == [{"id": None, "name": "a"}, {"id": 1, "name": None}]


@both_ways
def test_splits_without_a_common_type_are_not_read_as_one(tmp_path, streaming):
    parquet.write_table(pa.table({"label": [1]}), tmp_path / "train.parquet")
    parquet.write_table(pa.table({"label": ["007"]}), tmp_path / "test.parquet")
    source = SourceArguments(str(tmp_path), streaming=streaming)
    with pytest.raises(ValueError, match=r"splits 'train\+test' have columns of other types than each other: 'label'"):
        load_split(source, "train+test", with_images=False)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_column_that_another_split_has_besides_is_no_error(tmp_path, ending):
    rows = {"train": {"caption": "A boat."}, "test": {"caption": "A car.", "label": 7}}
    for split, row in rows.items():
        if ending == "jsonl":
            write_lines(tmp_path / f"{split}.jsonl", [row])
        else:
            parquet.write_table(pa.Table.from_pylist([row]), tmp_path / f"{split}.parquet")
    source = SourceArguments(str(tmp_path))
    assert load_split(source, "train", with_images=False)[0] == rows["train"]
    assert load_split(source, "test", with_images=False)[0] == rows["test"]
    both = load_split(source, "train+test", with_images=False)
    assert both["label"][:] == [None, 7]


def test_a_card_says_the_types_of_all_splits(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"label": 1}])
    write_lines(tmp_path / "b.jsonl", [{"label": 2}])
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: a.jsonl\n"
        "  - split: test\n    path: b.jsonl\n"
        "dataset_info:\n  features:\n  - name: label\n    dtype: string\n---\n"
    )
    rows = load_split(SourceArguments(str(tmp_path)), "train+test", with_images=False)
    assert rows["label"][:] == ["1", "2"]


def test_what_others_have_read_of_the_same_files_says_no_types(tmp_path):
    write_lines(tmp_path / "rows.jsonl", [{"caption": "2020-01-01"}])
    load_dataset(str(tmp_path))  # of which times come into the cache
    rows = load_split(SourceArguments(str(tmp_path)), "train", with_images=False)
    assert rows["caption"][:] == ["2020-01-01"]


@pytest.mark.parametrize("first", ["train", "test"])
def test_dates_are_texts_whichever_split_is_read_first(tmp_path, first):
    write_lines(tmp_path / "train.jsonl", [{"caption": "A boat."}])
    write_lines(tmp_path / "test.jsonl", [{"caption": "2020-01-01"}])
    source = SourceArguments(str(tmp_path))
    load_split(source, first, with_images=False)
    assert load_split(source, "test", with_images=False)["caption"][:] == ["2020-01-01"]


@pytest.fixture
def other_readers(monkeypatch):
    """Makes readers of files other ones, as another version of the package has them."""

    def make_others() -> None:
        options.hash_readers.cache_clear()
        monkeypatch.setattr(options, "READER_MODULES", ())

    yield make_others
    options.hash_readers.cache_clear()


# What reads files on this machine
READERS = {
    "rows.csv": "csv",
    "rows.jsonl": "json",
    "rows.zip": "json",
    "rows.parquet": "parquet",
    "0.tar": "webdataset",
}


@pytest.mark.parametrize("name", READERS)
def test_another_version_of_the_readers_reads_anew(tmp_path, other_readers, name):
    source = SourceArguments(READERS[name], data_files=[str(tmp_path / name)])
    if name == "0.tar":
        write_shard(tmp_path / name, {"0.txt": b"a boat"})
    elif name == "rows.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("rows.jsonl", json.dumps({"caption": "a boat"}))
    else:
        write_captions(tmp_path, name, ["a boat"])
    found = []
    for _ in range(2):
        found.append(load_split(source, "train", with_images=False).cache_files)
    other_readers()
    found.append(load_split(source, "train", with_images=False).cache_files)
    assert found[0] == found[1]
    assert found[2] != found[1]


# Labels of two files in folders of their own, and how both are read
LABELS_OF_FOLDERS = {
    ("csv", 5, None): [5.0, None],
    ("csv", 5, 1.5): [5.0, 1.5],
    ("csv", 5, "x"): ["5", "x"],
    ("json", 5, None): [5, None],
    ("json", 5, "007"): [5, "007"],
    ("json", "x", "2020-01-01"): ["x", "2020-01-01"],
    ("parquet", 5, None): [5, None],
    ("parquet", 5, 1.5): [5.0, 1.5],
}


@both_ways
@pytest.mark.parametrize(("kind", "first", "second"), LABELS_OF_FOLDERS)
def test_files_in_several_folders_have_the_types_of_all(tmp_path, kind, first, second, streaming):
    files = []
    for folder, label in {"a": first, "b": second}.items():
        write_images(tmp_path, [f"{folder}/0.png"])
        files.append(str(tmp_path / folder / f"rows.{kind}"))
        getattr(Dataset.from_list([{"image": "0.png", "label": label}]), f"to_{kind}")(files[-1])
    rows = list(load_split(SourceArguments(kind, data_files=files, streaming=streaming), "train"))
    assert [row["label"] for row in rows] == LABELS_OF_FOLDERS[kind, first, second]
    assert [row["image"].width for row in rows] == [4, 4]


@both_ways
def test_labels_of_files_in_several_folders_have_the_names_of_each(tmp_path, streaming):
    files = []
    for folder, names in {"a": ["cat", "dog"], "b": ["dog", "cat"]}.items():
        write_images(tmp_path, [f"{folder}/0.png"])
        features = Features({"image": Value("string"), "label": ClassLabel(names=names)})
        rows = Dataset.from_dict({"image": ["0.png", "0.png"], "label": [0, 1]}, features=features)
        files.append(str(tmp_path / folder / "rows.parquet"))
        rows.to_parquet(files[-1])
    rows = list(load_split(SourceArguments("parquet", data_files=files, streaming=streaming), "train"))
    assert [row["label"] for row in rows] == ["cat", "dog", "dog", "cat"]
    assert [row["image"].width for row in rows] == [4] * 4


@both_ways
def test_rows_of_several_folders_have_the_same_order_with_and_without_images(tmp_path, streaming):
    files = []
    for folder in ("b", "a", "a/sub"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "rows.csv"
        file.write_text(f"image,caption\n0.png,{folder} 1\n1.png,{folder} 2\n")
        files.append(str(file))
    source = SourceArguments("csv", data_files=files, streaming=streaming)
    texts = [row["caption"] for row in load_split(source, "train", with_images=False)]
    rows = load_split(source, "train").cast_column("image", Image(decode=False))
    assert texts == ["b 1", "b 2", "a 1", "a 2", "a/sub 1", "a/sub 2"]
    assert [row["caption"] for row in rows] == texts


@both_ways
def test_files_in_several_folders_are_read_as_their_card_says(tmp_path, streaming):
    for folder in ("a", "b"):
        write_images(tmp_path, [f"{folder}/0.png"])
        (tmp_path / folder / "rows.csv").write_text(f"image;caption\n0.png;Of {folder}, red\n")
    (tmp_path / "README.md").write_text(
        '---\nconfigs:\n- config_name: default\n  data_files: "*/rows.csv"\n  sep: ";"\n---\n'
    )
    rows = list(load_split(SourceArguments(str(tmp_path), streaming=streaming), "train"))
    assert [row["caption"] for row in rows] == ["Of a, red", "Of b, red"]
    assert [row["image"].width for row in rows] == [4, 4]


@both_ways
def test_arrow_files_of_splits_have_types_of_their_own(tmp_path, streaming):
    for split, key in (("train", 7), ("test", "007")):
        Dataset.from_dict({"id": [key], "caption": ["a boat"]}).save_to_disk(tmp_path / split)
        (arrow_file,) = (tmp_path / split).glob("*.arrow")
        (tmp_path / "data").mkdir(exist_ok=True)
        arrow_file.rename(tmp_path / "data" / f"{split}.arrow")
    source = SourceArguments(str(tmp_path / "data"), streaming=streaming)
    found = {split: list(load_split(source, split, with_images=False))[0]["id"] for split in ("train", "test")}
    assert found == {"train": 7, "test": "007"}


@both_ways
def test_an_empty_line_beside_a_column_of_several_types_is_named(tmp_path, streaming):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n{"a": "007"}\n\n')
    with pytest.raises(ValueError, match="rows.jsonl has nothing in line 3, .*: delete the line"):
        list(load_split(SourceArguments(str(file), streaming=streaming), "train", with_images=False))
