"""Which images are captioned, and what their keys are."""

import hashlib
import json
import os
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pytest
from datasets import Dataset, Features, Image, IterableDataset, Value

from modeling_lotlip.captioning.image_files import ImageFile, is_in_share, read_image_files
from modeling_lotlip.captioning.records import SCHEMA, Records, open_database
from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.images import read_file, undecoded
from modeling_lotlip.data.scenes import load_scenes
from tests.helpers.captioners import read_records
from tests.helpers.data_files import write_shard
from tests.helpers.images import save_images


NAMES = [f"{index}.png" for index in range(4)]
URLS = [f"https://example.org/{index}" for index in range(4)]


def test_images_of_shards_have_their_keys_and_urls(caption, llava, tmp_path, capsys):
    scenes = load_scenes(4, seed=22).add_column("url", URLS)
    digests = [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in undecoded(scenes, "image")]
    (tmp_path / "shards").mkdir()
    members = [{}, {}]
    for index, row in enumerate(undecoded(scenes, "image")):
        members[index % 2][f"{index:09}.json"] = json.dumps({"url": row["url"]}).encode()
        members[index % 2][f"{index:09}.png"] = row["image"]["bytes"]
    for half in (0, 1):
        write_shard(tmp_path / "shards" / f"{half}.tar", members[half])
    pattern = str(tmp_path / "shards" / "*.tar")
    shards = {"dataset_name": "webdataset", "data_files": [pattern], "image_column": "png"}
    rows = caption("shards", llava, **shards, streaming=True)
    assert sorted(row["key"] for row in rows) == [f"{index:09}" for index in range(4)]
    assert {row["url"]: row["sha256"] for row in rows} == dict(zip(scenes["url"], digests))
    rows = caption("urls", llava, **shards, key_column="json.url")
    assert {row["key"] for row in rows} == set(scenes["url"])

    scenes.save_to_disk(tmp_path / "saved")
    saved = {"dataset_name": str(tmp_path / "saved")}
    assert {row["key"] for row in caption("saved", llava, **saved)} == set(digests)
    # the same image in two rows is captioned once, two images with one key are an error
    scenes.select([0, 1, 2, 3, 1]).save_to_disk(tmp_path / "double")
    rows = caption("double", llava, dataset_name=str(tmp_path / "double"), key_column="url")
    assert len(rows) == 4
    assert ": 1 rows repeat an image" in capsys.readouterr().out
    scenes.map(lambda row: {"url": "the same"}).save_to_disk(tmp_path / "same")
    with pytest.raises(ValueError, match="Two different images have the key 'the same', the second in row 1"):
        caption("same", llava, dataset_name=str(tmp_path / "same"), key_column="url")
    assert len(read_records(tmp_path / "same")) <= 1
    some = scenes.remove_columns("url").add_column("url", ["known", None, None, None])
    some.save_to_disk(tmp_path / "some")
    rows = caption("some", llava, dataset_name=str(tmp_path / "some"), key_column="url")
    assert {row["key"] for row in rows} == {"known", *digests[1:]}
    assert "3 images have no `--key_column url`" in capsys.readouterr().out


def test_every_key_falls_to_one_process_whatever_the_run():
    keys = [f"{number}.jpg" for number in range(100)]
    for num_processes in (1, 2, 3):
        shares = []
        for process_index in range(num_processes):
            state = SimpleNamespace(num_processes=num_processes, process_index=process_index)
            shares.append([key for key in keys if is_in_share(state, key)])
        assert sorted(sum(shares, [])) == sorted(keys)
        assert min(map(len, shares)) > 20


def save_image(path: Path, color: str) -> str:
    """Saves an image of one color; its path."""
    PIL.Image.new("RGB", (8, 8), color).save(path)
    return str(path)


def read_all(folder: Path, dataset: Dataset | IterableDataset, captioner: str = "llava", **options) -> list[ImageFile]:
    """The images of a dataset that have no record in a folder."""
    state = SimpleNamespace(num_processes=1, process_index=0)
    source = SourceArguments(dataset_name=str(folder))
    key_column = options.pop("key_column", None)
    counts = options.pop("counts", Counter())
    with open_database(folder) as connection:
        what = (dataset, source, key_column, captioner)
        return list(read_image_files(*what, state, connection, counts, **options))


@pytest.mark.parametrize("key_column, keys", [(None, NAMES), ("url", URLS)])
def test_of_images_that_are_done_the_file_may_be_gone(tmp_path, key_column, keys):
    save_images(tmp_path, load_scenes(4, seed=22)["image"])
    paths = [str(tmp_path / name) for name in NAMES]
    dataset = Dataset.from_dict({"image": paths, "url": URLS}).cast_column("image", Image())
    with open_database(tmp_path) as connection:
        records = Records(connection, tmp_path, 10)
        for key, error in zip(keys[:3], (None, None, "timeout")):
            record = dict.fromkeys(SCHEMA.names)
            records.add(record | {"key": key, "captioner": "llava", "error": error})
        records.commit()
    for path in paths[:3]:
        os.unlink(path)

    (file,) = read_all(tmp_path, dataset, key_column=key_column)
    assert file.key == keys[3]
    assert file.content
    assert file.url == URLS[3]
    again = read_all(tmp_path, dataset, key_column=key_column, retry_failed=True)
    assert [file.key for file in again] == keys[2:]
    others = read_all(tmp_path, dataset, "blip", key_column=key_column)
    assert [file.key for file in others] == keys
    assert all("No such file" in file.error for file in others[:3])


