"""The one way to read an image out of a file."""

import io
import re
import struct
import sys
import zipfile
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import (
    BitImageProcessor,
    BlipImageProcessor,
    ChineseCLIPImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    ConvNextImageProcessorPil,
    DetrImageProcessor,
    DPTImageProcessor,
    EfficientNetImageProcessor,
    FlavaImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextImageProcessorPil,
    Owlv2ImageProcessor,
    PerceiverImageProcessor,
    PerceiverImageProcessorPil,
    Qwen2VLImageProcessor,
    SamImageProcessor,
    Siglip2ImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)

from modeling_lotlip import LotlipImageProcessor
from modeling_lotlip.data.images import (
    DECODING_MARGIN,
    Resizing,
    UnreadableImageError,
    bound_aspect_ratio,
    check_num_pixels,
    decode_reduced,
    find_upright_size,
    logger,
    open_image,
    read_date,
    read_file,
    read_image,
)
from modeling_lotlip.data.rows import name_row
from modeling_lotlip.encoder.families import UNKNOWN_FAMILY
from modeling_lotlip.encoder.preprocessing import Preprocessing
from modeling_lotlip.hub_lotlip import MAX_ASPECT_RATIO
from modeling_lotlip.image_processing_pil_lotlip import LotlipImageProcessorPil
from modeling_lotlip.training.samples import Sample, SampleCollator
from tests.helpers import photographs


def encode(image: PIL.Image.Image, kind: str = "png", **options) -> dict:
    return {"bytes": photographs.encode(image, kind, **options), "path": None}


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_large_images_are_made_smaller(kind):
    image = PIL.Image.linear_gradient("L").resize((400, 200)).convert("RGB")
    small = read_image(encode(image, kind), max_side=50)
    difference = np.asarray(small, dtype=int) - np.asarray(image.resize((50, 25)), dtype=int)
    assert small.size == (50, 25)
    assert np.abs(difference).max() < 10
    assert read_image(encode(image, kind), max_side=400).size == (400, 200)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> tuple:
    folder = tmp_path_factory.mktemp("kinds") / "photos"
    return folder, *photographs.write_photographs(folder)


@pytest.mark.parametrize(
    "resizing", [None, Resizing(32, None, PIL.Image.Resampling.BICUBIC)], ids=["exact", "reduced"]
)
def test_files_of_every_kind_are_read_or_named(photos, resizing, monkeypatch):
    photographs.shrink_limit(monkeypatch)
    folder, seen, named = photos
    for name, image in seen.items():
        read = read_image({"path": str(folder / name), "bytes": None}, resizing=resizing)
        assert read.mode == "RGB"
        assert read.size == ((400, 300) if resizing is None or name[-3:] != "jpg" else (42, 32))
        difference = np.asarray(read.resize((40, 30)), dtype=int) - np.asarray(image.resize((40, 30)), dtype=int)
        assert np.abs(difference).mean() < 8, name
    for name, message in named.items():
        with pytest.raises(UnreadableImageError) as raised:
            read_image({"path": str(folder / name), "bytes": None}, resizing=resizing)
        assert re.search(message, str(raised.value)), (name, str(raised.value))


def test_a_jpeg_may_be_larger_than_what_is_decoded_of_it(monkeypatch):
    photographs.shrink_limit(monkeypatch)
    image = photographs.make_picture(*photographs.HUGE)
    resizing = Resizing(32, None, PIL.Image.Resampling.BICUBIC)
    assert read_image(encode(image, "jpeg"), resizing=resizing).size == (48, 32)
    assert read_image(encode(image, "jpeg"), max_side=90).size == (90, 60)
    with pytest.raises(UnreadableImageError, match="600 x 400 pixels are more than 200000: make it smaller"):
        read_image(encode(image, "jpeg"))
    # all of a progressive one is in memory, whatever is made of it
    assert read_image(encode(image, "jpeg", progressive=True), resizing=resizing).size == (48, 32)
    image = photographs.make_picture(900, 500)
    assert read_image(encode(image, "jpeg"), resizing=resizing).size == (57, 32)
    with pytest.raises(UnreadableImageError, match="900 x 500 pixels are more than 400000"):
        read_image(encode(image, "jpeg", progressive=True), resizing=resizing)


