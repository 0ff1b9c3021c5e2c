"""What libraries would read as something else in CSV, JSON and parquet files is refused, and named."""

import csv
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from pyarrow import parquet

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.row_files import check_row_files, find_separator, unify_parquet_types
from tests.helpers.data_files import write_lines


both_ways = pytest.mark.parametrize("streaming", [False, True])


# CSV


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caption,image\nA red boat, at sea,0.jpg\n", "3 fields in line 2, but 2 in its header"),
        ("caption,image\nA boat,0.jpg\n\nA red boat, at sea,1.jpg\n", "3 fields in line 4, but 2 in its header"),
        ('caption,image\n"A\nboat",0.jpg\nA red boat, at sea,1.jpg\n', "3 fields in line 4, but 2 in its header"),
        ("caption,image\nA boat,0.jpg,\nA car,1.jpg,\n", "3 fields in line 2, but 2 in its header"),
        ("caption,image,label\nA boat,0.jpg\n", "2 fields in line 2, but 3 in its header"),
        ("caption,image,caption\nA boat,0.jpg,A car\n", "several columns named 'caption'"),
        ('caption,image\n"A" boat,0.jpg\n', "cannot be read at line 2: ',' expected after '\"'"),
        ('caption,image\nA boat,0.jpg\n"A car,1.jpg\n', "cannot be read at line 3: unexpected end of data"),
        ('image,caption\n0.jpg,A boat\n1.jpg, "A car"\n', "has a blank before a quotation mark in line 3"),
        ('image,caption\n0.jpg,  "A car" \n', "has a blank before a quotation mark in line 2"),
    ],
)
def test_csv_files_that_pandas_reads_as_something_else(tmp_path, content, message):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path} (has|cannot).*") as error:
        check_row_files("csv", [str(path)])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        'caption,image\n"A red boat, at sea",0.jpg\n',
        'caption,image\r\n"He says ""a boat""",0.jpg\r\n',
        "caption,image\nA boat,0.jpg\n\n  \n",
        '\ufeffcaption,image\nA 5" boat,0.jpg',
        "caption,image,\nA boat,0.jpg,\n",
        'image,caption\n0.jpg, "A car" is written there\n',
        "caption\nA boat\n",
        f"caption,image\n{'long ' * 40_000},0.jpg\n",
    ],
)
def test_csv_files_that_are_in_order(tmp_path, content):
    path = tmp_path / "rows.csv"
    path.write_text(content, newline="")
    check_row_files("csv", [str(path)])


def test_compressed_csv_files_are_checked_too(tmp_path):
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"caption,key\nA red boat, at sea,a\n"))
    with pytest.raises(ValueError, match="rows.csv.gz has 3 fields in line 2"):
        check_row_files("csv", [str(path)])
    path.write_bytes(gzip.compress(b"caption,key\nA red boat,a\n")[:-9])
    with pytest.raises(ValueError, match="rows.csv.gz cannot be read: Compressed file ended"):
        check_row_files("csv", [str(path)])


@both_ways
@pytest.mark.parametrize("header", ["image,caption", "caption,image,label", "caption"])
def test_a_csv_file_with_other_columns_is_named(tmp_path, header, streaming):
    files = []
    for index, columns in enumerate(["caption,image", "caption,image", header]):
        files.append(str(tmp_path / f"{index}.csv"))
        values = ",".join("a" for _ in columns.split(","))
        Path(files[-1]).write_text(f"{columns}\n{values}\n")
    source = SourceArguments("csv", data_files=files, streaming=streaming)
    with pytest.raises(ValueError, match="2.csv has the columns .*, but .*0.csv has .*: write all"):
        load_split(source, "train", with_images=False)
    in_order = SourceArguments("csv", data_files=files[:2], streaming=streaming)
    assert list(load_split(in_order, "train", with_images=False)) == [{"caption": "a", "image": "a"}] * 2