@pytest.mark.parametrize("error", [None, "timeout"])
def test_another_image_under_a_key_is_captioned_anew_and_counted(tmp_path, error):
    paths = [save_image(tmp_path / name, color) for name, color in (("a.png", "red"), ("b.png", "red"))]
    dataset = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    with open_database(tmp_path) as connection:
        records = Records(connection, tmp_path, 10)
        for file in read_all(tmp_path, dataset):
            record = dict.fromkeys(SCHEMA.names) | {"key": file.key, "sha256": file.sha256}
            records.add(record | {"captioner": "llava", "error": error})
        records.commit()
    assert read_all(tmp_path, dataset) == []
    save_image(tmp_path / "b.png", "blue")
    counts = Counter()
    (file,) = read_all(tmp_path, dataset, counts=counts)
    assert file.key == "b.png"
    assert file.sha256 == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()
    assert counts == {"images took the place of others, and are captioned anew": 1}


def record_all(folder: Path, dataset: Dataset, captioner: str = "llava", **options) -> None:
    """Records the images that a captioner has not captioned, as if it had, and writes the files."""
    with open_database(folder) as connection:
        records = Records(connection, folder, 10)
        for file in read_all(folder, dataset, captioner, **options):
            record = dict.fromkeys(SCHEMA.names) | {"key": file.key, "sha256": file.sha256, "captioner": captioner}
            records.add(record, file.signature)
        records.write()


@pytest.fixture
def recorded(tmp_path) -> Dataset:
    """Two images of a folder that have captions."""
    paths = [save_image(tmp_path / name, "red") for name in ("a.png", "b.png")]
    dataset = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    record_all(tmp_path, dataset)
    return dataset


def list_read(monkeypatch, folder: Path, dataset: Dataset, captioner: str = "llava") -> list[str]:
    """Lists the files that are read."""
    read = []

    def note(image: dict) -> bytes:
        read.append(os.path.basename(image["path"]))
        return read_file(image)

    monkeypatch.setattr("modeling_lotlip.captioning.image_files.read_file", note)
    read_all(folder, dataset, captioner)
    return read


def test_files_that_have_not_changed_are_not_read_again(monkeypatch, recorded, tmp_path):
    assert list_read(monkeypatch, tmp_path, recorded) == []
    assert list_read(monkeypatch, tmp_path, recorded, "blip") == ["a.png", "b.png"]


def test_a_file_of_the_same_size_and_time_is_read_again_if_its_entry_has_changed(monkeypatch, recorded, tmp_path):
    before = os.stat(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[::-1])
    os.utime(tmp_path / "b.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list_read(monkeypatch, tmp_path, recorded) == ["b.png"]


def test_images_of_an_archive_that_was_replaced_are_captioned_anew(tmp_path):
    archive = tmp_path / "photos.zip"

    def write_archive(color: str) -> None:
        with zipfile.ZipFile(archive, "w") as opened:
            for name, of_image in (("a.png", "red"), ("b.png", color)):
                opened.writestr(name, Path(save_image(tmp_path / name, of_image)).read_bytes())

    paths = [f"zip://{name}::{archive}" for name in ("a.png", "b.png")]
    dataset = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    write_archive("red")
    record_all(tmp_path, dataset)
    assert read_all(tmp_path, dataset) == []
    write_archive("blue")
    (file,) = read_all(tmp_path, dataset)
    assert file.sha256 == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()


def test_images_that_exchange_their_places_in_an_archive_are_captioned_anew(tmp_path):
    paths = []
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as opened:
        for name, color in (("a.png", "red"), ("b.png", "blue")):
            opened.writestr(name, Path(save_image(tmp_path / name, color)).read_bytes())
            paths.append(f"zip://{name}::{tmp_path / 'photos.zip'}")

    def make_dataset(of_ids: list[str]) -> Dataset:
        return Dataset.from_dict({"image": of_ids, "id": ["x", "y"]}).cast_column("image", Image())

    record_all(tmp_path, make_dataset(paths), key_column="id")
    assert read_all(tmp_path, make_dataset(paths), key_column="id") == []
    exchanged = read_all(tmp_path, make_dataset(paths[::-1]), key_column="id")
    assert [file.key for file in exchanged] == ["x", "y"]


def test_what_another_captioner_wrote_of_an_image_that_was_replaced_is_marked(tmp_path):
    path = save_image(tmp_path / "a.png", "red")
    dataset = Dataset.from_dict({"image": [path]}).cast_column("image", Image())

    record_all(tmp_path, dataset)
    record_all(tmp_path, dataset, "blip")
    save_image(tmp_path / "a.png", "blue")
    record_all(tmp_path, dataset)
    marks = {row["captioner"]: row["rejected_by"] for row in read_records(tmp_path)}
    assert marks == {"llava": None, "blip": "other_image"}
    record_all(tmp_path, dataset, "blip")
    assert [row["rejected_by"] for row in read_records(tmp_path)] == [None, None]


def test_an_unchanged_file_whose_caption_is_of_another_image_is_captioned(monkeypatch, recorded, tmp_path):
    """By another captioner, which has captioned the image before."""
    with open_database(tmp_path) as connection:
        connection.execute("UPDATE records SET sha256 = 'of another' WHERE key = 'b.png'")
    (file,) = read_all(tmp_path, recorded)
    assert file.key == "b.png"
    assert file.content == (tmp_path / "b.png").read_bytes()


def test_keys_of_rows_without_a_name_and_with_one_that_is_no_unicode(tmp_path):
    names = ["a", None, "caf\udce9", "caf\udce8"]
    rows = [{"__key__": name, "image": {"bytes": None, "path": "b.png"}} for name in names]
    features = Features({"__key__": Value("string"), "image": Image(decode=False)})
    stream = IterableDataset.from_generator(lambda: iter(rows), features=features)
    keys = [file.key for file in read_all(tmp_path, stream)]
    assert keys == ["a", "b.png", "caf\\udce9", "caf\\udce8"]
