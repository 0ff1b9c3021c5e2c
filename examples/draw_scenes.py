# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
"""
Draws scenes of the embedded dataset into a folder of PNG files, with their captions in `metadata.jsonl`.

    python examples/draw_scenes.py --output_dir outputs/scenes --num_scenes 512

In several languages, all captions of a scene are lists, and each language has columns of its own as well:

    python examples/draw_scenes.py --output_dir outputs/two_languages --languages english german
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from modeling_lotlip.data.scenes import Scene, Thing, make_scene
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.utils.output_folder import atomic_write


# German nouns with the ending that their gender gives an adjective behind "ein" or "eine"
NOUNS = {
    "boat": "es Boot",
    "car": "es Auto",
    "house": "es Haus",
    "tree": "er Baum",
    "fish": "er Fisch",
    "cup": "e Tasse",
    "key": "er Schlüssel",
    "hat": "er Hut",
    "shirt": "es Hemd",
    "umbrella": "er Schirm",
    "rocket": "e Rakete",
    "mushroom": "er Pilz",
    "flower": "e Blume",
    "crown": "e Krone",
    "bottle": "e Flasche",
    "butterfly": "er Schmetterling",
    "ball": "er Ball",
    "box": "e Kiste",
    "ring": "er Ring",
    "cross": "es Kreuz",
    "tent": "es Zelt",
    "moon": "er Mond",
    "heart": "es Herz",
    "ladder": "e Leiter",
    "arrow": "er Pfeil",
    "bow": "e Schleife",
}
WORDS = {
    "red": "rot",
    "brown": "braun",
    "green": "grün",
    "blue": "blau",
    "purple": "violett",
    "pink": "rosafarben",
    "gray": "grau",
    "black": "schwarz",
    "small": "klein",
    "big": "groß",
    "northwest": "Nordwesten",
    "north": "Norden",
    "northeast": "Nordosten",
    "west": "Westen",
    "east": "Osten",
    "southwest": "Südwesten",
    "south": "Süden",
    "southeast": "Südosten",
    "sand": "Sand",
    "grass": "Gras",
    "snow": "Schnee",
    "water": "Wasser",
    "stone": "Stein",
    "clay": "Lehm",
    "above": "oben",
    "the left": "links",
    "below": "unten",
    "the right": "rechts",
    "golden": "golden",
    "copper": "kupfern",
    "charcoal": "anthrazitfarben",
    "ruby": "rubinrot",
    "jade": "jadegrün",
    "sapphire": "saphirblau",
}
NUMBERS = {3: "drei", 4: "vier", 5: "fünf", 6: "sechs", 7: "sieben", 8: "acht"}

OTHER_TEMPLATES = (
    "{thing} ist im {place}",
    "im {place} ist {thing}",
    "im {place} befindet sich {thing}",
)
COUNT_TEMPLATES = (
    "{count} Dinge sind darum herum",
    "es gibt {count} andere Dinge",
)
GROUND_TEMPLATES = (
    "der Boden ist {ground}",
    "alles liegt auf {ground}",
    "der Hintergrund ist {ground}",
)
LIGHT_TEMPLATES = (
    "das Licht kommt von {light}",
    "es wird von {light} beleuchtet",
)
FRAME_TEMPLATES = (
    "der Rahmen ist {frame}",
    "ein {frame}er Rahmen ist darum herum",
    "es hat einen {frame}en Rahmen",
)


@dataclass
class DrawArguments(Arguments):
    """How many scenes are drawn, and what is said of them."""

    output_dir: Path = argument(help="A folder that is not there yet.")
    num_scenes: int = argument(512, "How many scenes.", least=1)
    seed: int = argument(3, "The series of scenes; 0 is that of the training.")
    languages: list[str] = argument(
        ["english"],
        "The languages of the captions.",
        choices=("english", "german"),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.output_dir.exists():
            raise ValueError(f"--output_dir {self.output_dir} is there already: name another folder.")


def describe(scene: Scene, language: str) -> tuple[str, str]:
    """Returns the short and the long caption of a scene, in English or in German; both say the same."""
    if language == "english":
        return scene.caption, scene.long_caption
    return describe_in_german(scene)


def describe_in_german(scene: Scene) -> tuple[str, str]:
    """Returns the captions of a scene in German, by the words and templates above; the same for the same scene."""
    generator = random.Random(scene.long_caption)
    statements = []
    for thing in scene.others:
        template = generator.choice(OTHER_TEMPLATES)
        statements.append(template.format(thing=name_in_german(thing), place=WORDS[thing.place]))
    statements += [
        generator.choice(GROUND_TEMPLATES).format(ground=WORDS[scene.ground]),
        generator.choice(LIGHT_TEMPLATES).format(light=WORDS[scene.light]),
        generator.choice(FRAME_TEMPLATES).format(frame=WORDS[scene.frame]),
        generator.choice(COUNT_TEMPLATES).format(count=NUMBERS[len(scene.others)]),
    ]
    generator.shuffle(statements)
    long_caption = " ".join(f"{statement[0].upper()}{statement[1:]}." for statement in statements)
    return f"auf dem Foto ist {name_in_german(scene.salient)}", long_caption


def name_in_german(thing: Thing) -> str:
    """Returns a thing in German, such as "ein kleiner roter Ball"."""
    ending, noun = NOUNS[thing.kind].split()
    article = "ein"
    if ending == "e":
        article = "eine"
    adjectives = [f"{WORDS[word]}{ending}" for word in (thing.size, thing.color) if word is not None]
    return " ".join([article, *adjectives, noun])


def make_row(scene: Scene, file_name: str, languages: tuple[str, ...]) -> dict:
    """Returns the file and the captions of a scene, as a line of `metadata.jsonl`."""
    if len(languages) == 1:
        short_caption, long_caption = describe(scene, languages[0])
        return {"file_name": file_name, "caption": short_caption, "long_captions": [long_caption]}
    row = {"file_name": file_name, "caption": [], "long_captions": []}
    for language in languages:
        short_caption, long_caption = describe(scene, language)
        row["caption"].append(short_caption)
        row["long_captions"].append(long_caption)
        row[f"caption_{language}"] = short_caption
        row[f"long_captions_{language}"] = long_caption
    return row


def draw_scenes(output_dir: Path, num_scenes: int, seed: int, languages: tuple[str, ...] = ("english",)) -> None:
    """
    Draws the first scenes of a series; the folder has its name when it is complete.

    Args:
        output_dir (`Path`): A folder that is not there yet.
        num_scenes (`int`): How many scenes.
        seed (`int`): The series.
        languages (`tuple[str, ...]`, *optional*, defaults to `("english",)`): Those of the captions.
    """
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    if output_dir.exists():
        raise ValueError(f"`--output_dir {output_dir}` is there already: name another folder.")
    with atomic_write(output_dir) as partial:
        partial.mkdir()
        with open(partial / "metadata.jsonl", "w", encoding="utf-8") as file:
            for index in range(num_scenes):
                scene = make_scene(seed, index)
                file_name = f"{index:04d}.png"
                scene.draw().save(partial / file_name)
                row = make_row(scene, file_name, languages)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main(args: list[str] | None = None) -> None:
    (arguments,) = parse((DrawArguments,), args, description=__doc__)
    draw_scenes(arguments.output_dir, arguments.num_scenes, arguments.seed, tuple(arguments.languages))
    print(f"{arguments.num_scenes} images are in {arguments.output_dir}.")


if __name__ == "__main__":
    with exit_on_error("draw_scenes.py"):
        main()
