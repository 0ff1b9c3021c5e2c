"""Both image processors against the reference pixels, and on every kind of image there is."""

import base64
import functools
import http.server
import json
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from huggingface_hub import constants
from PIL import ImageOps
from torchvision.transforms.v2 import functional as tvF
from transformers.image_utils import SizeDict

from modeling_lotlip import LotlipImageProcessor, LotlipImageProcessorPil


REFERENCE = Path(__file__).resolve().parent / "reference"
PROCESSORS = [LotlipImageProcessorPil, LotlipImageProcessor]

both_backends = pytest.mark.parametrize("processor", [cls() for cls in PROCESSORS], ids=["pil", "torchvision"])


def pixels(processor, image, **kwargs) -> torch.Tensor:
    pixel_values = processor(image, return_tensors="pt", **kwargs)["pixel_values"]
    assert pixel_values.dtype == torch.float32
    assert pixel_values.shape[1:] == (3, 224, 224)
    return pixel_values


def random_image(height: int, width: int, mode: str = "RGB", seed: int = 0) -> PIL.Image.Image:
    """Smooth, so that a shift or a flip shows and resampling noise does not."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 4), dtype=np.uint8)
    return PIL.Image.fromarray(coarse, "RGBA").resize((width, height), PIL.Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("as_path", [False, True])
@pytest.mark.parametrize("cls, tolerance", [(LotlipImageProcessorPil, 1e-5), (LotlipImageProcessor, 0.02)])
def test_pixels_are_the_reference_pixels(cls, tolerance, as_path):
    paths = [str(REFERENCE / "images" / name) for name in json.loads((REFERENCE / "images.json").read_text())]
    with np.load(REFERENCE / "reference.npz") as file:
        expected = (torch.from_numpy(file["pixels"]) / 255 - 0.5) / 0.5
    assert len(paths) == 7

    images = paths if as_path else [PIL.Image.open(path) for path in paths]
    for actual in (pixels(cls(), images), torch.cat([pixels(cls(), image) for image in images])):
        assert (actual - expected).abs().max() <= tolerance


@both_backends
def test_crop_is_torchvisions(processor):
    rng = np.random.default_rng(0)
    for _ in range(50):
        image = rng.integers(0, 256, (3, *rng.integers(24, 60, 2)), dtype=np.uint8)
        expected = tvF.center_crop(torch.from_numpy(image), [24, 20])
        image = image if processor.backend == "pil" else torch.from_numpy(image)
        assert np.array_equal(processor.center_crop(image, SizeDict(height=24, width=20)), expected)
        # zeros around what is smaller than the crop
        padded = processor.center_crop(image, SizeDict(height=64, width=20))
        assert padded.shape == (3, 64, 20)
        assert padded.sum(dtype=int if processor.backend == "pil" else torch.int64) > 0


@both_backends
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr"])
def test_images_of_every_mode_are_converted_over_white(processor, mode):
    image = random_image(90, 121, mode)
    expected = image.convert("RGB")
    if mode in ("LA", "RGBA"):
        expected = PIL.Image.new("RGB", image.size, "white")
        expected.paste(image.convert("RGB"), mask=image.getchannel("A"))

    assert (pixels(processor, image) - pixels(processor, expected)).abs().max() <= 2 / 127


@both_backends
def test_transparent_palette_is_white(processor):
    image = PIL.Image.new("P", (30, 30), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (15, 0, 30, 30))
    file = BytesIO()
    image.save(file, "PNG", transparency=0)

    values = pixels(processor, PIL.Image.open(file))[0]
    assert (values[:, :, :90] == 1).all()
    assert torch.allclose(values[:, 0, -1], torch.tensor([200, 100, 50]) / 127.5 - 1, atol=1e-5)


@both_backends
def test_16_bit_is_scaled(processor, tmp_path):
    gray = np.linspace(0, 255, 100 * 120).reshape(100, 120)
    expected = pixels(processor, PIL.Image.fromarray(gray.round().astype(np.uint8)))
    deep = (gray * 257).round().astype(np.uint16)
    PIL.Image.fromarray(deep).save(tmp_path / "deep.png")
    PIL.Image.fromarray(deep).save(tmp_path / "deep.tif")
    PIL.Image.fromarray(deep).save(tmp_path / "deep.ppm")

    images = {
        "I;16": PIL.Image.fromarray(deep),
        "I;16B": PIL.Image.frombytes("I;16B", (120, 100), deep.astype(">u2").tobytes()),
        "png": PIL.Image.open(tmp_path / "deep.png"),
        "path": str(tmp_path / "deep.tif"),
        "ppm, of mode I": PIL.Image.open(tmp_path / "deep.ppm"),
        "array": deep,
        "array of three channels": np.stack([deep] * 3),
        "tensor": torch.from_numpy(np.stack([deep] * 3)),
    }
    for name, image in images.items():
        assert (pixels(processor, image) - expected).abs().max() <= 1.01 / 127.5, name


@both_backends
def test_16_bit_pixels_of_fewer_bits_are_refused(processor, tmp_path):
    """They would be black."""
    few = np.linspace(0, 4095, 100 * 120).astype(np.uint16).reshape(100, 120)
    PIL.Image.fromarray(few).save(tmp_path / "few.tif")
    for image in (PIL.Image.open(tmp_path / "few.tif"), few, torch.from_numpy(np.stack([few] * 3))):
        with pytest.raises(ValueError, match="must use them: its values end at 4095"):
            processor(image)
    black = PIL.Image.fromarray(few * 0)
    assert torch.equal(pixels(processor, black), pixels(processor, PIL.Image.new("L", (120, 100))))


@both_backends
def test_a_factor_for_pixels_of_more_than_8_bits_is_refused(processor):
    """They are scaled to 8 bits, and would be scaled twice."""
    deep = np.linspace(0, 65535, 100 * 120).astype(np.uint16).reshape(100, 120)
    floats = torch.from_numpy(deep.astype(np.float32))
    file = BytesIO()
    PIL.Image.fromarray(deep).save(file, "PPM")
    images = (deep, PIL.Image.fromarray(deep), PIL.Image.open(file), floats, floats / 65535)
    for image in images:
        with pytest.raises(ValueError, match="`rescale_factor=1.52\\d*e-05` does not fit an image of type"):
            processor(image, rescale_factor=1 / 65535)
    flat = np.full((100, 120), 100, dtype=np.uint8)
    for dtype in (np.uint8, np.int64, np.float32):
        halved = pixels(processor, flat.astype(dtype), rescale_factor=1 / 510)
        assert torch.equal(halved, pixels(processor, flat // 2))
        pixels(processor, np.zeros((100, 120), dtype=dtype), rescale_factor=1 / 510)
    with pytest.raises(ValueError, match="does not fit"):
        type(processor)(rescale_factor=1 / 65535)(deep)


@both_backends
def test_16_bit_pixels_are_inverted_where_0_is_white(processor, tmp_path):
    deep = np.linspace(0, 65535, 100 * 120).astype(np.uint16).reshape(100, 120)
    PIL.Image.fromarray(deep).save(tmp_path / "deep.tif")
    PIL.Image.fromarray(65535 - deep).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    assert PIL.Image.open(tmp_path / "inverted.tif").tag_v2[262] == 0
    expected = pixels(processor, PIL.Image.open(tmp_path / "deep.tif"))
    found = pixels(processor, PIL.Image.open(tmp_path / "inverted.tif"))
    assert (found - expected).abs().max() <= 1.01 / 127.5


@both_backends
def test_32_bit_pixels_are_those_of_8_bits_or_refused(processor, tmp_path):
    gray = np.linspace(0, 255, 100 * 120).round().astype(np.int32).reshape(100, 120)
    expected = pixels(processor, PIL.Image.fromarray(gray.astype(np.uint8)))
    image = PIL.Image.fromarray(gray)
    image.save(tmp_path / "gray.tif")
    assert torch.equal(pixels(processor, image), expected)
    assert torch.equal(pixels(processor, PIL.Image.open(tmp_path / "gray.tif")), expected)
    for values in ([0, 256], [-1, 255]):
        with pytest.raises(ValueError, match=f"got {values[0]} to {values[1]}. Give 16-bit pixels as `uint16`"):
            processor(PIL.Image.fromarray(np.array([values], dtype=np.int32)))
    with pytest.raises(ValueError, match="mode `F`"):
        processor(PIL.Image.new("F", (5, 5)))


@both_backends
def test_the_transparent_value_of_16_bits_is_white(processor, tmp_path):
    deep = np.full((30, 30), 300, dtype=np.uint16)
    deep[:, 15:] = 65535 // 2
    PIL.Image.fromarray(deep).save(tmp_path / "deep.png", transparency=300)
    values = pixels(processor, PIL.Image.open(tmp_path / "deep.png"))[0]
    assert (values[:, :, :90] == 1).all()
    assert values[:, :, -90:].abs().max() < 0.01


@both_backends
def test_gray_and_binary_arrays(processor):
    array = np.array(random_image(60, 70, "L"))
    expected = pixels(processor, PIL.Image.fromarray(array))
    for image in (array, array[None], torch.from_numpy(array)):
        assert torch.equal(pixels(processor, image), expected)
    assert torch.equal(pixels(processor, [array, array]), expected.expand(2, -1, -1, -1))
    assert set(pixels(processor, np.eye(224, dtype=bool)).unique().tolist()) == {-1, 1}


@both_backends
def test_photographs_are_turned_upright(processor, tmp_path):
    upright = random_image(90, 130)
    turn_back = {3: 180, 6: 90, 8: 270}
    for orientation, angle in turn_back.items():
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        upright.rotate(angle, expand=True).save(path, exif=exif)
        assert ImageOps.exif_transpose(PIL.Image.open(path)).size == upright.size

        for image in (PIL.Image.open(path), str(path)):
            assert torch.equal(pixels(processor, image), pixels(processor, upright))


@both_backends
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_extreme_ratios_do_not_fill_the_memory(processor, size, monkeypatch):
    areas = []
    resize = type(processor).resize

    def spy(self, image, *args, **kwargs):
        resized = resize(self, image, *args, **kwargs)
        areas.append(resized.shape[-2] * resized.shape[-1])
        return resized

    monkeypatch.setattr(type(processor), "resize", spy)
    assert pixels(processor, PIL.Image.new("RGB", size, "white")).eq(1).all()
    assert max(areas) < 2e6


@both_backends
@pytest.mark.parametrize("size", [(2205, 31), (31, 2001), (1985, 20)])
def test_extreme_ratios_show_the_middle(processor, size, monkeypatch):
    image = random_image(*reversed(size))
    cut = pixels(processor, image)
    monkeypatch.setattr("modeling_lotlip.hub_lotlip.MAX_ASPECT_RATIO", 10_000)
    whole = pixels(processor, image)

    assert not torch.equal(whole, pixels(processor, image.transpose(PIL.Image.Transpose.ROTATE_180)))
    assert (cut - whole).abs().max() <= 0.02  # two of 255 levels, of noise


@both_backends
@pytest.mark.parametrize(
    "options", [{"do_center_crop": False}, {"crop_size": {"height": 8, "width": 800}}], ids=["none", "wide"]
)
def test_a_strip_is_whole_where_the_call_asks_for_all_of_it(processor, options):
    image = PIL.Image.new("RGB", (400, 4), "black")
    image.paste("white", (0, 0, 100, 4))
    image.paste("white", (300, 0, 400, 4))
    options = options | {"size": {"shortest_edge": 8}, "do_normalize": False}
    inputs = processor(image, return_tensors="pt", **options)
    assert inputs["pixel_values"].shape == (1, 3, 8, 800)
    assert inputs["pixel_values"][..., :190].eq(1).all()
    assert inputs["pixel_values"][..., 610:].eq(1).all()
    assert inputs["pixel_values"][..., 210:590].eq(0).all()


@both_backends
def test_paths_urls_and_base64_give_the_pixels_of_the_image(processor, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    image = random_image(60, 80)
    image.save(tmp_path / "image.png")
    expected = pixels(processor, image)

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/image.png"
        encoded = base64.b64encode((tmp_path / "image.png").read_bytes()).decode()
        sources = [
            tmp_path / "image.png",
            str(tmp_path / "image.png"),
            url,
            encoded,
            f"data:image/png;base64,{encoded}",
        ]
        assert torch.equal(pixels(processor, sources), expected.expand(5, -1, -1, -1))
        with pytest.raises(Exception, match="404"):
            processor(url.replace("image", "missing"))
    finally:
        server.shutdown()
        server.server_close()


@both_backends
def test_an_unreadable_image_is_an_error(processor, tmp_path):
    random_image(300, 300).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no image")

    for image in (str(tmp_path / "cut.png"), PIL.Image.open(tmp_path / "cut.png")):
        with pytest.raises(ValueError, match="damaged or cut off"):
            processor(image)
    for image in (str(tmp_path / "text.png"), "missing.png"):
        with pytest.raises((OSError, ValueError), match="text.png|missing.png"):
            processor(image)


@both_backends
def test_floats_from_0_to_1_under_rescaling_are_a_warning(processor, caplog):
    # of another range for each backend, since a warning is given once
    image = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32) * (0.9 if processor.backend == "pil" else 1)
    expected = processor((image * 255).round().astype(np.uint8), return_tensors="pt")["pixel_values"]
    assert not caplog.records
    dark = processor(image, return_tensors="pt")["pixel_values"]
    assert dark.max() < -0.98
    assert "do_rescale=False" in caplog.text
    assert (processor(image, do_rescale=False, return_tensors="pt")["pixel_values"] - expected).abs().max() < 0.2


@both_backends
def test_normalized_floats_under_rescaling_are_a_warning(processor, caplog):
    scale = 2.0 if processor.backend == "pil" else 2.5  # a warning is given once
    pixels = np.random.default_rng(0).uniform(-scale, scale, (40, 50, 3))
    processor(pixels, return_tensors="pt")
    assert "it seems to be normalized" in caplog.text


def test_both_backends_clip_floats_alike():
    """Values beyond 0 to 255, and those beyond white and black that bicubic resampling makes."""
    image = np.random.default_rng(0).uniform(-60, 320, (300, 340, 3)).astype(np.float32)
    image[:, ::7] = 255.0
    whole = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    results = []
    for processor in (LotlipImageProcessor(), LotlipImageProcessorPil()):
        results.append(processor(image, return_tensors="pt")["pixel_values"])
        assert torch.equal(results[-1], processor(whole, return_tensors="pt")["pixel_values"])
        unit = processor(whole / np.float32(255), do_rescale=False, return_tensors="pt")["pixel_values"]
        assert unit.min() >= -1
        assert unit.max() <= 1
    assert (results[0] - results[1]).abs().max() <= 4 / 127


@both_backends
def test_a_saved_image_processor_has_its_code(processor, tmp_path):
    """A saved `LotlipProcessor` has that of both backends: see tests/test_hub.py."""
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    module, _, name = config["auto_map"]["AutoImageProcessor"].partition(".")
    assert name == type(processor).__name__
    assert {file.name for file in tmp_path.glob("*.py")} == {f"{module}.py", "hub_lotlip.py"}
