"""`lotlip pack`: images and captions as webdataset shards."""

import hashlib
import re
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest
from datasets import Dataset, load_dataset

import lotlip
from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.images import read_image, undecoded
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.shards import write_tar
from modeling_lotlip.utils.output_folder import OutputFolder
from tests.helpers.commands import read_error, to_argv
from tests.helpers.data_files import write_lines
from tests.helpers.photographs import encode


@pytest.fixture
def photos(tmp_path) -> Path:
    """Six files with captions of both kinds: one is no image, one has no caption, one no JPEG, one only a long one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for number, name in enumerate(["0.jpg", "1.jpg", "2.jpg", "3.png", "4.jpg", "5.jpg"]):
        PIL.Image.new("RGB", (8 + number, 6), ("red", "blue")[number % 2]).save(folder / name)
        row = {
            "file_name": name,
            "caption": f"Number {number}.",
            "long_captions": [f"A. {number}.", "B."],
            "url": f"x.org/{number}",
        }
        rows.append(row)
    (folder / "1.jpg").write_bytes(b"no image")
    rows[2] |= {"caption": None, "long_captions": []}
    rows[4]["caption"] = None
    rows[5]["long_captions"] = None
    write_lines(folder / "metadata.jsonl", rows)
    return folder


def command_line(photos: Path) -> list[str]:
    shards = photos.parent / "shards"
    return to_argv("pack", dataset_name="imagefolder", data_dir=photos, output_dir=shards)


def pack(photos: Path, *arguments: object) -> dict[str, dict]:
    """Packs the photos; the rows of the shards by key."""
    shards = photos.parent / "shards"
    status = lotlip.main([*command_line(photos), *map(str, arguments)])
    assert status == 0
    endings = {name.split(".")[1] for name in list_members(shards)}
    (image_column,) = endings & {"jpg", "png", "webp"}
    packed = load_dataset("webdataset", data_files=str(shards / "*.tar"), split="train")
    rows = {}
    for row in undecoded(packed, image_column):
        rows[row["json"]["key"]] = row | {"image": row[image_column]}
    return rows


def list_members(shards: Path) -> list[str]:
    """The names in all shards, in their order."""
    names = []
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    return names


def test_rows_are_packed_as_they_are(photos, capsys):
    rows = pack(photos, "--shard_size", 3)
    shards = photos.parent / "shards"
    files = sorted(path.name for path in shards.glob("*.*"))
    assert files == [".lock", "00000.tar", "00001.tar", "settings.json"]
    # numbered on from shard to shard, and all samples have the same members
    expected = []
    for number in range(4):
        for member in ("jpg", "json", "caption.json", "long_captions.json"):
            expected.append(f"{number:09d}-HASH.{member}")
    assert [re.sub("-[0-9a-f]{8}", "-HASH", name) for name in list_members(shards)] == expected
    assert len(tarfile.open(shards / "00000.tar").getnames()) == 12
    assert list(rows) == ["0.jpg", "3.png", "4.jpg", "5.jpg"]
    for name, row in rows.items():
        content = (photos / name).read_bytes()
        number = int(name[0])
        short = [f"Number {number}."]
        long = [f"A. {number}.", "B."]
        if number == 4:
            short = [""]
        if number == 5:
            long = [""]
        about = {"key": name, "url": f"x.org/{number}", "sha256": hashlib.sha256(content).hexdigest()}
        assert row["json"] == about | {"caption": short, "long_captions": long}
        assert row["caption.json"] == short
        assert row["long_captions.json"] == long
        is_copied = row["jpg"]["bytes"] == content
        assert is_copied == (name != "3.png")
    assert capsys.readouterr().out.splitlines() == [
        f"{shards}: 4 of 6 rows are used; left out: 1, the image cannot be read: cannot identify image file (such as "
        "'1.jpg'); 1, it has no caption (such as '2.jpg').",
        "1 images were converted to jpg.",
    ]


def test_images_in_another_format(photos):
    (photos / "4.jpg").write_bytes(encode(PIL.Image.new("RGB", (8, 6), "red"), "heic"))
    rows = pack(photos, "--image_format", "png", "--max_train_samples", 5)
    assert list(rows) == ["0.jpg", "3.png", "4.jpg"]
    assert rows["3.png"]["png"]["bytes"] == (photos / "3.png").read_bytes()
    original = read_image({"path": str(photos / "0.jpg")})
    assert read_image(rows["0.jpg"]["png"]).tobytes() == original.tobytes()
    for row in rows.values():
        assert PIL.Image.open(BytesIO(row["png"]["bytes"])).format == "PNG"


def test_captions_of_caption_files_and_keys_of_a_column(photos):
    digests = [hashlib.sha256((photos / f"{number}.jpg").read_bytes()).hexdigest() for number in (0, 2)]
    side = [{"sha256": digest, "text": f"Beside {digest[:4]}."} for digest in digests]
    Dataset.from_list(side).to_parquet(photos.parent / "side.parquet")
    arguments = ["--caption_files", photos.parent / "side.parquet", "--file_key_column", "sha256"]
    arguments += ["--file_caption_columns", "text", "--key_column", "image"]
    arguments += ["--caption_column", "", "--long_captions_column", ""]
    rows = pack(photos, *arguments)
    assert list(rows) == digests  # no other column has captions, and the hash is the key
    for digest, row in rows.items():
        assert row["long_captions.json"] == [f"Beside {digest[:4]}."]
        assert "caption.json" not in row
        assert "caption" not in row["json"]


def test_images_without_captions_in_caption_files_are_counted(photos, capsys, caplog):
    """Also those with captions in a column, and where keys are known only when images are read."""
    digest = hashlib.sha256((photos / "0.jpg").read_bytes()).hexdigest()
    rows = [{"key": digest, "caption": "Beside."}, {"key": "0" * 64, "caption": "Of none."}]
    arguments = ["--key_column", "image", "--caption_files"]
    pack(photos, *arguments, write_lines(photos.parent / "some.jsonl", rows))
    printed = capsys.readouterr().out
    assert "4 of 6 rows are used" in printed
    assert "5 have no captions in `--caption_files`" in printed
    assert "Of 6 images 5 have no captions in `--caption_files`" in caplog.text


@pytest.mark.parametrize(
    "how",
    [["--key_column", "image"], ["--key_column", "url", "--streaming"]],
    ids=["hashes", "a stream"],
)
def test_captions_in_columns_are_packed_where_caption_files_match_no_image(photos, capsys, caplog, how):
    side = write_lines(photos.parent / "none.jsonl", [{"key": "0" * 64, "caption": "Of none."}])
    rows = pack(photos, *how, "--caption_files", side)
    assert [row["caption.json"] for row in rows.values()] == [["Number 0."], ["Number 3."], [""], ["Number 5."]]
    assert "Of 6 images 6 have no captions in `--caption_files`" in caplog.text
    error = read_error(capsys, *command_line(photos), *how, "--caption_files", side)
    assert "shards` holds shards: delete them" in error  # of a run that is complete
    shutil.rmtree(photos.parent / "shards")
    columns = ["--caption_column", "", "--long_captions_column", ""]
    error = read_error(capsys, *command_line(photos), *how, *columns, "--caption_files", side)
    assert "There is nothing to pack: 0 of 6 rows are used" in error
    assert "6 have no captions in `--caption_files`" in error


def test_a_dataset_that_gives_no_shard_is_refused(photos, capsys):
    (photos / "metadata.jsonl").write_text('{"file_name": "0.jpg", "caption": " "}\n')
    error = read_error(capsys, *command_line(photos))
    assert "There is nothing to pack: 0 of 1 rows are used; left out: 1, it has no caption (such as '0.jpg')" in error
    assert not (photos.parent / "shards").exists()
    (photos.parent / "shards").mkdir()
    (photos.parent / "shards" / "a.tar").write_bytes(b"")
    assert "shards` holds shards: delete them" in read_error(capsys, *command_line(photos))


def test_shards_of_a_run_that_was_stopped_are_written_anew(photos, monkeypatch, caplog, capsys):
    def stop(path: Path, samples: list, first_index: int) -> None:
        if first_index:
            raise KeyboardInterrupt
        write_tar(path, samples, first_index)

    expected = pack(photos, "--shard_size", 1)
    shards = photos.parent / "shards"
    shutil.rmtree(shards)
    monkeypatch.setattr("modeling_lotlip.data.shards.write_tar", stop)
    status = lotlip.main([*command_line(photos), "--shard_size", "2"])
    assert status == 130
    assert [path.name for path in shards.glob("*.tar*")] == ["00000.tar"]
    source = SourceArguments("webdataset", data_files=[str(shards / "*.tar")], image_column="jpg")
    load_split(source, "train")
    assert f"{shards} is not complete" in caplog.text
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt), OutputFolder(shards, content="shards"):
        status = lotlip.main(command_line(photos))
        assert status == 2, "two at once"
        (shards / "99999.tar").touch()
        (shards / "mine.tar").touch()
        raise KeyboardInterrupt
    error = read_error(capsys, *command_line(photos))
    assert "shards` holds mine.tar, which is not of this command" in error
    (shards / "mine.tar").unlink()
    anew = pack(photos, "--shard_size", 1)
    assert anew == expected


def test_two_images_with_one_key_are_refused(photos, capsys):
    rows = [{"file_name": f"{number}.jpg", "caption": "a boat", "id": "same"} for number in (0, 4)]
    write_lines(photos / "metadata.jsonl", rows)
    error = read_error(capsys, *command_line(photos), "--key_column", "id")
    assert "Two different images have the key 'same', the second in row 1" in error


def test_rows_without_key_are_counted(photos, capsys):
    rows = pack(photos, "--key_column", "caption")
    digest = hashlib.sha256((photos / "4.jpg").read_bytes()).hexdigest()
    assert list(rows) == ["Number 0.", "Number 3.", digest, "Number 5."]
    assert "1 images have no `--key_column caption`, and their SHA-256 as key." in capsys.readouterr().out


def test_images_with_the_path_of_another_one_have_their_hash_as_key(photos, tmp_path, capsys):
    rows = []
    for number in (0, 0, 4):
        content = (photos / f"{number}.jpg").read_bytes()
        rows.append({"image": {"bytes": content, "path": "image.jpg"}, "caption": f"Number {number}."})
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    argv = to_argv("pack", dataset_name=tmp_path / "rows.parquet", output_dir=tmp_path / "packed")
    status = lotlip.main(argv)
    assert status == 0
    packed = load_dataset("webdataset", data_files=str(tmp_path / "packed" / "*.tar"), split="train")
    digest = hashlib.sha256((photos / "4.jpg").read_bytes()).hexdigest()
    assert [row["key"] for row in packed["json"]] == ["image.jpg", "image.jpg", digest]
    assert "1 images have the path of another image, and their SHA-256 as key." in capsys.readouterr().out