@pytest.mark.parametrize("allowance", [1, 4])
def test_an_image_may_have_as_many_pixels_as_the_limit_and_no_more(monkeypatch, allowance):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 50)
    check_num_pixels(PIL.Image.new("1", (10, 10 * allowance)), allowance)
    with pytest.raises(UnreadableImageError, match=f"are more than {100 * allowance}"):
        check_num_pixels(PIL.Image.new("1", (101 * allowance, 1)), allowance)


def test_heic_without_its_package_names_what_to_install(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImageError, match=r'HEIC needs `pip install "lotlip\[heic\]"`'):
        read_image({"path": str(photos[0] / "photo.heic"), "bytes": None})


def test_a_jpeg_too_thin_to_be_resized_is_decoded_whole():
    resizing = Resizing(1, None, PIL.Image.Resampling.BICUBIC)
    for ratio, size in (
        (MAX_ASPECT_RATIO, (MAX_ASPECT_RATIO, 1)),
        (MAX_ASPECT_RATIO + 1, (8 * MAX_ASPECT_RATIO + 8, 8)),
    ):
        assert read_image(encode(PIL.Image.new("RGB", (8 * ratio, 8)), "jpeg"), resizing=resizing).size == size


def test_of_a_strip_an_image_processor_gets_the_middle():
    """Before its processor resizes the short side of 1 x 60,000 pixels."""

    class ImageProcessor:
        def __call__(self, images, **options):
            self.sizes = [image.size for image in images]
            return {}

    image_processor = ImageProcessor()
    sizes = [(1, 60_000), (640, 20), (30, 40)]
    images = [PIL.Image.new("RGB", size) for size in sizes]
    processor = SimpleNamespace(image_processor=image_processor)
    Preprocessing(processor, UNKNOWN_FAMILY, max_length=9).prepare_images(images)
    bounded = [(1, 32), (640, 20), (30, 40)]
    assert image_processor.sizes == bounded
    # in training too, where an image tower is trained and where it is cached
    for image, size in zip(images, bounded):
        collator = SampleCollator(processor)
        collator.tokenize = lambda texts, preprocessing: (None, None)
        collator([Sample(short_caption="", long_captions=[], image=image)])
        assert image_processor.sizes == [size]
    wide = PIL.Image.linear_gradient("L").resize((4, 256)).rotate(90, expand=True)
    middle = bound_aspect_ratio(wide, None)
    assert middle.size == (128, 4)
    assert middle.getpixel((64, 0)) == pytest.approx(128, abs=1)
    assert bound_aspect_ratio(images[0], SiglipImageProcessor()) is images[0]
    assert bound_aspect_ratio(images[0], CLIPImageProcessor()).size == (1, 32)


@pytest.mark.parametrize(
    "image_processor",
    [
        CLIPImageProcessor(do_resize=False),
        ConvNextImageProcessor(),
        ConvNextImageProcessorPil(),
        DetrImageProcessor(),
        DPTImageProcessor(),
        LlavaNextImageProcessor(),
        LlavaNextImageProcessorPil(),
        SamImageProcessor(),
        PerceiverImageProcessor(),
        Siglip2ImageProcessor(),
        LotlipImageProcessor(size={"shortest_edge": 16, "longest_edge": 64}),
    ],
    ids=lambda image_processor: type(image_processor).__name__,
)
def test_an_image_processor_that_sees_all_of_a_strip_gets_all_of_it(image_processor):
    strip = PIL.Image.new("RGB", (600, 10))
    assert bound_aspect_ratio(strip, image_processor) is strip


