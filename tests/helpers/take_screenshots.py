"""
Makes an image of the search page for the docs: the page over a folder of images, with the results of a description.

    python -m tests.helpers.take_screenshots --model_name_or_path MODEL --images lamps/test \\
        --query "Lamp in the shape of a human head ..." --output_file docs/images/search_lamps.png --max_height 1000
"""

import argparse
import math
import tempfile
from pathlib import Path

from tests.helpers.browser import open_chromium, serve


def photograph_page(browser: object, args: argparse.Namespace, folder: Path) -> None:
    """The page with the results of the query."""
    served = [args.images, "--model", args.model_name_or_path, "--index_dir", folder, "--k", 4]
    with serve(folder / "output.txt", *served) as (address, _):
        page = browser.new_page(viewport={"width": args.width, "height": 900}, color_scheme=args.color_scheme)
        page.set_default_timeout(600_000)
        page.goto(address)
        page.wait_for_selector("#status >> text=/[0-9] images in/")
        page.reload()  # without what was new
        page.wait_for_selector("#status >> text=/[0-9] images in/")
        page.fill("#description textarea", args.query)
        page.click("#search")
        page.locator("#results button.sentence").first.wait_for(state="attached")
        if page.locator("#results details.weak:not([open])").is_visible():
            page.locator("#results details.weak summary").first.click()
        page.mouse.move(0, 0)
        height = min(page.evaluate("document.documentElement.scrollHeight"), args.max_height or math.inf)
        clip = {"x": 0, "y": 0, "width": args.width, "height": height}
        page.screenshot(path=args.output_file, full_page=True, clip=clip)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", type=Path, required=True, help="A folder of a dual encoder.")
    parser.add_argument("--images", type=Path, required=True, help="A folder of images.")
    parser.add_argument("--query", required=True, help="A description.")
    parser.add_argument("--output_file", type=Path, required=True, help="The image of the page.")
    parser.add_argument("--width", type=int, default=1280, help="The width of the window in pixels.")
    parser.add_argument("--max_height", type=int, help="Cut the image off below so many pixels.")
    parser.add_argument("--color_scheme", default="light", choices=["light", "dark"])
    args = parser.parse_args()
    args.output_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, open_chromium() as browser:
        photograph_page(browser, args, Path(folder))


if __name__ == "__main__":
    main()