@both_ways
def test_a_comma_in_a_caption_is_no_second_column_of_a_dataset(tmp_path, streaming):
    path = tmp_path / "rows.csv"
    path.write_text("caption,image\nA red boat, at sea,0.jpg\n")
    with pytest.raises(ValueError, match="rows.csv` cannot be read: .*rows.csv has 3 fields in line 2"):
        load_split(SourceArguments(str(path), streaming=streaming), "train", with_images=False)


@both_ways
def test_a_comma_in_a_caption_is_no_second_column_of_metadata(tmp_path, streaming):
    (tmp_path / "0.png").touch()
    (tmp_path / "metadata.csv").write_text("caption,file_name\nA red boat, at sea,0.png\n")
    with pytest.raises(ValueError, match="metadata.csv has 3 fields in line 2"):
        load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")


@pytest.mark.parametrize("content", ["caption,key\nA boat, red,a\n", "key,caption\na,A boat, red\n"])
def test_a_comma_in_a_caption_is_no_second_column_of_caption_files(tmp_path, content):
    (tmp_path / "long.csv").write_text(content)
    with pytest.raises(ValueError, match="long.csv has 3 fields in line 2, but 2 in its header. Separate cells"):
        CaptionFiles([str(tmp_path / "*.csv")], "key", ["caption"])


# TSV


@both_ways
@pytest.mark.parametrize("name", ["rows.tsv", "ROWS.TSV"])
def test_cells_of_tsv_files_are_separated_by_tabs(tmp_path, name, streaming):
    (tmp_path / name).write_text('key\tcaption\n007\t"A ""red"" boat, at sea"\nNA\t\n')
    source = SourceArguments(str(tmp_path / name), streaming=streaming)
    rows = list(load_split(source, "train", with_images=False, key_column="key"))
    assert rows == [{"key": "007", "caption": 'A "red" boat, at sea'}, {"key": "NA", "caption": None}]


