"""The same picture in files of every kind that cameras, phones and scanners write."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pillow_heif


# More pixels than Pillow may decode: see `shrink_limit`
HUGE = (600, 400)


def shrink_limit(monkeypatch) -> None:
    """Makes a picture of `HUGE` as much too large for Pillow as one of 200 megapixels is."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100_000)


def make_picture(width: int = 400, height: int = 300) -> PIL.Image.Image:
    """Red, green, blue and white quarters."""
    upper = [(200, 30, 30), (30, 160, 60)]
    lower = [(20, 40, 180), (255, 255, 255)]
    colors = np.array([upper, lower], dtype=np.uint8)
    return PIL.Image.fromarray(colors).resize((width, height), PIL.Image.Resampling.NEAREST)


def make_grain(width: int, height: int, seed: int = 0, grain: int = 6) -> PIL.Image.Image:
    """Something like a photograph: soft shapes, texture, and the grain of a sensor."""
    generator = np.random.default_rng(seed)

    def noise(cell: int, channels: int) -> np.ndarray:
        shape = (height // cell + 2, width // cell + 2, channels)
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        image = PIL.Image.fromarray(pixels.squeeze())
        image = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
        return np.asarray(image, dtype=np.int16).reshape(height, width, channels)

    shapes = noise(60, 3)
    texture = (noise(6, 1) - 128) // 4
    pixels = shapes + texture + generator.integers(-grain, grain + 1, (height, width, 1))
    return PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image: PIL.Image.Image, kind: str = "jpeg", **options) -> bytes:
    """The content of a file."""
    buffer = io.BytesIO()
    if kind == "heic":
        pillow_heif.from_pillow(image).save(buffer, quality=90)
    else:
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> PIL.Image.Exif:
    """The EXIF data of a camera that was held so."""
    exif = PIL.Image.Exif()
    exif[PIL.Image.ExifTags.Base.Orientation] = orientation
    return exif


def write_photographs(folder: Path) -> tuple[dict[str, PIL.Image.Image], dict[str, str]]:
    """
    Writes files of every kind.

    Returns:
        What is seen in those that can be read, by name, and what is said of the others.
    """
    folder.mkdir(parents=True)
    image = make_picture()
    other = PIL.Image.new("RGB", image.size, "black")
    gray = image.convert("L")
    transparent = image.convert("RGBA")
    transparent.paste((0, 0, 0, 0), (200, 150, 400, 300))
    palette = image.quantize(8)
    white = palette.getpixel((399, 299))
    deep = np.asarray(gray, dtype=np.uint16) * 257
    animated = {"save_all": True, "append_images": [other], "duration": 50}
    files = {
        "plain.jpg": encode(image),
        "progressive.jpg": encode(image, progressive=True),
        "lying.jpg": encode(image.transpose(PIL.Image.Transpose.ROTATE_90), exif=turned(6)),
        "mirrored.jpg": encode(image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT), exif=turned(2)),
        "cmyk.jpg": encode(image.convert("CMYK")),
        "cmyk.tif": encode(image.convert("CMYK"), "tiff"),
        "two_pictures.jpg": encode(image, "mpo", save_all=True, append_images=[other]),
        "transparent.png": encode(transparent, "png"),
        "palette.png": encode(palette, "png", transparency=white),
        "palette.gif": encode(palette, "gif", transparency=white),
        "animated.gif": encode(image, "gif", **animated),
        "animated.webp": encode(image, "webp", **animated),
        "animated.png": encode(image, "png", **animated),
        "animated.avif": encode(image, "avif", **animated),
        "photo.avif": encode(image, "avif"),
        "photo.heic": encode(image, "heic"),
        "photo.HIF": encode(image, "heic"),
        "lying.png": encode(image.transpose(PIL.Image.Transpose.ROTATE_90), "png", exif=turned(6)),
    }
    seen = dict.fromkeys(files, image)
    grays = {
        "gray.jpg": encode(gray),
        "deep.png": encode(PIL.Image.fromarray(deep), "png"),
        "deep.tif": encode(PIL.Image.fromarray(deep), "tiff"),
        "deep.pgm": encode(PIL.Image.fromarray(deep), "ppm"),
        "integers.tif": encode(PIL.Image.fromarray(np.asarray(gray, dtype=np.int32)), "tiff"),
    }
    seen |= dict.fromkeys(grays, gray.convert("RGB"))
    named = {
        "float.tif": (encode(gray.convert("F"), "tiff"), "floating point pixels"),
        "large integers.tif": (encode(PIL.Image.fromarray(deep.astype(np.int32)), "tiff"), "of 32 bits, .* 0 to 255"),
        "cut.heic": (files["photo.heic"][:-200], ""),
        "cut.avif": (files["photo.avif"][:-200], ""),
        "huge.png": (encode(make_picture(*HUGE), "png"), "240000 pixels.*make it smaller"),
        "huge.heic": (encode(make_picture(*HUGE), "heic"), "600 x 400 pixels are more than 200000.*make it smaller"),
        "empty.heic": (b"", "cannot identify"),
    }
    for name, content in (files | grays).items():
        (folder / name).write_bytes(content)
    messages = {}
    for name, (content, message) in named.items():
        (folder / name).write_bytes(content)
        messages[name] = message
    return seen, messages
