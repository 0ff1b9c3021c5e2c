"""What a card next to files says of how they are read holds here as in `datasets`, or is refused by name."""

from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset, IterableDataset, load_dataset
from pyarrow import parquet

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.loading import load_split
from tests.helpers.data_files import write_images, write_lines


both_ways = pytest.mark.parametrize("streaming", [False, True])


def write_card(folder: Path, *lines: str) -> None:
    (folder / "README.md").write_text("\n".join(["---", "configs:", *lines, "---", ""]))


def load_plainly(folder: Path, streaming: bool, config: str | None = None) -> Dataset | IterableDataset:
    """The rows of the split `train` of a folder by `datasets` alone, in whose cache there is nothing else."""
    cache_dir = str(folder / ".cache")
    return load_dataset(str(folder), config, split="train", streaming=streaming, cache_dir=cache_dir)


def read_both(folder: Path, streaming: bool, config: str | None = None) -> tuple[list[dict], list[dict]]:
    """The rows of the split `train` of a folder, as they are read here and by `datasets`."""
    source = SourceArguments(str(folder), dataset_config_name=config, streaming=streaming)
    rows = load_split(source, "train", with_images=False)
    return list(rows), list(load_plainly(folder, streaming, config))


@both_ways
@pytest.mark.parametrize(
    "options",
    [['sep: ";"'], ['delimiter: ";"'], ['sep: ";"', "usecols:", "  - caption"], ['sep: ";"', "nrows: 1"]],
    ids=["sep", "delimiter", "usecols", "nrows"],
)
def test_options_of_csv(tmp_path, options, streaming):
    (tmp_path / "rows.csv").write_text("caption;number\nA boat, red;1\nA car;2\n")
    write_card(tmp_path, "- config_name: default", "  data_files: rows.csv", *[f"  {line}" for line in options])
    rows, expected = read_both(tmp_path, streaming)
    assert rows == expected
    assert rows[0]["caption"] == "A boat, red"


@both_ways
def test_columns_of_csv_without_a_header(tmp_path, streaming):
    (tmp_path / "rows.csv").write_text("A boat,1\nA car,2\n")
    write_card(
        tmp_path,
        "- config_name: default",
        "  data_files: rows.csv",
        "  column_names:",
        "  - caption",
        "  - number",
    )
    rows, expected = read_both(tmp_path, streaming)
    assert rows == expected
    assert [row["caption"] for row in rows] == ["A boat", "A car"]


@both_ways
def test_rows_of_csv_with_another_separator_are_checked(tmp_path, streaming):
    (tmp_path / "rows.csv").write_text("caption;number\nA boat; red;1\n")
    write_card(tmp_path, "- config_name: default", "  data_files: rows.csv", '  sep: ";"')
    with pytest.raises(
        ValueError, match="rows.csv has 3 fields in line 2, but 2 in its header. Separate cells by ';'"
    ):
        load_split(SourceArguments(str(tmp_path), streaming=streaming), "train", with_images=False)


@both_ways
def test_rows_of_csv_that_cannot_be_checked_before_are_no_index(tmp_path, streaming):
    (tmp_path / "rows.csv").write_text("made by hand\ncaption,number\nA boat, red,1\n")
    write_card(tmp_path, "- config_name: default", "  data_files: rows.csv", "  skiprows: 1")
    with pytest.raises(ValueError, match="rows.csv has more fields than the header"):
        load_split(SourceArguments(str(tmp_path), streaming=streaming), "train", with_images=False)


@both_ways
def test_a_folder_of_tab_separated_files(tmp_path, streaming):
    (tmp_path / "rows.tsv").write_text("caption\tnumber\nA boat, red\t1\n")
    rows, expected = read_both(tmp_path, streaming)
    assert rows == expected == [{"caption": "A boat, red", "number": 1}]


@both_ways
@pytest.mark.parametrize("has_other_types", [False, True])
def test_options_of_parquet(tmp_path, has_other_types, streaming):
    """Also where a second file has no value in a column, so that the types of both are unified."""
    table = {"caption": ["A boat", "A car"], "number": [1, 2], "other": ["a", "b"]}
    parquet.write_table(pa.table(table), tmp_path / "0.parquet")
    second = {**table, "other": pa.nulls(2)} if has_other_types else table
    parquet.write_table(pa.table(second), tmp_path / "1.parquet")
    write_card(
        tmp_path,
        "- config_name: default",
        '  data_files: "*.parquet"',
        "  columns:",
        "  - caption",
        "  - number",
        "  filters:",
        "  - - number",
        '    - "=="',
        "    - 2",
    )
    rows, expected = read_both(tmp_path, streaming)
    assert rows == expected == [{"caption": "A car", "number": 2}] * 2


@both_ways
def test_a_field_of_json_that_holds_the_rows(tmp_path, streaming):
    (tmp_path / "rows.json").write_text('{"version": "2020-01-01", "data": [{"caption": "A boat"}]}')
    write_card(tmp_path, "- config_name: default", "  data_files: rows.json", "  field: data")
    rows, expected = read_both(tmp_path, streaming)
    assert rows == expected == [{"caption": "A boat"}]


@both_ways
def test_the_encoding_of_json(tmp_path, streaming):
    (tmp_path / "rows.jsonl").write_bytes('{"caption": "für"}\n'.encode("latin-1"))
    write_card(tmp_path, "- config_name: default", "  data_files: rows.jsonl", "  encoding: latin-1")
    rows, expected = read_both(tmp_path, streaming)
    assert rows == expected == [{"caption": "für"}]


