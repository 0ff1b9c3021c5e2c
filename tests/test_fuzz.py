"""Properties of what reads images and rows, on inputs that hypothesis makes up."""

import io
import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from modeling_lotlip import LotlipImageProcessor, LotlipImageProcessorPil
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.order import BatchSampler, SampleKey
from modeling_lotlip.training.samples import CaptionedImages


def at_least(num_examples: int) -> settings:
    """So many inputs, or more where the profile asks for more."""
    return settings(max_examples=max(num_examples, settings.default.max_examples))


MANY = at_least(200)


@st.composite
def damaged(draw, files: list[bytes]) -> bytes:
    """A valid file, cut off or with some bytes changed."""
    content = bytearray(draw(st.sampled_from(files)))
    if draw(st.booleans()):
        return bytes(content[: draw(st.integers(0, len(content) - 1))])
    for place in draw(st.lists(st.integers(0, len(content) - 1) | st.integers(0, 63), min_size=1, max_size=8)):
        content[place % len(content)] = draw(st.integers(0, 255))
    return bytes(content)


# Image processors

SMALL = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
PROCESSORS = [LotlipImageProcessorPil(**SMALL), LotlipImageProcessor(**SMALL)]
MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I;16 I;16L I;16B I F".split()
LAYOUTS = [("h", "w"), (1, "h", "w"), ("h", "w", 1), (3, "h", "w"), ("h", "w", 3), (4, "h", "w"), ("h", "w", 4)]
SIDES = st.integers(1, 300) | st.sampled_from([1, 2, 31, 32, 33, 300])


def process(processor, images) -> torch.Tensor:
    """The pixel values, after a look at what holds for all of them."""
    pixel_values = processor(images, return_tensors="pt")["pixel_values"]
    num_images = len(images) if isinstance(images, list) else 1
    assert pixel_values.shape == (num_images, 3, 32, 32)
    assert pixel_values.dtype == torch.float32
    assert pixel_values.abs().max() <= 1 + 1e-5  # false of NaN too
    return pixel_values


def process_or_refuse(image, is_refused: bool) -> None:
    if is_refused:
        for processor in PROCESSORS:
            with pytest.raises(ValueError, match="An image"):
                processor(image)
        return
    pil, torchvision = (process(processor, image) for processor in PROCESSORS)
    # torchvision's weights are coarser, which shows in noise of black and white pixels
    difference = (pil - torchvision).abs()
    assert difference.mean() <= 0.04
    assert difference.max() <= 0.4


@MANY
@given(st.sampled_from(MODES), SIDES, SIDES, st.integers(0, 9), st.booleans())
def test_pillow_images_of_any_mode_and_size(mode, width, height, seed, is_plain):
    rng = np.random.default_rng(seed)
    num_bytes = len(PIL.Image.new(mode, (width, height)).tobytes())
    pixels = bytes(num_bytes) if is_plain else rng.bytes(num_bytes)
    image = PIL.Image.frombytes(mode, (width, height), pixels)
    if mode in ("P", "PA"):
        image.putpalette(rng.bytes(768))
        if mode == "P":
            image.info["transparency"] = 0
    process_or_refuse(image, mode == "F" or (mode == "I" and not is_plain))


@MANY
@given(
    st_numpy.boolean_dtypes() | st_numpy.integer_dtypes() | st_numpy.unsigned_integer_dtypes(),
    st.sampled_from(LAYOUTS),
    st.integers(5, 90),
    st.integers(5, 90),
    st.sampled_from([0, 1, 255, 256, -1]),
    st.booleans(),
)
def test_arrays_of_any_whole_type_and_layout(dtype, layout, height, width, largest, is_tensor):
    shape = [{"h": height, "w": width}.get(side, side) for side in layout]
    array = np.random.default_rng(0).integers(0, min(largest, 100) + 1 if largest > 0 else 1, shape)
    array.flat[0] = largest
    array = array.astype(dtype)
    is_refused = dtype.name not in ("bool", "uint8") and not 0 <= array.flat[0] <= 255
    if dtype.name == "uint16":  # which must use its bits
        is_refused = 0 < array.max() < 4096
    if is_tensor and array.dtype.isnative:
        array = torch.from_numpy(array)
    process_or_refuse(array, is_refused)


# Data


def image_files() -> list[bytes]:
    """A picture in many formats, upside down by its EXIF where there is such a thing."""
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8))
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    exif[0x010E] = "a picture"
    kinds = [("png", {"exif": exif}), ("jpeg", {"exif": exif}), ("webp", {"exif": exif}), ("gif", {}), ("bmp", {})]
    kinds += [("tiff", {"compression": compression}) for compression in (None, "tiff_lzw", "jpeg")]
    kinds += [(kind, {}) for kind in ("ppm", "ico", "dds", "avif", "blp", "qoi", "jpeg2000")]
    files = []
    for kind, options in kinds:
        if kind.upper() not in PIL.Image.SAVE:
            continue  # Pillow was built without it
        file = io.BytesIO()
        (image.convert("P") if kind == "blp" else image).save(file, kind, **options)
        files.append(file.getvalue())
    return files


PIL.Image.init()
IMAGE_FILES = image_files()


@pytest.fixture(scope="module")
def samples() -> CaptionedImages:
    stream = Dataset.from_dict({"image": [None], "caption": [None], "long_captions": [None]}).to_iterable_dataset()
    reader = RowReader(["image", "caption", "long_captions"], CaptionArguments())
    return CaptionedImages(stream, reader, ObjectiveArguments(num_sub_captions=2))


@MANY
@given(damaged(IMAGE_FILES))
@example(b"qoif\x00\x00\x00\x11\x00\x00\x00\x0c\x03\x01\xfe_\x82\xc2\xfe\xd9\xcf\xeb")
def test_a_damaged_image_file_is_a_bad_sample_at_worst(samples, file):
    row = {"__key__": "shard/7", "image": {"bytes": file, "path": None}, "caption": "a boat"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged files
        sample = samples[SampleKey(epoch=0, index=7, row=row)]
        if sample.outcome.cause is not None:
            assert sample.outcome.name == "shard/7"
            assert "shard/7" in sample.outcome.message or "column" in sample.outcome.message
            assert sample.short_caption == ""
            assert sample.image.size == (64, 64)
            return
        assert sample.short_caption == "a boat"
        assert sample.image.mode == "RGB"
        assert min(sample.image.size) > 0
        process(PROCESSORS[1], sample.image)


@MANY
@given(st.integers(0, 60), st.integers(1, 8), st.integers(1, 6), st.integers(0, 3))
def test_global_batches_have_every_sample_once(num_samples, batch_size, num_processes, epoch):
    shares = []
    batches = []
    keys = []
    for process in range(num_processes):
        share = BatchSampler(num_samples, batch_size, 0, process, num_processes)
        share.epoch = epoch
        own = list(share)
        assert len(own) == len(share)
        for part in own:
            keys += part
        shares.append(share)
        batches.append(own)
    for parts in zip(*batches):
        assert len({len(part) for part in parts}) == 1
        assert 1 <= len(parts[0]) <= batch_size
    padding = [key for key in keys if key.is_padding]
    indices = [key.index for key in keys if not key.is_padding]
    assert sorted(indices) == list(range(num_samples))
    assert {key.epoch for key in keys} <= {epoch}
    assert all(0 <= key.index < num_samples for key in keys)
    assert len(padding) < num_processes
    shares[0].first_batch = 1
    assert list(shares[0]) == batches[0][1:]
