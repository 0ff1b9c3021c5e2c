"""
Takes the picture of the search page that README and docs/search.md show: the results of a description, in Chromium.

    lotlip align --output_dir outputs/flags --dataset_name FLAGS --text_model MINILM --vision_model DINOV2
    cp -r FLAGS/test/images flags
    python -m tests.helpers.take_picture --photos flags --model outputs/flags \
        --output_file docs/images/search_flags.png \
        --text "Three equal horizontal bands of red, yellow and green. \
    A large black five-pointed star is centered in the yellow band."

FLAGS, MINILM and DINOV2 are those of docs/research/index.md.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from tests.helpers.browser import open_chromium, serve


WIDTH = 1120
# Of a busy machine, in milliseconds
TIMEOUT = 600_000
INDEXED = r"#status >> text=/[1-9]\d* images in/"


def take_picture(address: str, text: str, output_file: Path) -> None:
    """Searches for a text on the page at an address, and writes a picture down to the results' end."""
    with open_chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": 1200})
        page.set_default_timeout(TIMEOUT)
        page.goto(address)
        page.wait_for_selector(INDEXED)
        page.reload()  # after which nothing is new
        page.wait_for_selector(INDEXED)
        page.fill("#description textarea", text)
        page.click("#search")
        page.wait_for_selector("#results button.sentence", state="attached")  # weak results are folded
        weak = page.locator("#results details.weak:not([open]) > summary")
        if weak.count() > 0:
            weak.click()
        page.wait_for_function("[...document.querySelectorAll('#results img')].every(image => image.complete)")
        page.wait_for_timeout(12_000)  # Gradio fades what is being computed, and the folder is looked through again
        bottoms = []
        for card in page.locator("#results .card").all():
            box = card.bounding_box()
            bottoms.append(box["y"] + box["height"])
        height = max(bottoms) + 24
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
        page.screenshot(path=output_file, full_page=True, clip=clip)
    with Image.open(output_file) as picture:
        smaller = picture.convert("RGB").quantize(256)
    smaller.save(output_file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="The folder of images.")
    parser.add_argument("--model", type=Path, required=True, help="The folder of the model.")
    parser.add_argument("--text", required=True, help="The description.")
    parser.add_argument("--output_file", type=Path, required=True, help="The picture.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (args.photos, "--model", args.model, "--index_dir", Path(folder, "indices"), "--k", 4)
        with serve(Path(folder, "output.txt"), *arguments) as (address, _):
            take_picture(address, args.text, args.output_file)
    print(f"The picture is {args.output_file}.")


if __name__ == "__main__":
    main()
