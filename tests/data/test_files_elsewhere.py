"""Files at addresses: what `datasets` reads of them is what they hold, or an error."""

import bz2
import gzip
import io
import json
import lzma
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO
from uuid import uuid4

import fsspec
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.images import read_image, undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.rows import read_key
from tests.helpers.data_files import write_images


both_ways = pytest.mark.parametrize("streaming", [False, True])


@pytest.fixture
def put(monkeypatch):
    """Returns what writes files of rows on another machine, and lists their addresses."""
    # else nothing is downloaded, not from memory either
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)

    def put_files(ending: str, *files: list[dict]) -> list[str]:
        folder = uuid4().hex  # a download is known by its name
        addresses = []
        for index, rows in enumerate(files):
            if ending == "parquet":
                buffer = io.BytesIO()
                pd.DataFrame(rows).to_parquet(buffer)
                content = buffer.getvalue()
            elif ending == "csv":
                content = pd.DataFrame(rows).to_csv(index=False).encode()
            elif ending == "json":
                content = json.dumps(rows).encode()
            else:
                content = "\n".join(map(json.dumps, rows)).encode()
            fsspec.filesystem("memory").pipe_file(f"/{folder}/{index}.{ending}", content)
            addresses.append(f"memory://{folder}/{index}.{ending}")
        return addresses

    return put_files


def read_keys(addresses: list[str], streaming: bool, column: str = "sku") -> list[str]:
    name = "parquet" if addresses[0].endswith(".parquet") else "json"
    source = SourceArguments(name, data_files=addresses, streaming=streaming)
    rows = load_split(source, "train", with_images=False, key_column=column)
    return [read_key(row, column) for row in rows]


NUMBERS = [{"sku": 1}, {"sku": 2}]
TEXTS = [{"sku": "005"}, {"sku": "x"}]


@both_ways
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("rows", [NUMBERS, TEXTS])
def test_keys_of_one_type_are_read_as_they_are(put, ending, rows, streaming):
    keys = [str(row["sku"]) for row in rows]
    assert read_keys(put(ending, rows, rows), streaming) == keys * 2


@pytest.mark.parametrize(
    ("ending", "streaming"),
    [("jsonl", False), ("jsonl", True), ("json", False), ("parquet", False), ("parquet", True)],
)
def test_texts_in_a_later_file_are_no_numbers(put, ending, streaming):
    with pytest.raises(ValueError, match="the column 'sku' holds texts, but is read as numbers, as in rows before"):
        read_keys(put(ending, NUMBERS, TEXTS[:1]), streaming)


def test_a_stream_of_lists_has_no_types(put):
    assert read_keys(put("json", NUMBERS, TEXTS), streaming=True) == ["1", "2", "005", "x"]
    with pytest.raises(ValueError, match="0.json: the column 'sku' holds values of several types: write JSON lines"):
        read_keys(put("json", NUMBERS + TEXTS), streaming=True)


of_types = pytest.mark.parametrize(("ending", "streaming"), [("jsonl", False), ("jsonl", True), ("json", False)])


@of_types
def test_texts_among_numbers_are_no_keys(put, ending, streaming):
    addresses = put(ending, NUMBERS + TEXTS[:1])
    with pytest.raises(ValueError, match="The column 'sku' holds texts and numbers, and the text '007' would be read"):
        read_keys(addresses, streaming)
    # again, now that rows are in the cache, which another column of keys has put there
    source = SourceArguments("json", data_files=addresses, streaming=streaming)
    assert len(list(load_split(source, "train", with_images=False))) == 3
    with pytest.raises(ValueError, match="The column 'sku' holds texts and numbers"):
        read_keys(addresses, streaming)


@of_types
def test_texts_beside_lists_stay_texts(put, ending, streaming):
    captions = ["A boat.", ["A red boat.", "007"], None]
    addresses = put(ending, [{"caption": caption} for caption in captions])
    rows = load_split(SourceArguments("json", data_files=addresses, streaming=streaming), "train", with_images=False)
    assert [row["caption"] for row in rows] == captions