@pytest.mark.parametrize(
    ("image_processor", "is_told"),
    [
        (CLIPImageProcessor(), False),
        (ConvNextImageProcessor(size={"shortest_edge": 224}), True),
        (LotlipImageProcessor(do_center_crop=False), True),
        (Owlv2ImageProcessor(), True),
        (Qwen2VLImageProcessor(), True),
    ],
    ids=["clip", "convnext", "lotlip", "owlv2", "qwen2_vl"],
)
def test_of_a_strip_of_which_much_would_be_made_the_middle_is_taken(image_processor, is_told, caplog):
    logger.warning_once.cache_clear()
    assert bound_aspect_ratio(PIL.Image.new("RGB", (600, 10)), image_processor).size == (320, 10)
    assert (f"{type(image_processor).__name__} gets the middle" in caplog.text) == is_told


@pytest.mark.parametrize(
    "size, options",
    [
        ((1601, 1203), {"progressive": True}),  # no multiple of what it is divided by
        ((1201, 1603), {"exif": photographs.turned(7)}),
        ((333, 250), {}),
    ],
)
@pytest.mark.parametrize("square", [False, True], ids=["shortest edge", "squeezed"])
def test_a_reduced_jpeg_has_nearly_the_pixels_of_a_whole_one(size, options, square):
    size_of_model = {"height": 64, "width": 64} if square else {"shortest_edge": 64}
    processor = LotlipImageProcessor(size=size_of_model, crop_size={"height": 64, "width": 64})
    file = encode(photographs.make_grain(*size), "jpeg", **{"quality": 90} | options)
    whole = read_image(file)
    reduced = read_image(file, resizing=Resizing.of(processor))
    assert min(reduced.size) == (64 if max(size) > 400 else 250)
    pixels = processor(reduced, return_tensors="pt")["pixel_values"]
    expected = processor(whole, return_tensors="pt")["pixel_values"]
    assert (pixels - expected).abs().max() < 0.04
    assert (pixels - expected).abs().mean() < 0.006