@pytest.mark.parametrize("is_compressed", [False, True])
def test_caption_files_may_be_tsv(tmp_path, is_compressed):
    content = b"key\tcaption\n007\tA red boat, at sea\n"
    path = tmp_path / "long.tsv"
    if is_compressed:
        path = tmp_path / "long.tsv.gz"
        content = gzip.compress(content)
    path.write_bytes(content)
    assert CaptionFiles([str(path)], "key", ["caption"])["007"] == ["A red boat, at sea"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_tab_in_a_caption_is_no_second_column_of_a_dataset(tmp_path, is_folder):
    path = tmp_path / "rows.tsv"
    path.write_text("caption\timage\nA red boat\tat sea\t0.jpg\n")
    with pytest.raises(ValueError, match="rows.tsv has 3 fields in line 2, but 2 in its header"):
        load_split(SourceArguments(str(tmp_path if is_folder else path)), "train", with_images=False)


def test_a_tab_in_a_caption_is_no_second_column_of_caption_files(tmp_path):
    (tmp_path / "long.tsv").write_text("key\tcaption\na\tA red boat\tat sea\n")
    with pytest.raises(ValueError, match="long.tsv has 3 fields in line 2, but 2 in its header"):
        CaptionFiles([str(tmp_path / "*.tsv")], "key", ["caption"])


def test_csv_and_tsv_files_are_not_read_as_one(tmp_path):
    (tmp_path / "0.csv").write_text("caption,number\nA boat,0\n")
    (tmp_path / "1.tsv").write_text("caption\tnumber\nA boat\t1\n")
    source = SourceArguments("csv", data_files=[str(tmp_path / "0.csv"), str(tmp_path / "1.tsv")])
    with pytest.raises(ValueError, match="1.tsv and .*0.csv are read as one table"):
        load_split(source, "train", with_images=False)


@both_ways
def test_another_split_may_be_separated_otherwise(tmp_path, streaming):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("caption,number\nA boat,0\n")
    (tmp_path / "test_notes.tsv").write_text("caption\tnumber\nA car\t1\n")
    source = SourceArguments(str(tmp_path), streaming=streaming)
    rows = list(load_split(source, "train", with_images=False))
    assert rows == [{"caption": "A boat", "number": 0}]
    with pytest.raises(ValueError, match="test_notes.tsv and .*test.csv are read as one table"):
        load_split(source, "test", with_images=False)


@pytest.mark.parametrize("name", ["rows.tsv", "rows.tsv.gz", "ROWS.TSV.BZ2", "rows.tsv.xz"])
def test_compressed_tsv_files_are_separated_by_tabs(name):
    assert find_separator([name]) == "\t"


def test_commas_in_a_tsv_file_are_refused(tmp_path):
    (tmp_path / "rows.tsv").write_text("key,caption\na.jpg,A boat\n")
    with pytest.raises(ValueError, match="rows.tsv has no tab but commas in its header: .* or name the file .csv"):
        load_split(SourceArguments(str(tmp_path / "rows.tsv")), "train", with_images=False)


def test_a_quotation_mark_in_tsv_joins_no_rows(tmp_path):
    (tmp_path / "rows.tsv").write_text('key\tcaption\na\t"Stop\nb\tA sign that says "Go"\nc\tA man says "Go"\n')
    with pytest.raises(ValueError, match="rows.tsv .*at line 2: .*Quote cells whole"):
        load_split(SourceArguments(str(tmp_path / "rows.tsv")), "train", with_images=False)
    (tmp_path / "rows.tsv").write_text('key\tcaption\na\t"Stop\nb\tA sign says Go"\nc\tA man\n')
    with pytest.raises(ValueError, match="rows.tsv has a cell in line 2 with a tab that goes on in the next line"):
        load_split(SourceArguments(str(tmp_path / "rows.tsv")), "train", with_images=False)


def test_a_quoted_cell_of_tsv_may_have_several_lines(tmp_path):
    (tmp_path / "rows.tsv").write_text('key\tcaption\na\t"A boat.\nA car."\nb\t"A\ttab"\n')
    rows = list(load_split(SourceArguments(str(tmp_path / "rows.tsv")), "train", with_images=False))
    assert [row["caption"] for row in rows] == ["A boat.\nA car.", "A\ttab"]


# JSON


@both_ways
@pytest.mark.parametrize("column", ["key", "about.key"])
def test_keys_that_are_texts_and_numbers_are_refused(tmp_path, column, streaming):
    """`datasets` makes numbers of all of them: "007" becomes 7."""
    keys = [8, "007", "012"]
    rows = [{"key": key, "about": {"key": key}} for key in keys]
    source = SourceArguments(write_lines(tmp_path / "rows.jsonl", rows), streaming=streaming)
    with pytest.raises(ValueError, match=f"'{column}' holds texts and numbers: '007' in line 2 of .*, 8 in line 1 of"):
        load_split(source, "train", with_images=False, key_column=column)


@both_ways
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_keys_that_are_numbers_in_another_json_file_are_refused(tmp_path, order, streaming):
    files = [write_lines(tmp_path / "0.jsonl", [{"key": 8}]), write_lines(tmp_path / "1.jsonl", [{"key": "007"}])]
    source = SourceArguments("json", data_files=[files[index] for index in order], streaming=streaming)
    with pytest.raises(ValueError, match="'007' in line 1 of .*1.jsonl, 8 in line 1 of .*0.jsonl"):
        load_split(source, "train", with_images=False, key_column="key")


def test_keys_of_a_json_list_that_are_texts_and_numbers_are_refused(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"key": 8}, {"key": "007"}]))
    with pytest.raises(ValueError, match="'007' in row 1 of .*, 8 in row 0 of"):
        load_split(SourceArguments(str(tmp_path / "rows.json")), "train", with_images=False, key_column="key")


def test_keys_of_caption_files_that_are_texts_and_numbers_are_refused(tmp_path):
    path = write_lines(tmp_path / "long.jsonl", [{"key": 8, "caption": "a"}, {"key": "007", "caption": "b"}])
    with pytest.raises(ValueError, match="'key' holds texts and numbers: '007' in line 2 of .*, 8 in line 1"):
        CaptionFiles([path], "key", ["caption"])


def test_a_name_that_is_twice_in_a_row_of_a_json_list_is_refused(tmp_path):
    (tmp_path / "rows.json").write_text('[{"caption": "a", "caption": "b"}]')
    with pytest.raises(ValueError, match="rows.json has a row with several values of 'caption'"):
        load_split(SourceArguments(str(tmp_path / "rows.json")), "train", with_images=False)


