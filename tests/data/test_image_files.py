"""Files of images before they are decoded: their formats, their sizes, and whether it is of use to read them again."""

import sys
from pathlib import Path

import PIL.Image
import pytest

from modeling_lotlip.data import images as module
from modeling_lotlip.data.images import SAFE_FORMATS, UnreadableImageError, list_formats, read_file, read_image
from tests.helpers import photographs
from tests.helpers.images import refuse_to_open


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nnonsense\n"


def read(path: Path, formats: tuple[str, ...] | None = SAFE_FORMATS) -> PIL.Image.Image:
    return read_image({"path": str(path), "bytes": None}, formats=formats)


@pytest.mark.parametrize("formats", [None, SAFE_FORMATS])
@pytest.mark.parametrize("name", ["drawing.eps", "drawing.png"])
def test_no_program_is_started_for_a_file(tmp_path, monkeypatch, name, formats):
    """As Ghostscript is by Pillow for a drawing, whatever its name."""
    started = []
    monkeypatch.setattr("subprocess.check_call", lambda command, **options: started.append(command))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with pytest.raises(UnreadableImageError) as raised:
        read(tmp_path / name, formats)
    assert started == []
    assert raised.value.is_final


@pytest.mark.parametrize("kind", ["ppm", "jpeg2000", "tga", "pcx"])
def test_datasets_may_have_other_formats_than_uploads(tmp_path, kind):
    (tmp_path / "image").write_bytes(photographs.encode(photographs.make_picture(), kind))
    assert read(tmp_path / "image", formats=None).size == (400, 300)
    with pytest.raises(UnreadableImageError, match="it is none of JPEG, PNG"):
        read(tmp_path / "image")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "gif", "bmp", "tiff", "heic"])
def test_formats_are_known_by_their_first_bytes(tmp_path, kind):
    (tmp_path / "image").write_bytes(photographs.encode(photographs.make_picture(), kind))
    assert read(tmp_path / "image").size == (400, 300)


def test_of_a_film_the_first_bytes_are_read(tmp_path, monkeypatch):
    rests = []
    monkeypatch.setattr(module, "read_rest", lambda opened, start: rests.append(opened))
    (tmp_path / "film.jpg").write_bytes(b"\0\0\1\xb3" + bytes(1_000_000))
    with pytest.raises(UnreadableImageError, match="it is none of JPEG"):
        read(tmp_path / "film.jpg")
    assert rests == []


@pytest.mark.parametrize("formats", [None, SAFE_FORMATS])
def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path, monkeypatch, formats):
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 50_000)
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 10_000)
    path = tmp_path / "large.png"
    path.write_bytes(photographs.encode(photographs.make_picture(), "png") + bytes(1_000_000))
    with open(path, "rb") as opened, pytest.raises(UnreadableImageError, match="more than 50000 bytes: make it"):
        module.read_rest(opened, opened.read(module.FIRST_BYTES))
    assert module.MAX_FILE_BYTES == 50_000
    with pytest.raises(UnreadableImageError, match="more than 50000 bytes: make it"):
        read(path, formats)


def test_a_file_of_the_largest_size_is_read_whole(tmp_path, monkeypatch):
    content = photographs.encode(photographs.make_picture(), "bmp")
    monkeypatch.setattr(module, "MAX_FILE_BYTES", len(content))
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 1000)
    (tmp_path / "image.bmp").write_bytes(content)
    assert read_file({"path": str(tmp_path / "image.bmp"), "bytes": None}) == content


@pytest.mark.parametrize("name", ["file:im0.png", "a::b.png", "https:im0.png", "100%.png"])
def test_names_of_files_are_no_addresses(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    photographs.make_picture().save(tmp_path / name, "png")
    assert read(Path(name)).size == (400, 300)
    assert read(tmp_path / name).size == (400, 300)


@pytest.mark.parametrize(
    "content",
    [b"no image", b"", photographs.encode(photographs.make_picture())[:300], POSTSCRIPT],
    ids=["text", "nothing", "cut off", "drawing"],
)
def test_what_is_wrong_with_the_content_is_final(tmp_path, content):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError) as raised:
        read(tmp_path / "image.jpg")
    assert raised.value.is_final


def test_what_is_wrong_with_the_system_is_not_final(tmp_path, monkeypatch):
    photographs.make_picture().save(tmp_path / "image.png")
    refuse_to_open(monkeypatch, "image.png")
    with pytest.raises(UnreadableImageError, match="the file cannot be read: .*Permission denied") as raised:
        read(tmp_path / "image.png")
    assert not raised.value.is_final


def test_a_file_that_is_not_there_may_come_back(tmp_path):
    with pytest.raises(UnreadableImageError, match="No such file") as raised:
        read(tmp_path / "image.png")
    assert not raised.value.is_final


def test_what_is_not_installed_is_not_final(monkeypatch):
    content = photographs.encode(photographs.make_picture(), "heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImageError, match="pip install") as raised:
        read_image({"bytes": content, "path": None})
    assert not raised.value.is_final


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_short_memory_is_not_final(monkeypatch, error):
    def fail(image):
        raise error

    monkeypatch.setattr(module, "to_upright_8_bit", fail)
    with pytest.raises(UnreadableImageError) as raised:
        read_image({"bytes": photographs.encode(photographs.make_picture()), "path": None})
    assert not raised.value.is_final


def test_unsafe_formats_are_those_of_pillow():
    """Names that Pillow does not know would keep nothing out."""
    PIL.Image.init()
    assert set(PIL.Image.ID) >= module.UNSAFE_FORMATS
    assert not module.UNSAFE_FORMATS & set(list_formats())