@pytest.mark.parametrize("size", [(1600, 1200), (1200, 1600)])
def test_a_jpeg_is_decoded_at_a_multiple_of_the_target_in_both_directions(size):
    image = open_image(encode(photographs.make_picture(*size), "jpeg")["bytes"])
    decode_reduced(image, Resizing(None, (64, 64), PIL.Image.Resampling.BICUBIC))
    assert min(image.size) >= DECODING_MARGIN * 64
    assert max(image.size) < max(size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_upright_in_every_orientation(orientation):
    """Width and height that the image processor makes of it are those of the upright image."""
    image = photographs.make_picture(600, 400)
    file = encode(image, "jpeg", exif=photographs.turned(orientation))
    reduced = read_image(file, resizing=Resizing(None, (64, 32), PIL.Image.Resampling.BICUBIC))
    whole = read_image(file).resize((64, 32), PIL.Image.Resampling.BICUBIC)
    assert reduced.size == (64, 32)
    assert np.abs(np.asarray(reduced, dtype=int) - np.asarray(whole, dtype=int)).mean() < 8


@pytest.mark.parametrize("image_processor", [LotlipImageProcessor, LotlipImageProcessorPil])
def test_an_image_in_lab_colors_keeps_them(image_processor):
    colors = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(colors).resize((64, 64)).convert("LAB")
    file = io.BytesIO()
    image.save(file, "TIFF")
    expected = np.asarray(image.convert("RGB"))
    read = read_image({"path": None, "bytes": file.getvalue()})
    np.testing.assert_array_equal(np.asarray(read), expected)
    options = {"do_resize": False, "do_center_crop": False, "do_normalize": False, "do_rescale": False}
    pixels = image_processor(**options)(image, return_tensors="pt")["pixel_values"][0]
    np.testing.assert_array_equal(pixels.numpy().transpose(1, 2, 0), expected)


def test_resizing_of_image_processors():
    for cls in (LotlipImageProcessor, LotlipImageProcessorPil):
        resizing = Resizing.of(cls())
        assert resizing == Resizing(224, None, PIL.Image.Resampling.BICUBIC)
        without_crop = cls(do_center_crop=False)
        for size in ((640, 480), (481, 1000), (300, 300), (4031, 3021)):
            image = PIL.Image.new("RGB", size)
            pixels = without_crop(image, return_tensors="pt")["pixel_values"]
            assert resizing.target(*size) == pixels.shape[:1:-1]
        assert Resizing.of(cls(do_resize=False)) is None
        assert Resizing.of(cls(resample=PIL.Image.Resampling.NEAREST)) is None
        assert Resizing.of(cls(size={"shortest_edge": 200, "longest_edge": 300})) is None
        assert Resizing.of(cls(size={"height": 30, "width": 50})).target(640, 480) == (50, 30)


class Letterbox(SiglipImageProcessor):
    """Pads images to squares before they are resized."""

    def _preprocess(self, images, **options):
        squares = []
        for image in images:
            height, width = image.shape[-2:]
            squares.append(torch.nn.functional.pad(image, (0, max(0, height - width), 0, max(0, width - height))))
        return super()._preprocess(squares, **options)


def test_a_jpeg_is_decoded_whole_for_what_pads_or_crops_before_it_resizes():
    file = encode(photographs.make_picture(4800, 2400), "jpeg")
    for processor in (Letterbox(), PerceiverImageProcessor(), PerceiverImageProcessorPil()):
        assert read_image(file, resizing=Resizing.of(processor)).size == (4800, 2400)
    for cls in (
        BitImageProcessor,
        BlipImageProcessor,
        CLIPImageProcessor,
        ChineseCLIPImageProcessor,
        EfficientNetImageProcessor,
        FlavaImageProcessor,
        SiglipImageProcessor,
        ViTImageProcessor,
    ):
        processor = cls(resample=PIL.Image.Resampling.BICUBIC)
        resizing = Resizing.of(processor)
        reduced = read_image(file, resizing=resizing)
        assert reduced.size == resizing.target(4800, 2400)


def test_files_are_read_from_wherever_they_are(tmp_path):
    image = PIL.Image.new("RGB", (2, 2), "red")
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", content)
    for path in (str(tmp_path / "a.png"), f"zip://b.png::{tmp_path}/a.zip"):
        assert read_file({"bytes": None, "path": path}) == content
        assert read_image({"bytes": None, "path": path}).size == (2, 2)
    assert read_file({"bytes": b"x", "path": "nothing.png"}) == b"x"


def test_messages_on_unreadable_images_have_no_addresses_of_memory(tmp_path):
    whole = encode(PIL.Image.effect_noise((60, 60), 90).convert("RGB"))["bytes"]
    for file, cause in (
        (None, "there is no image"),
        ({"bytes": None, "path": str(tmp_path / "a.png")}, "the file cannot be read: .*a.png"),
        ({"bytes": b"text", "path": None}, "^cannot identify image file$"),
        ({"bytes": whole[:900], "path": None}, "^The image is damaged or cut off: "),
    ):
        with pytest.raises(UnreadableImageError, match=cause) as raised:
            read_image(file)
        assert "0x" not in str(raised.value)


FILE = {"bytes": b"content", "path": None}


@pytest.mark.parametrize(
    ("row", "row_index", "name"),
    [
        ({"image": FILE, "__key__": "007", "file_name": "c.png"}, None, "007"),
        ({"image": FILE | {"path": "b.png"}}, None, "b.png"),
        ({"file_name": "c.png", "image": FILE}, 5, "c.png"),
        ({"image": FILE}, 5, "row 5"),
        ({"image": None}, None, "a row"),
    ],
    ids=["key of a shard", "path", "name of a file", "index", "nothing"],
)
def test_a_row_is_named_by_the_best_that_is_known_of_it(row, row_index, name):
    assert name_row(row, row_index) == name


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2020:01:02 03:04:05", datetime(2020, 1, 2, 3, 4, 5)),
        ("2020:01:02 03:04:05\0", datetime(2020, 1, 2, 3, 4, 5)),
        ("2020:01:02  3:04:05", datetime(2020, 1, 2, 3, 4, 5)),
        ("2020:01:02 03:04:05+02:00", datetime(2020, 1, 2, 3, 4, 5)),
        ("2020-01-02T03:04:05.678Z", datetime(2020, 1, 2, 3, 4, 5)),
        ("2020:01:02", datetime(2020, 1, 2)),
        ("2019:12:31 23:59:60", datetime(2020, 1, 1)),
        (b"2020:01:02 03:04:05", datetime(2020, 1, 2, 3, 4, 5)),
        ("0000:00:00 00:00:00", datetime(1999, 1, 1)),  # then when the file was written
        ("20200102030405", datetime(1999, 1, 1)),
        ("2020: 1: 2  3: 4: 5", datetime(2020, 1, 2, 3, 4, 5)),
        ("2020/1/2 3:04 PM", datetime(2020, 1, 2, 15, 4)),
        ("2020:01:02 12:04:05 a.m.", datetime(2020, 1, 2, 0, 4, 5)),
        ("2020/1/2 12:04 PM", datetime(2020, 1, 2, 12, 4)),
        ("2020/1/2 1:04 am", datetime(2020, 1, 2, 1, 4)),
        ("2020/1/2 0:04 am", datetime(1999, 1, 1)),
        ("2020:01:02 13:04:05 pm", datetime(1999, 1, 1)),
        ("2020:01:02 03:04:05\0of a camera", datetime(2020, 1, 2, 3, 4, 5)),
        # what may mean several days, or says more than is understood
        ("5/6/24", datetime(1999, 1, 1)),
        ("24:06:05 10:00:00", datetime(1999, 1, 1)),
        ("05/06/2024 10:00:00", datetime(1999, 1, 1)),
        ("Sun Jun 05 10:00:00 2024", datetime(1999, 1, 1)),
        ("2020:01:02 15:04:05 PM", datetime(1999, 1, 1)),
        ("2020:01:02 03:04:05 in the afternoon", datetime(1999, 1, 1)),
        ("2020:13:01 00:00:00", datetime(1999, 1, 1)),
        (None, datetime(1999, 1, 1)),
    ],
)
def test_a_date_is_read_in_every_form_that_cameras_write(written, expected):
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = written
    exif[0x0132] = "1999:01:01 00:00:00"
    assert read_date(exif) == expected
    assert read_date(PIL.Image.Exif()) is None


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_an_image_is_that_of_the_upright_one(kind, orientation):
    file = encode(PIL.Image.new("RGB", (40, 20)), kind, exif=photographs.turned(orientation))
    assert find_upright_size(open_image(file["bytes"])) == read_image(file).size


