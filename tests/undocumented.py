"""
Finds uses of what libraries do not document, where it is no import, which ruff finds:

    python tests/undocumented.py

Prints the places, and ends with status 1 if there is one. The files of the model are left out: their measure is how
transformers' own models are written.
"""

import re
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]

UNDOCUMENTED = {
    "the fingerprint of a dataset": re.compile(r"\._fingerprint\b"),
    "the arguments that a tokenizer was made with": re.compile(r"\.init_kwargs\b"),
    "the path in a configuration": re.compile(r"\._name_or_path\b"),
    "the keywords that a processor takes": re.compile(r"\bvalid_processor_kwargs\b"),
    "models of others without their values": re.compile(r"device\(\"meta\"\)|device_map=\"meta\"|to\(\"meta\"\)"),
}

# Use them until these rooms are written anew
EXCEPTIONS = {
    "data/caption_files.py",
    "encoder/families.py",
    "encoder/preprocessing.py",
    "encoder/sentence_transformer.py",
    "training/image_features.py",
    "training/models.py",
}


def find_uses(path: Path) -> list[str]:
    """Lists the lines of a file that use something undocumented, each with what it is."""
    uses = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for name, pattern in UNDOCUMENTED.items():
            if pattern.search(line):
                uses.append(f"{path.relative_to(ROOT)}:{number}: {name}: {line.strip()}")
    return uses


def main() -> int:
    package = ROOT / "modeling_lotlip"
    uses = []
    for path in [ROOT / "lotlip.py", *sorted(package.rglob("*.py"))]:
        is_exception = path.relative_to(ROOT).as_posix().removeprefix("modeling_lotlip/") in EXCEPTIONS
        is_model = path.parent == package and path.name.endswith("_lotlip.py")
        if not is_exception and not is_model:
            uses += find_uses(path)
    print("\n".join(uses))
    return min(len(uses), 1)


if __name__ == "__main__":
    sys.exit(main())
