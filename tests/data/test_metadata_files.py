"""Metadata of folders of images that are elsewhere, or in archives."""

import zipfile
from io import BytesIO
from uuid import uuid4

import fsspec
import PIL.Image
import pytest
from datasets import Features, Image, Value
from transformers.utils import logging

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.metadata_files import FolderTexts


both_ways = pytest.mark.parametrize("streaming", [False, True])


@pytest.fixture
def put(monkeypatch):
    """Returns what writes a folder of two images, or a zip archive of them, on another machine, with its metadata."""
    # else nothing is downloaded, not from memory either
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)

    base = uuid4().hex
    folders = (f"{base}/{index}" for index in range(10))  # a download is known by its name

    def put_folder(metadata: str, is_archive: bool, name: str = "metadata.csv") -> list[str]:
        folder = next(folders)
        buffer = BytesIO()
        PIL.Image.new("RGB", (4, 3)).save(buffer, "PNG")
        files = {"0.png": buffer.getvalue(), "1.png": buffer.getvalue(), name: metadata.encode()}
        if is_archive:
            buffer = BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for file, content in files.items():
                    archive.writestr(file, content)
            files = {"train.zip": buffer.getvalue()}
        for file, content in files.items():
            fsspec.filesystem("memory").pipe_file(f"/{folder}/{file}", content)
        return [f"memory://{folder}/{file}" for file in files]

    return put_folder


# Rows of a folder, which a download on this machine has not: its files have other names there
ways = pytest.mark.parametrize(("is_archive", "streaming"), [(False, True), (True, False), (True, True)])


def read(files: list[str], streaming: bool, key_column: str | None = "sku") -> list[dict]:
    source = SourceArguments("imagefolder", data_files=files, streaming=streaming)
    rows = undecoded(load_split(source, "train", key_column=key_column), "image")
    return [{name: value for name, value in row.items() if name != "image"} for row in rows]


@ways
def test_words_and_keys_of_csv_are_texts(put, is_archive, streaming):
    files = put("file_name,sku,caption,number\n0.png,1.50,NA,1\n1.png,2,None,\n", is_archive)
    expected = [{"sku": "1.50", "caption": "NA", "number": 1.0}, {"sku": "2", "caption": "None", "number": None}]
    assert read(files, streaming) == expected
    # without a column of keys a number is one, also after rows with one are in the cache
    assert [row["sku"] for row in read(files, streaming, None)] == [1.5, 2.0]
    assert read(files, streaming) == expected


@ways
def test_leading_zeros_stay(put, is_archive, streaming):
    files = put("file_name,id\n0.png,000\n1.png,001\n", is_archive)
    assert [row["id"] for row in read(files, streaming, None)] == ["000", "001"]


@ways
@pytest.mark.parametrize("caption", ["A red boat, at sea", '"A boat"" '])
def test_a_cell_that_is_not_quoted_right_is_refused(put, caption, is_archive, streaming):
    files = put(f"caption,file_name\n{caption},0.png\n{caption},1.png\n", is_archive)
    with pytest.raises(ValueError, match="metadata.csv.*line 2"):
        read(files, streaming)


def test_a_cell_is_checked_where_a_card_says_the_types(put):
    files = put("caption,file_name\nA red boat, at sea,0.png\n", is_archive=False)
    features = Features({"image": Image(), "caption": Value("string")})
    reader = FolderTexts(data_files=files, features=features)
    reader.EXTENSIONS = [".png"]
    with pytest.raises(ValueError, match="metadata.csv has 3 fields in line 2, but 2 in its header"):
        list(reader.as_streaming_dataset("train"))


@ways
def test_keys_of_json_lines_are_read_as_they_are(put, is_archive, streaming):
    lines = '{"file_name": "0.png", "sku": "007"}\n{"file_name": "1.png", "sku": "NA"}\n'
    files = put(lines, is_archive, "metadata.jsonl")
    assert [row["sku"] for row in read(files, streaming)] == ["007", "NA"]


# Values in two files, and what is read of them
VALUES = {
    "decimals, and nothing": ("1.5", "", [1.5, None]),
    "a number, and a text that is written like one": ("1", "007", ["1", "007"]),
    "a number, and a large one": ("1", "1234567890123456789", ["1", "1234567890123456789"]),
    "whole numbers, and decimals": ("1", "1.5", [1.0, 1.5]),
    "texts, and nothing": ("a", "", ["a", None]),
}


@both_ways
@pytest.mark.parametrize("name", VALUES)
def test_a_column_has_one_type_in_all_files(put, name, streaming):
    *values, expected = VALUES[name]
    files = []
    for value in values:
        files += put(f"file_name,value\n0.png,{value}\n", is_archive=True)
    assert [row["value"] for row in read(files, streaming)] == expected


@both_ways
def test_texts_among_numbers_of_json_lines_are_refused(put, streaming):
    files = []
    for value in ("1", '"007"'):
        files += put(f'{{"file_name": "0.png", "value": {value}}}\n', is_archive=True, name="metadata.jsonl")
    with pytest.raises(ValueError, match="metadata.jsonl.*: the column 'value' holds texts, but is read as numbers"):
        read(files, streaming)


@both_ways
def test_a_header_without_rows_is_no_end_of_others(put, streaming):
    files = put("file_name,value\n", is_archive=True)
    if not streaming:
        with pytest.raises(ValueError, match="cannot be read: .* corresponds to no data"):
            read(files, streaming)
    files += put("file_name,value\n0.png,1.5\n", is_archive=True)
    assert read(files, streaming) == [{"value": 1.5}]


def test_images_of_an_archive_that_no_metadata_names_are_counted(put, caplog):
    logging.get_logger("transformers").warning_once.cache_clear()
    files = put("file_name,caption\n0.png,A boat\n9.png,A boat\n", is_archive=True)
    assert len(read(files, streaming=False)) == 2
    assert "1 of 2 images are left out: they are in no line of metadata" in caplog.text


@both_ways
def test_dates_among_texts_are_no_times(put, streaming):
    files = []
    for caption in ("A boat.", "2020-01-03"):
        files += put(f'{{"file_name": "0.png", "caption": "{caption}"}}\n', is_archive=True, name="metadata.jsonl")
    with pytest.raises(ValueError, match="metadata.jsonl.*: the column 'caption' holds texts that are written like"):
        read(files, streaming)