def test_a_jpeg_that_is_too_large_at_a_fraction_is_refused(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 20_000)
    resizing = Resizing(64, None, PIL.Image.Resampling.BICUBIC)
    file = encode(photographs.make_picture(800, 600), "jpeg")
    with pytest.raises(UnreadableImageError, match="pixels are more than 40000: make it smaller"):
        read_image(file, resizing=resizing)
    assert read_image(file, resizing=Resizing(8, None, PIL.Image.Resampling.BICUBIC)).size == (10, 8)


def test_the_date_of_digitization_comes_before_that_of_the_file():
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769)[0x9004] = "2019:01:02 03:04:05"
    exif[0x0132] = "2024:05:01 10:00:00"
    assert read_date(exif) == datetime(2019, 1, 2, 3, 4, 5)


def test_bitmaps_without_any_transparency_are_opaque():
    """Programs that know of no transparency write a header with room for it, and 0 there."""
    image = PIL.Image.new("RGB", (4, 3), "red")
    image.putpixel((1, 2), (0, 0, 255))
    upside_down = np.asarray(image)[::-1, :, ::-1]
    content = np.dstack([upside_down, np.zeros((3, 4), np.uint8)]).tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, 4, 3, 1, 32, 3, len(content), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    start = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(content), 0, 0, 14 + len(header))
    read = read_image({"bytes": start + header + content})
    assert read.tobytes() == image.tobytes()