# Parquet


def write_tables(tmp_path, *columns: dict) -> list[str]:
    files = []
    for index, table in enumerate(columns):
        files.append(str(tmp_path / f"{index}.parquet"))
        parquet.write_table(pa.table(table), files[-1])
    return files


@both_ways
def test_parquet_files_of_other_types_are_refused(tmp_path, streaming):
    """`datasets` would cast the keys of the second file to integers: "007" becomes 7."""
    files = write_tables(tmp_path, {"key": [8]}, {"key": ["007"]})
    source = SourceArguments("parquet", data_files=files, streaming=streaming)
    with pytest.raises(ValueError, match="1.parquet has other types .*: int64 vs string. Write all files"):
        load_split(source, "train", with_images=False)


def test_parquet_files_with_texts_and_lists_are_named_with_both_types(tmp_path):
    files = write_tables(tmp_path, {"caption": ["a"]}, {"caption": [["a"]]})
    with pytest.raises(ValueError, match="1.parquet has .*caption.*: string vs list<.*: string>. Write"):
        unify_parquet_types(files)


@both_ways
def test_a_parquet_file_without_values_does_not_say_the_type_of_a_column(tmp_path, streaming):
    tables = [{"key": ["a"], "caption": pa.nulls(1)}, {"key": ["b"], "caption": ["A boat."]}, {"key": ["c"]}]
    files = write_tables(tmp_path, *tables)
    source = SourceArguments("parquet", data_files=files, streaming=streaming)
    rows = list(load_split(source, "train", with_images=False))
    expected = [{"key": "a", "caption": None}, {"key": "b", "caption": "A boat."}, {"key": "c", "caption": None}]
    assert rows == expected


def test_parquet_files_of_the_same_types_keep_those_of_datasets(tmp_path):
    assert unify_parquet_types(write_tables(tmp_path, {"key": ["a"]}, {"key": ["b"]})) is None


def test_caption_files_of_other_types_are_refused(tmp_path):
    files = write_tables(tmp_path, {"key": [8], "caption": ["a"]}, {"key": ["007"], "caption": ["b"]})
    with pytest.raises(ValueError, match="1.parquet has other types than the files before it: .*int64 vs string"):
        CaptionFiles(files, "key", ["caption"])


def write_csv(path: Path, cells: list[str]) -> str:
    """Writes a CSV file with a column of captions."""
    rows = [f"{index}.jpg,{cell}\n" for index, cell in enumerate(cells)]
    path.write_text("image,caption\n" + "".join(rows))
    return str(path)


# `datasets` reads so many rows of a CSV file at a time
NUM_ROWS_AT_ONCE = 10_000


@both_ways
@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("a boat", ["1.50", "1e5", "007"]),
        ("a boat", ["True", "FALSE"]),
        ("True", ["a boat"]),
        ("007", ["a boat"]),
        ("12345678901234567890", ["12345678901234567891"]),
    ],
)
def test_texts_of_a_csv_file_stay_as_they_are_wherever_they_stand(tmp_path, first, last, streaming):
    path = write_csv(tmp_path / "rows.csv", [first] * NUM_ROWS_AT_ONCE + last)
    rows = load_split(SourceArguments(path, streaming=streaming), "train", with_images=False)
    assert [row["caption"] for row in rows] == [first] * NUM_ROWS_AT_ONCE + last


@both_ways
def test_captions_of_a_csv_file_may_begin_late(tmp_path, streaming):
    path = write_csv(tmp_path / "rows.csv", [""] * NUM_ROWS_AT_ONCE + ["a boat"])
    rows = load_split(SourceArguments(path, streaming=streaming), "train", with_images=False)
    assert [row["caption"] for row in rows] == [None] * NUM_ROWS_AT_ONCE + ["a boat"]