@both_ways
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "values", [({"id": 1}, {"id": "005"}), ([1, 2], ["01"]), ([{"id": 1}], [{"id": "005"}]), (0.5, "1e5")]
)
def test_texts_inside_of_others_are_no_numbers(put, ending, values, streaming):
    addresses = put(ending, *([{"sku": value}] for value in values))
    name = "json" if ending == "jsonl" else "parquet"
    source = SourceArguments(name, data_files=addresses, streaming=streaming)
    with pytest.raises(ValueError, match="the column 'sku' holds texts, but is read as numbers"):
        list(load_split(source, "train", with_images=False))


@both_ways
def test_labels_with_other_names_are_refused(put, streaming):
    folder = uuid4().hex
    addresses = []
    for names in (["cat", "dog"], ["dog", "cat"]):
        features = Features({"label": ClassLabel(names=names)})
        buffer = io.BytesIO()
        Dataset.from_dict({"label": [1]}, features=features).to_parquet(buffer)
        addresses.append(f"memory://{folder}/{names[0]}.parquet")
        fsspec.filesystem("memory").pipe_file(addresses[-1], buffer.getvalue())
    source = SourceArguments("parquet", data_files=addresses, streaming=streaming)
    with pytest.raises(ValueError, match="the labels in the column 'label' have other names than in rows before"):
        list(load_split(source, "train", with_images=False))


@both_ways
@pytest.mark.parametrize("values", [("x", "2020-01-03"), (["x"], ["2020-01-03"]), ({"a": "x"}, {"a": "2020-01-03"})])
def test_dates_after_texts_are_no_times(put, values, streaming):
    addresses = put("jsonl", *([{"sku": value}] for value in values))
    with pytest.raises(ValueError, match="1.jsonl: the column 'sku' holds texts that are written like dates"):
        list(
            load_split(SourceArguments("json", data_files=addresses, streaming=streaming), "train", with_images=False)
        )


@both_ways
def test_numbers_after_texts_are_texts(put, streaming):
    assert read_keys(put("jsonl", TEXTS, NUMBERS), streaming) == ["005", "x", "1", "2"]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_keys_of_caption_files_stay_as_they_are(put, ending):
    texts = [row | {"caption": "A boat."} for row in TEXTS]
    numbers = [row | {"caption": "A boat."} for row in NUMBERS]
    assert CaptionFiles(put(ending, texts, numbers), "sku", ["caption"])["005"] == ["A boat."]
    with pytest.raises(ValueError, match="the column 'sku' holds texts, but is read as numbers"):
        CaptionFiles(put(ending, numbers, texts[:1]), "sku", ["caption"])


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_columns_of_caption_files_that_are_not_used_may_differ(put, ending):
    addresses = put(ending, *([{"sku": f"00{n}", "caption": "A boat.", "n": n}] for n in (1, "2")))
    assert CaptionFiles(addresses, "sku", ["caption"])["002"] == ["A boat."]
    # other data, for which they are used, finds no rows of these in the cache
    source = SourceArguments("parquet" if ending == "parquet" else "json", data_files=addresses)
    with pytest.raises(ValueError, match="the column 'n' holds texts"):
        load_split(source, "train", with_images=False)


def test_captions_of_csv_are_texts(put):
    folder = uuid4().hex
    fsspec.filesystem("memory").pipe_file(f"/{folder}/0.csv", b"sku,caption\n001,007\n002,\n003,1.50\n")
    files = CaptionFiles([f"memory://{folder}/0.csv"], "sku", ["caption"])
    assert [files[key] for key in ("001", "002", "003")] == [["007"], [], ["1.50"]]


COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
ENDINGS_OF_CAPTIONS = ["", ".gz"]


