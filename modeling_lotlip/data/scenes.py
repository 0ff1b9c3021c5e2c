# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The built-in dataset: scenes drawn from a seed. The short caption names the large thing in the middle and its color;
the long one leaves it out and describes all else, which alone distinguishes scenes with the same short caption.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from PIL import ImageChops, ImageDraw


IMAGE_SIZE = 64
FRAME_WIDTH = 2
# Shapes are drawn at this many times their size and averaged down, which smooths their edges.
OVERSAMPLING = 8

# Things are dark and grounds are light, so that every thing is seen on every ground.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "brown": (120, 65, 30),
    "green": (20, 130, 55),
    "blue": (30, 75, 215),
    "purple": (135, 40, 165),
    "pink": (235, 60, 150),
    "gray": (105, 105, 110),
    "black": (20, 20, 25),
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "sand": (240, 222, 160),
    "grass": (185, 225, 130),
    "snow": (240, 245, 252),
    "water": (160, 210, 248),
    "stone": (195, 195, 200),
    "clay": (248, 190, 185),
}
FRAMES: dict[str, tuple[int, int, int]] = {
    "golden": (250, 205, 40),
    "copper": (210, 110, 50),
    "charcoal": (35, 30, 35),
    "ruby": (190, 10, 50),
    "jade": (0, 165, 110),
    "sapphire": (20, 60, 190),
}

# A shape is drawn by strokes, in hundredths of its square, x to the right and y down: a polygon's corners or an
# ellipse's box. Semicolons stand between strokes, and "cut" takes away from what was drawn before.
SALIENT_SHAPES: dict[str, str] = {
    "boat": "polygon 0,66 100,66 80,100 20,100; polygon 46,0 46,58 2,58; polygon 56,12 56,58 90,58",
    "car": (
        "polygon 0,50 20,45 32,20 70,20 85,45 100,50 100,75 0,75; ellipse 10,60 38,88; ellipse "
        "62,60 90,88; cut polygon 30,45 38,28 64,28 74,45"
    ),
    "house": "polygon 50,0 100,45 0,45; polygon 12,45 88,45 88,100 12,100; cut polygon 40,62 60,62 60,100 40,100",
    "tree": "ellipse 10,0 90,66; polygon 42,60 58,60 62,100 38,100",
    "fish": "ellipse 0,22 74,78; polygon 62,50 100,20 100,80; cut ellipse 14,38 26,50",
    "cup": "ellipse 52,25 100,72; cut ellipse 62,36 90,61; polygon 5,10 75,10 68,95 12,95",
    "key": (
        "ellipse 0,25 48,75; cut ellipse 14,39 34,61; "
        "polygon 44,43 100,43 100,78 88,78 88,57 80,57 80,70 70,70 70,57 44,57"
    ),
    "hat": "ellipse 0,60 100,90; polygon 26,12 74,12 80,75 20,75; cut polygon 22,50 78,50 79,60 21,60",
    "shirt": "polygon 30,5 70,5 100,30 86,50 74,42 74,98 26,98 26,42 14,50 0,30; cut ellipse 38,-8 62,16",
    "umbrella": (
        "ellipse 0,2 100,102; cut polygon 0,50 100,50 100,110 0,110; polygon 45,50 55,50 55,99 30,99 30,86 45,86"
    ),
    "rocket": (
        "polygon 50,0 68,25 68,80 32,80 32,25; polygon 32,50 32,85 8,100 8,75; polygon 68,50 68,85 "
        "92,100 92,75; cut ellipse 41,28 59,46"
    ),
    "mushroom": "ellipse 0,5 100,95; cut polygon 0,52 100,52 100,100 0,100; polygon 36,50 64,50 72,100 28,100",
    "flower": (
        "ellipse 31,0 69,38; ellipse 62,22 100,60; ellipse 50,58 88,96; ellipse 12,58 50,96; "
        "ellipse 0,22 38,60; cut ellipse 34,34 66,66"
    ),
    "crown": "polygon 0,20 26,52 50,8 74,52 100,20 92,90 8,90",
    "bottle": "polygon 41,0 59,0 59,28 74,45 74,100 26,100 26,45 41,28; cut polygon 36,58 64,58 64,84 36,84",
    "butterfly": (
        "ellipse 0,5 46,55; ellipse 54,5 100,55; ellipse 10,50 46,92; ellipse 54,50 90,92; "
        "polygon 45,10 55,10 55,95 45,95"
    ),
}
OTHER_SHAPES: dict[str, str] = {
    "ball": "ellipse 0,0 100,100",
    "box": "polygon 6,6 94,6 94,94 6,94",
    "ring": "ellipse 0,0 100,100; cut ellipse 27,27 73,73",
    "cross": "polygon 34,0 66,0 66,100 34,100; polygon 0,34 100,34 100,66 0,66",
    "tent": "polygon 50,0 100,100 0,100",
    "moon": "ellipse 0,0 100,100; cut ellipse 36,-6 120,90",
    "heart": "ellipse 0,5 54,59; ellipse 46,5 100,59; polygon 5,46 50,30 95,46 50,100",
    "ladder": (
        "polygon 10,0 90,0 90,100 10,100; cut polygon 32,0 68,0 68,20 32,20; "
        "cut polygon 32,40 68,40 68,60 32,60; cut polygon 32,80 68,80 68,100 32,100"
    ),
    "arrow": "polygon 50,0 100,50 0,50; polygon 36,50 64,50 64,100 36,100",
    "bow": "polygon 0,0 50,38 100,0 100,100 50,62 0,100",
}
SHAPES = SALIENT_SHAPES | OTHER_SHAPES

