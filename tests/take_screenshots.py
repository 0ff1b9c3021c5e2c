"""
Takes the screenshot of the docs, of a page that searches drawn scenes with the demo model. Paths are from the root of
the repository, and stand in the pictures.

    make demo app  # once, for the model and the scenes
    python tests/take_screenshots.py --model_name_or_path outputs/demo --images outputs/scenes
"""

import argparse
import tempfile
from pathlib import Path

from browser import ROOT, open_chromium, serve


QUERY = "The frame is copper. Everything lies on grass. It is lit from the left. Six things are around it."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", type=Path, required=True, help="A folder of a dual encoder.")
    parser.add_argument("--images", type=Path, required=True, help="A folder of pictures.")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "docs" / "images", help="Where the pictures go.")
    parser.add_argument("--width", type=int, default=1280, help="The width of the window in pixels.")
    parser.add_argument("--color_scheme", default="light", choices=["light", "dark"])
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as folder, open_chromium() as browser:
        served = ["--model_name_or_path", args.model_name_or_path, "--images", args.images]
        served += ["--index_dir", folder, "--sentence_score", "left_out", "--k", 4]
        with serve(Path(folder) / "output.txt", *served) as (address, _):
            viewport = {"width": args.width, "height": 900}
            page = browser.new_page(viewport=viewport, color_scheme=args.color_scheme)
            page.goto(address)
            page.wait_for_selector("#status >> text=/[0-9] pictures in/")
            page.reload()  # without what was new
            page.wait_for_selector("#status >> text=/[0-9] pictures in/")
            page.fill("#description textarea", QUERY)
            page.click("#search")
            card = page.locator("#results .card").nth(1)
            card.locator("button.sentence").nth(1).click()
            card.locator(".note >> text=/Red/").wait_for()
            page.mouse.move(0, 0)
            page.screenshot(path=args.output_dir / "search_app.png", full_page=True)


if __name__ == "__main__":
    main()
