# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Writes into README, pages and citation how the package is installed and where its repository is: by the address in
`setup.py`, which is empty until the release. In README and pages the text stands between `<!-- install: EXTRA -->` and
`<!-- /install -->`. After a change of the address or of the version:

    python docs/address.py

MkDocs calls `on_config`, which links the site to the repository.
"""

import re
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- install: (\w+) -->\n).*?(<!-- /install -->)", re.DOTALL)

BEFORE_RELEASE = """```text
pip install "./lotlip[{extra}]"
```

`./lotlip` is the folder with this project; nothing is on PyPI yet. If you have only the wheel, give its path:
`pip install "./lotlip-{version}-py3-none-any.whl[{extra}]"`.
"""
AFTER_RELEASE = """```text
pip install "lotlip[{extra}]"
```

The newest state of the [repository]({address}) is `pip install "lotlip[{extra}] @ git+{address}"`.
"""


def read_address() -> str:
    """The address of the repository, empty until the release."""
    return re.search(r'^REPOSITORY = "(.*)"$', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)[1]


def read_version() -> str:
    """The version of the package."""
    source = (ROOT / "modeling_lotlip" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'__version__ = "(.+)"', source)[1]


def fill(text: str, address: str, version: str) -> str:
    """A page whose blocks say how to install the package."""
    template = AFTER_RELEASE if address else BEFORE_RELEASE

    def replace(match: re.Match) -> str:
        return match[1] + template.format(extra=match[2], address=address, version=version) + match[3]

    return BLOCK.sub(replace, text)


def fill_citation(text: str, address: str) -> str:
    """The citation with the address of the code, or without one."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.MULTILINE)
    if not address:
        return text
    return text.replace("license: ", f"repository-code: {address}\nlicense: ", 1)


def on_config(config: Any) -> Any:
    """Links the site to the repository, once it has an address."""
    config.repo_url = read_address() or None
    return config


def main() -> None:
    """Writes README, pages and citation anew."""
    address = read_address()
    version = read_version()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        page.write_text(fill(page.read_text(encoding="utf-8"), address, version), encoding="utf-8")
    citation = ROOT / "CITATION.cff"
    citation.write_text(fill_citation(citation.read_text(encoding="utf-8"), address), encoding="utf-8")


if __name__ == "__main__":
    main()