# Side of the square that a thing is drawn in, in pixels.
SALIENT_SIDES = (24, 25, 26)
OTHER_SIDES = {"small": 8, "big": 12}
# The other things stand in a ring of eight cells around the middle; a place's pixel is its cell's center.
PLACES: dict[str, tuple[int, int]] = {
    "northwest": (10, 10),
    "north": (32, 10),
    "northeast": (54, 10),
    "west": (10, 32),
    "east": (54, 32),
    "southwest": (10, 54),
    "south": (32, 54),
    "southeast": (54, 54),
}
# Where the light comes from: a fall of brightness from above to below, turned counterclockwise by these degrees.
LIGHTS: dict[str, int] = {"above": 0, "the left": 90, "below": 180, "the right": 270}
# Brightness at the side away from the light.
DARKEST = 0.7

NUMBERS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
SALIENT_PAIRS = [(color, kind) for kind in SALIENT_SHAPES for color in COLORS]

OTHER_TEMPLATES = (
    "a {size} {color} {kind} is in the {place}",
    "in the {place} is a {size} {color} {kind}",
    "the {place} has a {size} {color} {kind}",
)
COUNT_TEMPLATES = ("{count} things are around it", "there are {count} other things")
GROUND_TEMPLATES = ("the ground is {ground}", "everything lies on {ground}", "the background is {ground}")
LIGHT_TEMPLATES = ("the light comes from {light}", "it is lit from {light}")
FRAME_TEMPLATES = ("the frame is {frame}", "a {frame} frame runs around it", "it has a {frame} frame")


@dataclass(frozen=True)
class Thing:
    """A thing in a scene."""

    kind: str
    color: str
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside
    size: str | None = None  # of things around the middle, as their place
    place: str | None = None


@dataclass(frozen=True)
class Scene:
    """The content of an image, and its captions."""

    salient: Thing  # the large thing in the middle
    others: tuple[Thing, ...]
    ground: str
    light: str
    frame: str
    sub_captions: tuple[str, ...]  # the 7 to 12 statements of the long caption in their order

    @property
    def caption(self) -> str:
        """The salient thing and its color."""
        return f"a photo of a {self.salient.color} {self.salient.kind}"

    @property
    def long_caption(self) -> str:
        """The sub-captions as sentences."""
        return " ".join(f"{sub_caption.capitalize()}." for sub_caption in self.sub_captions)

    def draw(self) -> PILImage.Image:
        """Draws the image, RGB, `IMAGE_SIZE` pixels wide and high."""
        image = PILImage.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), GROUNDS[self.ground])
        for thing in (self.salient, *self.others):
            side = thing.box[2] - thing.box[0]
            image.paste(COLORS[thing.color], thing.box, _shape_mask(thing.kind, side))
        image = ImageChops.multiply(image, _light_map(self.light))
        # The frame is around the scene, so no light of the scene falls on it.
        corner = (0, 0, IMAGE_SIZE - 1, IMAGE_SIZE - 1)
        ImageDraw.Draw(image).rectangle(corner, outline=FRAMES[self.frame], width=FRAME_WIDTH)
        return image


