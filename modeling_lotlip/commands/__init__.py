# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The commands of `lotlip`, one file each: its arguments (`ARGUMENTS`, dataclasses), and `run`, which takes an object of
each, calls the library, prints and writes. What needs torch is imported in `run`, so that `--help` answers at once.
"""

# in the order of `lotlip --help`
COMMANDS = {
    "search": "search a folder of images by descriptions",
    "app": "search on a page in the browser",
    "serve": "embeddings of texts and images by OpenAI's API",
    "embed": "embeddings of the images and captions of a dataset",
    "train": "contrastive training on images with short and long captions",
    "interpolate": "weights between a model and what a training made of it",
    "align": "two encoders that were trained apart, joined by heads",
    "evaluate": "image-text retrieval on a dataset or the paper's benchmarks",
    "classify": "zero-shot classification",
    "statistics": "how long the texts of a dataset are",
    "recaption": "long captions for images, by any captioner",
    "filter": "mark captions that are not worth training on",
    "pack": "images and captions as webdataset shards",
    "visualize": "what a model attends to in texts and images",
    "sensitivity": "which parts of a long text are used",
    "export": "both towers as ONNX graphs",
    "convert": "an original checkpoint to a folder, and back",
    "push": "upload a folder with its model card and code",
}