def test_texts_of_a_csv_file_are_those_of_all_files(tmp_path):
    write_csv(tmp_path / "0.csv", ["1.50"])
    write_csv(tmp_path / "1.csv", ["a boat"])
    source = SourceArguments("csv", data_files=[str(tmp_path / "*.csv")])
    rows = load_split(source, "train", with_images=False)
    assert rows["caption"][:] == ["1.50", "a boat"]


def write_splits(folder: Path, train: list[str], test: list[str]) -> SourceArguments:
    """Writes a folder with a CSV file of captions for each split, and names it as a dataset."""
    write_csv(folder / "train.csv", train)
    write_csv(folder / "test.csv", test)
    return SourceArguments(str(folder))


@both_ways
@pytest.mark.parametrize("split", ["test", "train+test", "all"])
def test_texts_of_a_csv_file_are_those_of_all_splits(tmp_path, split, streaming):
    source = write_splits(tmp_path, ["a boat"], ["12"])
    source.streaming = streaming and split != "all"
    rows = load_split(source, split, with_images=False)
    expected = {"test": ["12"], "train+test": ["a boat", "12"], "all": ["a boat", "12"]}
    assert [row["caption"] for row in rows] == expected[split]


@pytest.mark.parametrize(
    ("test_cells", "value"), [(["4"], 3), (["0.5"], 3.0), ([""], 3), (["a boat"], "3"), (['"', "4"], 3)]
)
def test_numbers_of_a_csv_file_fit_those_of_other_splits(tmp_path, test_cells, value):
    """Also where another split has no values, or cannot be read."""
    rows = load_split(write_splits(tmp_path, ["3"], test_cells), "train", with_images=False)
    (read,) = rows["caption"][:]
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("train_cells", [["3"], ["0.5"], ["True"], ["a boat"]])
def test_a_column_may_be_empty_in_one_split_alone(tmp_path, train_cells):
    """As the labels of test data often are."""
    rows = load_split(write_splits(tmp_path, train_cells, [""]), "test", with_images=False)
    assert rows["caption"][:] == [None]


def test_a_text_may_begin_with_a_blank_and_a_quotation_mark(tmp_path):
    captions = [' "A red boat."', ' "A sign," it says "stop"', ' "A"\n "boat"']
    path = tmp_path / "rows.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *[["0.jpg", caption] for caption in captions]])
    rows = load_split(SourceArguments(str(path)), "train", with_images=False)
    assert rows["caption"][:] == captions


@both_ways
def test_csv_files_of_another_split_may_have_other_columns(tmp_path, streaming):
    source = write_splits(tmp_path, ["a boat"], ["a car"])
    (tmp_path / "test.csv").write_text("image\n1.jpg\n")
    source.streaming = streaming
    rows = list(load_split(source, "train+test", with_images=False))
    assert rows == [{"image": "0.jpg", "caption": "a boat"}, {"image": "1.jpg", "caption": None}]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["3", "-10"], [3, -10]),
        (["3", ""], [3.0, None]),
        (["3", "0.5"], [3.0, 0.5]),
        (["1e3", "2."], [1000.0, 2.0]),
        (["3", "03"], ["3", "03"]),
        (["3", " 4"], [3, 4]),
        (["3 ", " 0.5 "], [3.0, 0.5]),
        (["3", "  "], ["3", "  "]),
        (["3", "True"], ["3", "True"]),
        (["True", "false", "TRUE"], ["True", "false", "TRUE"]),
        (["True", ""], ["True", None]),
        (["3", "NA"], ["3", "NA"]),
    ],
)
def test_a_column_of_a_csv_file_is_numbers_if_all_its_cells_are(tmp_path, cells, values):
    path = write_csv(tmp_path / "rows.csv", cells)
    rows = load_split(SourceArguments(path), "train", with_images=False)
    assert rows["caption"][:] == values


def test_the_only_column_of_a_csv_file_may_have_empty_cells(tmp_path):
    (tmp_path / "rows.csv").write_text('label\n3\n""\n\n4\n')
    rows = load_split(SourceArguments(str(tmp_path / "rows.csv")), "train", with_images=False)
    assert rows["label"][:] == [3.0, None, 4.0]


