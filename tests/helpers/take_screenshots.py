"""
Makes the picture of the docs with the demo model: the search page over drawn scenes. Paths are from the root of the
repository, and stand in the picture.

    make demo app  # once, for the model and the scenes
    python -m tests.helpers.take_screenshots --model_name_or_path outputs/demo --images outputs/scenes

The page alone, over other pictures with another description, such as the flags of `draw_flags.py`:

    python -m tests.helpers.take_screenshots --model_name_or_path MODEL --images flags/test \\
        --query "A white cross ..." --output_file docs/images/search_flags.png --max_height 1000
"""

import argparse
import math
import tempfile
from pathlib import Path

from tests.helpers.browser import ROOT, open_chromium, serve


IMAGES = ROOT / "docs" / "images"
QUERY = "The frame is copper. Everything lies on grass. It is lit from the left. Six things are around it."


def photograph_page(browser: object, args: argparse.Namespace, folder: Path) -> None:
    """The page with the results of the query; with `heat_map` that of the second sentence over the first picture."""
    served = [args.images, "--model", args.model_name_or_path, "--index_dir", folder, "--k", 4]
    with serve(folder / "output.txt", *served) as (address, _):
        page = browser.new_page(viewport={"width": args.width, "height": 900}, color_scheme=args.color_scheme)
        page.goto(address)
        page.wait_for_selector("#status >> text=/[0-9] pictures in/", timeout=600_000)
        page.reload()  # without what was new
        page.wait_for_selector("#status >> text=/[0-9] pictures in/")
        page.fill("#description textarea", args.query)
        page.click("#search")
        page.locator("#results .card").first.wait_for(state="attached")
        if page.locator("#results details.weak:not([open])").is_visible():
            page.locator("#results details.weak summary").first.click()
        if args.heat_map:
            card = page.locator("#results .card").first
            card.locator("button.sentence").nth(1).click()
            card.locator(".note >> text=/Red/").wait_for()
        page.mouse.move(0, 0)
        height = min(page.evaluate("document.documentElement.scrollHeight"), args.max_height or math.inf)
        clip = {"x": 0, "y": 0, "width": args.width, "height": height}
        page.screenshot(path=args.output_file, full_page=True, clip=clip)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", type=Path, required=True, help="A folder of a dual encoder.")
    parser.add_argument("--images", type=Path, required=True, help="A folder of pictures.")
    parser.add_argument("--query", help="A description of several sentences; only the page is drawn then.")
    parser.add_argument("--output_file", type=Path, default=IMAGES / "search_app.png", help="The picture of the page.")
    parser.add_argument("--width", type=int, default=1280, help="The width of the window in pixels.")
    parser.add_argument("--max_height", type=int, help="Cut the picture off below so many pixels.")
    parser.add_argument("--color_scheme", default="light", choices=["light", "dark"])
    args = parser.parse_args()
    is_demo, args.query = args.query is None, args.query or QUERY
    args.heat_map = is_demo
    args.output_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, open_chromium() as browser:
        photograph_page(browser, args, Path(folder))


if __name__ == "__main__":
    main()