def make_scene(seed: int, index: int) -> Scene:
    """Makes the scene `index` of the series `seed`; any `len(SALIENT_PAIRS)` in a row have each short caption once."""
    # A generator seeded with a text gives the same numbers in every Python version.
    generator = random.Random(f"scene {index} of series {seed}")
    color, kind = SALIENT_PAIRS[index % len(SALIENT_PAIRS)]
    ground = generator.choice(list(GROUNDS))

    side = generator.choice(SALIENT_SIDES)
    salient = Thing(kind, color, _box(IMAGE_SIZE // 2, IMAGE_SIZE // 2, side, generator))
    count = generator.choice(list(NUMBERS))
    places = generator.sample(list(PLACES), count)
    kinds = generator.sample(list(OTHER_SHAPES), count)
    others = []
    for place, other_kind in zip(places, kinds):
        size = generator.choice(list(OTHER_SIDES))
        box = _box(*PLACES[place], OTHER_SIDES[size], generator)
        others.append(Thing(other_kind, generator.choice(list(COLORS)), box, size, place))
    light = generator.choice(list(LIGHTS))
    frame = generator.choice(list(FRAMES))

    sub_captions = [generator.choice(OTHER_TEMPLATES).format(**vars(other)) for other in others]
    sub_captions.append(generator.choice(GROUND_TEMPLATES).format(ground=ground))
    sub_captions.append(generator.choice(LIGHT_TEMPLATES).format(light=light))
    sub_captions.append(generator.choice(FRAME_TEMPLATES).format(frame=frame))
    sub_captions.append(generator.choice(COUNT_TEMPLATES).format(count=NUMBERS[count]))
    generator.shuffle(sub_captions)
    return Scene(salient, tuple(others), ground, light, frame, tuple(sub_captions))


def load_scenes(num_scenes: int, seed: int = 0) -> Dataset:
    """
    Makes the first scenes of the series `seed`; two series share none. They have `image` (RGB, 64 x 64), `caption`,
    `long_captions` (a list of one) and `label` (a `ClassLabel` with names such as "red boat").
    """
    scenes = [make_scene(seed, index) for index in range(num_scenes)]
    names = [f"{color} {kind}" for color, kind in SALIENT_PAIRS]
    features = Features(
        image=Image(),
        caption=Value("string"),
        long_captions=List(Value("string")),
        label=ClassLabel(names=names),
    )
    return Dataset.from_dict(
        {
            "image": [scene.draw() for scene in scenes],
            "caption": [scene.caption for scene in scenes],
            "long_captions": [[scene.long_caption] for scene in scenes],
            "label": [index % len(SALIENT_PAIRS) for index in range(num_scenes)],
        },
        features=features,
    )


def save_scenes(output_dir: str | Path, num_scenes: int, seed: int = 0) -> None:
    """
    Draws the first scenes of the series `seed` into a folder: PNG files, and their captions in `metadata.jsonl`.
    Scenes that are there already are drawn again.

    Args:
        output_dir (`str` or `Path`): The folder, which is made if it is not there.
        num_scenes (`int`): How many scenes.
        seed (`int`, *optional*, defaults to 0): The series.

    Raises:
        FileExistsError: If the folder has a `metadata.jsonl` of something else.
    """
    output_dir = Path(output_dir)
    scenes = [make_scene(seed, index) for index in range(num_scenes)]
    lines = []
    for index, scene in enumerate(scenes):
        row = {"file_name": f"{index:04}.png", "caption": scene.caption, "long_captions": [scene.long_caption]}
        lines.append(json.dumps(row) + "\n")
    metadata = output_dir / "metadata.jsonl"
    if metadata.exists() and metadata.read_text(encoding="utf-8") != "".join(lines):
        raise FileExistsError(f"{metadata} has other captions: name a new folder as `output_dir`.")
    output_dir.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(scenes):
        scene.draw().save(output_dir / f"{index:04}.png")
    metadata.write_text("".join(lines), encoding="utf-8")


def _box(x: int, y: int, side: int, generator: random.Random) -> tuple[int, int, int, int]:
    """A square around the pixel (x, y), moved by up to one pixel each way."""
    left = x - side // 2 + generator.randint(-1, 1)
    top = y - side // 2 + generator.randint(-1, 1)
    return left, top, left + side, top + side


@cache
def _shape_mask(kind: str, side: int) -> PILImage.Image:
    """The shape in white on black, (side, side), edges smoothed."""
    large = side * OVERSAMPLING
    mask = PILImage.new("L", (large, large))
    draw = ImageDraw.Draw(mask)
    for stroke in SHAPES[kind].split("; "):
        is_cut = stroke.startswith("cut ")
        form, points = stroke.removeprefix("cut ").split(" ", maxsplit=1)
        hundredths = map(int, points.replace(",", " ").split())
        coordinates = [round(number * (large - 1) / 100) for number in hundredths]
        getattr(draw, form)(coordinates, fill=0 if is_cut else 255)
    return mask.reduce(OVERSAMPLING)


@cache
def _light_map(light: str) -> PILImage.Image:
    """Brightness of each pixel, from 255 on the side that the light comes from down to `DARKEST` of it."""
    levels = [round(255 * (1 - (1 - DARKEST) * step / (IMAGE_SIZE - 1))) for step in range(IMAGE_SIZE)]
    column = PILImage.new("L", (1, IMAGE_SIZE))
    column.putdata(levels)
    return column.resize((IMAGE_SIZE, IMAGE_SIZE)).rotate(LIGHTS[light]).convert("RGB")