@both_ways
@pytest.mark.parametrize("option", ["", "  drop_labels: true", "  drop_labels: false", "  drop_metadata: true"])
@pytest.mark.parametrize("folders", [("a", "b"), ("a",)], ids=["two folders", "one folder"])
@pytest.mark.parametrize("has_metadata", [False, True])
def test_options_of_a_folder_of_images(tmp_path, option, folders, has_metadata, streaming):
    names = [f"{folder}/0.png" for folder in folders]
    write_images(tmp_path, names)
    if has_metadata:
        lines = [f"{name},A boat,{index}\n" for index, name in enumerate(names)]
        (tmp_path / "metadata.csv").write_text("file_name,caption,number\n" + "".join(lines))
    write_card(tmp_path, "- config_name: default", '  data_files: "**"', option)
    expected = load_plainly(tmp_path, streaming)
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    known = [name for name in rows.column_names if name != "file_name"]  # which is added here
    assert known == expected.column_names
    rows = list(undecoded(rows, "image").select_columns(known))
    assert rows == list(undecoded(expected, "image"))
    assert len(rows) == len(folders)


@both_ways
def test_filters_of_a_folder_of_images(tmp_path, caplog, streaming):
    write_images(tmp_path, ["0.png", "1.png", "2.png"])
    rows = "0.png,A boat,0,true\n1.png,A car,1,true\n2.png,NA,2,false\n"
    (tmp_path / "metadata.csv").write_text("file_name,caption,number,is_sharp\n" + rows)
    write_card(
        tmp_path,
        "- config_name: default",
        '  data_files: "**"',
        "  filters:",
        "  - - number",
        '    - ">"',
        "    - 0",
        "  - - is_sharp",
        '    - "=="',
        "    - true",
    )
    rows = load_split(SourceArguments(str(tmp_path), streaming=streaming), "train")
    assert [row["caption"] for row in rows] == ["A car"]
    assert "1 cells of" in caplog.text
    assert "metadata.csv, as 'NA', are read as missing, since a card filters the rows: write metadata" in caplog.text


TWO_CONFIGS = (
    "- config_name: boats",
    "  data_files: boats.csv",
    "- config_name: cars",
    "  data_files: cars.csv",
    '  sep: ";"',
)


@pytest.fixture
def two_configs(tmp_path) -> Path:
    (tmp_path / "boats.csv").write_text("caption,number\nA boat,1\n")
    (tmp_path / "cars.csv").write_text("caption;number\nA car, red;2\n")
    write_card(tmp_path, *TWO_CONFIGS)
    return tmp_path


@both_ways
@pytest.mark.parametrize("config", ["boats", "cars"])
def test_one_of_two_configurations(two_configs, caplog, config, streaming):
    rows, expected = read_both(two_configs, streaming, config)
    assert rows == expected
    assert len(rows) == 1
    assert "left out" not in caplog.text


@both_ways
def test_the_default_of_two_configurations(two_configs, streaming):
    write_card(two_configs, *TWO_CONFIGS, "  default: true")
    rows, expected = read_both(two_configs, streaming)
    assert rows == expected == [{"caption": "A car, red", "number": 2}]


@pytest.mark.parametrize(
    ("config", "message"),
    [(None, r"\['boats', 'cars'\].*Name one by --dataset_config_name"), ("bikes", "'bikes' not found.*boats")],
)
def test_a_configuration_that_is_not_there_is_one_line(two_configs, config, message):
    with pytest.raises(ValueError, match=message) as error:
        read_both(two_configs, False, config)
    assert "\n" not in str(error.value)


def test_a_folder_of_images_without_a_card_has_no_configuration(tmp_path):
    write_images(tmp_path, ["a.png"])
    source = SourceArguments(str(tmp_path), dataset_config_name="boats")
    with pytest.raises(ValueError, match="no card there has a configuration 'boats': leave it out"):
        load_split(source, "train")


CARD_WITH_TYPES = """---
configs:
- config_name: default
  data_files: "rows.*"
dataset_info:
  features:
  - name: caption
    dtype: string
  - name: key
    dtype: string
---
"""


@both_ways
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_the_types_of_a_card_hold_and_so_does_what_a_file_has_now(tmp_path, name, streaming):
    """`datasets` makes the key 7 of 007 in a CSV file first, and takes the rows of an earlier file from its cache."""
    (tmp_path / "README.md").write_text(CARD_WITH_TYPES)
    source = SourceArguments(str(tmp_path), streaming=streaming)
    for keys in (["007"], ["008", "009"]):
        rows = [{"caption": "A boat", "key": key} for key in keys]
        if name.endswith("csv"):
            lines = [f"A boat,{key}\n" for key in keys]
            (tmp_path / name).write_text("caption,key\n" + "".join(lines))
        elif name.endswith("jsonl"):
            write_lines(tmp_path / name, rows)
        else:
            parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        assert list(load_split(source, "train", with_images=False)) == rows


@both_ways
def test_images_that_are_added_to_a_folder_with_a_card_are_there(tmp_path, streaming):
    write_card(tmp_path, "- config_name: default", '  data_files: "**"')
    source = SourceArguments(str(tmp_path), streaming=streaming)
    for names in (["0.png"], ["0.png", "1.png"]):
        write_images(tmp_path, names)
        lines = [{"file_name": name, "caption": name} for name in names]
        write_lines(tmp_path / "metadata.jsonl", lines)
        assert [row["caption"] for row in load_split(source, "train")] == names