class SlowHandler(SimpleHTTPRequestHandler):
    """Sends a file in two parts, so that one read gives the first one."""

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:
        outputfile.write(source.read(10))
        outputfile.flush()
        time.sleep(0.05)
        outputfile.write(source.read())


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A folder, and where it is served."""
    folder = tmp_path_factory.mktemp("web")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SlowHandler, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def write_csv(web: tuple[Path, str], place: str, ending: str, row: str) -> str:
    """Writes CSV with a row, and another one, to a web server or into memory. Returns its address."""
    folder, url = web
    content = COMPRESSIONS[ending](f"sku,caption\n\n{row}\n2,A cat\n".encode())
    name = f"{uuid4().hex}.csv{ending}"
    if place == "memory":
        fsspec.filesystem("memory").pipe_file(f"/{name}", content)
        return f"memory://{name}"
    (folder / name).write_bytes(content)
    return f"{url}/{name}"


@both_ways
@pytest.mark.parametrize(
    ("place", "ending", "row"),
    [
        ("web", "", "1,A boat, red"),
        ("web", "", "x,A boat, red"),
        ("web", "", '"1\n2",A boat, red'),
        ("web", "", "1,A boat,"),
        ("web", ".gz", "1,A boat, red"),
        ("web", ".bz2", "1,A boat, red"),
        ("web", ".xz", "1,A boat, red"),
        ("memory", "", "1,A boat, red"),
        ("memory", ".gz", "1,A boat, red"),
    ],
)
def test_cells_of_csv_are_quoted(put, web, place, ending, row, streaming):
    address = write_csv(web, place, ending, row)
    if ending in ENDINGS_OF_CAPTIONS:
        with pytest.raises(ValueError, match="csv.* has more fields than the header: quote"):
            CaptionFiles([address], "sku", ["caption"])
    source = SourceArguments("csv", data_files=[address], streaming=streaming)
    with pytest.raises(ValueError, match="csv.* has more fields than the header: quote"):
        list(load_split(source, "train", with_images=False))


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("place", ["memory", "web"])
def test_quoted_cells_of_csv_are_read(put, web, place, ending):
    address = write_csv(web, place, ending, '"1","A boat, red"')
    if ending in ENDINGS_OF_CAPTIONS:
        assert CaptionFiles([address], "sku", ["caption"])["1"] == ["A boat, red"]
    rows = load_split(SourceArguments("csv", data_files=[address]), "train", with_images=False, key_column="sku")
    assert list(rows) == [{"sku": "1", "caption": "A boat, red"}, {"sku": "2", "caption": "A cat"}]


@both_ways
@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_images_that_rows_elsewhere_name_are_read(put, tmp_path, ending, streaming):
    write_images(tmp_path, ["0.png", "1.png"])
    rows = [{"image": str(tmp_path / name), "caption": "A boat."} for name in ("0.png", "1.png")]
    (address,) = put(ending, rows)
    source = SourceArguments("csv" if ending == "csv" else "json", data_files=[address], streaming=streaming)
    found = list(undecoded(load_split(source, "train"), "image"))
    assert [read_image(row["image"]).size for row in found] == [(4, 3), (4, 3)]


def put_texts(*texts: str) -> list[str]:
    """Writes CSV files into memory, and lists their addresses."""
    addresses = [f"memory://{uuid4().hex}.csv" for _ in texts]
    for address, text in zip(addresses, texts):
        fsspec.filesystem("memory").pipe_file(address.removeprefix("memory:/"), text.encode())
    return addresses


def write_texts(folder: Path, *texts: str) -> list[str]:
    """Writes CSV files, and lists them."""
    for index, text in enumerate(texts):
        (folder / f"{index}.csv").write_text(text)
    return [str(folder / f"{index}.csv") for index in range(len(texts))]


def read_csv(files: list[str], **options) -> list[dict]:
    source = SourceArguments("csv", data_files=files, **options)
    return list(load_split(source, "train", with_images=False, key_column="key"))


@pytest.mark.filterwarnings("error::pandas.errors.ParserWarning")
@both_ways
@pytest.mark.parametrize(
    "texts",
    [
        ["key,n,m\n007,007,NA\n8,1.50,x\n"],
        ["key,n\na,1\n", "key,n\nb,007\n"],
        ["key,n\na,x\n", "key,n\nb,007\n"],
        ["key,n\na,True\n", "key,n\nb,5\n"],
        ["key,n\na,5\n", "key,n\nb,True\n"],
        ["key,n\na,1\nb,\n,3\n"],
        ["key,n\na,\n", "key,n\nb,x\n"],
        ["key,n\na,\nb,\n"],
        ["key,n\n", "key,n\nb,2\n"],
        ["key,n\na,1\n", "key,n\nb, 2.5\n"],
        ['key,n\na,"x, y\nz"\n\n1,\n'],
        ["key,n,m\na, +5 ,-1.5e3\nb,-6,+2\n"],
        ["id,n\n007,1\n"],
        ["key,n\na,1\n,\n"],
        [f"key,n\na,{'long ' * 50_000}\n"],
    ],
)
def test_csv_elsewhere_is_read_as_it_is_here(put, tmp_path, texts, streaming):
    here = read_csv(write_texts(tmp_path, *texts))
    elsewhere = read_csv(put_texts(*texts), streaming=streaming)
    assert elsewhere == here
    assert [set(map(type, row.values())) for row in elsewhere] == [set(map(type, row.values())) for row in here]


def test_compressed_csv_of_several_parts_is_read(put):
    name = f"{uuid4().hex}.csv.gz"
    content = gzip.compress(b"key,n\na") + gzip.compress(b"b,5\nc,6\n")
    fsspec.filesystem("memory").pipe_file(f"/{name}", content)
    assert read_csv([f"memory://{name}"], streaming=True) == [{"key": "ab", "n": 5}, {"key": "c", "n": 6}]


def test_compressed_csv_that_is_damaged_is_named(put):
    (address,) = put_texts("")
    fsspec.filesystem("memory").pipe_file(address.removeprefix("memory:/"), b"\x1f\x8b damaged")
    with pytest.raises(ValueError, match=r"csv cannot be read: Error -3 while decompressing"):
        read_csv([address], streaming=True)


LONG = "".join(f"{row},{'a' * 100}\n" for row in range(12_000))  # of more than a MiB


def test_csv_of_other_types_behind_the_first_rows_is_read_or_refused(put, tmp_path):
    """Rows have the types of the whole file, a stream those of its beginning."""
    for last in ("x", "1.5", "007", "0x10", "nan"):
        texts = ["n,key\n" + LONG + f"{last},b\n"]
        here = read_csv(write_texts(tmp_path, *texts))
        assert read_csv(put_texts(*texts)) == here
        with pytest.raises(ValueError, match=f"The column 'n' holds int64 in the first rows, and later '{last}'"):
            read_csv(put_texts(*texts), streaming=True)
    cut = "key,n\n" + f"{'a' * 90},5\n" * 12_000  # in a key, in the last row that is read at first
    assert read_csv(put_texts(cut), streaming=True)[-1] == {"key": "a" * 90, "n": 5}
    empty = "key,n,m\n" + "".join(f"{row},,{'a' * 100}\n" for row in range(12_000)) + "a,later,x\n"
    assert read_csv(put_texts(empty), streaming=True)[-1]["n"] == "later"
    missing = "key,n,m\n" + "".join(f"{row},5,{'a' * 100}\n" for row in range(12_000)) + "a,,x\n"
    assert [row["n"] for row in read_csv(put_texts(missing), streaming=True)[-2:]] == [5, None]


@both_ways
def test_csv_files_with_other_columns_than_each_other_are_refused(put, streaming):
    for wrong, message in (
        ("key,n,n\nb,2,3\n", "has several columns named 'n'"),
        ("key,n\nb\n", "has .* fields|has fewer fields"),
    ):
        with pytest.raises(ValueError, match=message):
            read_csv(put_texts(wrong), streaming=streaming)
    for later in ("key,n,m\nb,2,3\n", "n,key\n2,b\n", "key\nb\n"):
        addresses = put_texts("key,n\na,1\n", later)
        with pytest.raises(ValueError, match="memory://.*csv has the columns .* but memory://.*csv has"):
            read_csv(addresses, streaming=streaming)


def test_caption_files_of_two_places_are_refused(put, tmp_path):
    (tmp_path / "0.jsonl").write_text('{"sku": 1, "caption": "A boat."}\n')
    addresses = put("jsonl", [{"sku": "007", "caption": "A boat."}])
    with pytest.raises(ValueError, match="are on this machine and elsewhere.*: download those from elsewhere"):
        CaptionFiles([str(tmp_path / "0.jsonl"), *addresses], "sku", ["caption"])
    (tmp_path / "1.jsonl").write_text('{"sku": 2, "caption": "A boat."}\n')
    files = CaptionFiles([str(tmp_path / "0.jsonl"), f"file://{tmp_path}/1.jsonl"], "sku", ["caption"])
    assert [files[key] for key in "12"] == [["A boat."], ["A boat."]]