def test_a_column_of_a_csv_file_may_have_no_name(tmp_path):
    (tmp_path / "rows.csv").write_text(",caption\n0,a boat\n1,a car\n")
    rows = load_split(SourceArguments(str(tmp_path / "rows.csv")), "train", with_images=False)
    assert rows[:] == {"Unnamed: 0": [0, 1], "caption": ["a boat", "a car"]}


def test_captions_in_csv_files_are_texts(tmp_path):
    path = write_csv(tmp_path / "captions.csv", ["1.50", "007"])
    captions = CaptionFiles([path], "image", ["caption"])
    assert [captions[f"{index}.jpg"] for index in range(2)] == [["1.50"], ["007"]]


WRITERS_OF_LABELS = {
    "parquet": lambda rows, path: rows.to_parquet(path),
    "arrow": lambda rows, path: write_arrow(rows, path, pa.ipc.new_stream),
    "arrow of random access": lambda rows, path: write_arrow(rows, path, pa.ipc.new_file),
}


def write_arrow(rows: Dataset, path: Path, open_writer: Callable) -> None:
    with open_writer(str(path), rows.data.schema) as writer:
        writer.write_table(rows.data.table)


@pytest.fixture(params=WRITERS_OF_LABELS)
def write_label_files(request, tmp_path) -> Callable:
    """Writes files of labels, each with its names of these, or none."""

    def write(*contents: tuple[list, list[str] | None]) -> SourceArguments:
        files = []
        for index, (labels, names) in enumerate(contents):
            feature = Value("int64") if names is None else ClassLabel(names=names)
            features = Features({"label": feature, "caption": Value("string")})
            rows = Dataset.from_dict({"label": labels, "caption": ["A boat."] * len(labels)}, features=features)
            files.append(str(tmp_path / f"{index}.{request.param.split()[0]}"))
            WRITERS_OF_LABELS[request.param](rows, files[-1])
        return SourceArguments(request.param.split()[0], data_files=files)

    return write


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("names", [["car", "boat"], ["tree", "boat", "car"]])
def test_labels_whose_numbers_mean_other_classes_in_another_file_are_texts(write_label_files, names, streaming):
    source = write_label_files(([0, 1], ["boat", "car"]), ([1, None, 0], ["boat", "car"]), ([0, 1, -1], names))
    rows = load_split(replace(source, streaming=streaming), "train", with_images=False)
    expected = ["boat", "car", "car", None, "boat", names[0], names[1], None]
    assert [row["label"] for row in rows] == expected
    assert [row["caption"] for row in rows] == ["A boat."] * 8


@pytest.mark.parametrize("streaming", [False, True])
def test_labels_with_the_same_names_in_all_files_keep_them(write_label_files, streaming):
    source = write_label_files(([0, 1], ["boat", "car"]), ([1, 0], ["boat", "car"]))
    rows = load_split(replace(source, streaming=streaming), "train", with_images=False)
    assert [row["label"] for row in rows] == [0, 1, 1, 0]
    assert rows.features["label"].names == ["boat", "car"]


def test_labels_without_names_beside_several_are_refused(write_label_files):
    source = write_label_files(([0], ["boat", "car"]), ([0], ["car", "boat"]), ([0], None))
    with pytest.raises(ValueError, match=r"The labels in the column 'label' are numbers in .*2\.\w+, whose names"):
        load_split(source, "train", with_images=False)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("open_writer", [pa.ipc.new_stream, pa.ipc.new_file])
def test_labels_beside_texts_of_another_arrow_file_are_texts(tmp_path, open_writer, streaming):
    rows = Dataset.from_dict({"label": ["cat", "dog"]})
    write_arrow(rows, tmp_path / "0.arrow", open_writer)
    write_arrow(rows.cast_column("label", ClassLabel(names=["dog", "cat"])), tmp_path / "1.arrow", open_writer)
    for order in (["0", "1"], ["1", "0"]):
        files = [str(tmp_path / f"{name}.arrow") for name in order]
        source = SourceArguments("arrow", data_files=files, streaming=streaming)
        read = [row["label"] for row in load_split(source, "train", with_images=False)]
        assert read == ["cat", "dog", "cat", "dog"]
