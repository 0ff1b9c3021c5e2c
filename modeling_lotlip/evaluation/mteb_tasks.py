# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Image-text retrieval by long texts as tasks of MTEB, which has none. Their data is read from the files that its
publishers ship; `metadata.dataset` names the publishers' page.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from ..data.benchmarks import get_benchmark, load_benchmark
from ..utils.sub_captions import mark_sub_captions


class ImageTextRetrievalTask(AbsTaskRetrieval):
    """
    Retrieval of images by their texts, or of texts by their images. Each text belongs to one image. Long texts are
    split into sub-captions and joined again with `". "`, as in the paper and in `lotlip evaluate`.

    Args:
        data_dir (`str` or `Path`, *optional*):
            The folder of the benchmark, as its publishers ship it.

    Example:

    ```python
    >>> from modeling_lotlip.evaluation.mteb_tasks import TASKS

    >>> task = TASKS["Urban1kT2IRetrieval"](data_dir="benchmarks/urban1k")
    >>> task.metadata.category, task.metadata.main_score
    ('t2i', 'recall_at_1')
    ```"""

    benchmark: str

    def __init__(self, data_dir: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_dir = data_dir

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """
        Reads images and texts.

        Raises:
            `FileNotFoundError`: if `data_dir` is not given, or files are missing.
            `ValueError`: if files are damaged, or the size is not the published one.
        """
        if self.data_loaded:
            return
        if self.data_dir is None:
            source = get_benchmark(self.benchmark).source
            raise FileNotFoundError(f"{self.metadata.name} needs `data_dir`, the folder of its files: {source}.")
        dataset = load_benchmark(self.benchmark, self.data_dir)
        image_ids = [f"image-{number}" for number in range(len(dataset))]
        text_ids = [f"text-{number}" for number in range(len(dataset))]
        images = dataset.select_columns(["image"]).add_column("id", image_ids)
        captions = [mark_sub_captions(text) for text in dataset["long_captions"]]
        texts = Dataset.from_dict({"id": text_ids, "text": captions})
        queries = texts
        corpus = images
        if self.metadata.category == "i2t":
            queries = images
            corpus = texts
        relevant_docs = {query_id: {corpus_id: 1} for query_id, corpus_id in zip(queries["id"], corpus["id"])}
        split = RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=relevant_docs, top_ranked=None)
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


# By the beginning of a task's name: the benchmark, what its texts are, and the publishers' page
BENCHMARKS = {
    "DCI": ("dci", "long descriptions of 7,805 images of SA-1B", "https://github.com/facebookresearch/DCI"),
    "IIW": ("iiw", "the 612 descriptions of ImageInWords", "https://github.com/google/imageinwords"),
    "Urban1k": ("urban1k", "long descriptions of 1,000 busy street scenes", "BeichenZhang/Urban1k"),
    "ShareGPT4V1k": ("sharegpt4v-1k", "1,000 generated long captions of SA-1B", "Lin-Chen/ShareGPT4V"),
    "ShareGPT4V10k": ("sharegpt4v-10k", "10,000 generated long captions of SA-1B", "Lin-Chen/ShareGPT4V"),
}


def make_task(name: str, category: str) -> type[ImageTextRetrievalTask]:
    """Makes the task of a key of `BENCHMARKS`, to retrieve images by texts (`"t2i"`) or texts by images (`"i2t"`)."""
    benchmark, texts, page = BENCHMARKS[name]
    description = f"Retrieve images by {texts}."
    if category == "i2t":
        description = f"Retrieve {texts}, by their images."
    metadata = TaskMetadata(
        name=f"{name}{category.upper()}Retrieval",
        description=description,
        category=category,
        type="Any2AnyRetrieval",
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="recall_at_1",
        dataset={"path": page, "revision": "published"},
    )
    return type(metadata.name, (ImageTextRetrievalTask,), {"benchmark": benchmark, "metadata": metadata})


def make_tasks() -> dict[str, type[ImageTextRetrievalTask]]:
    """Makes both tasks of every benchmark, by their names."""
    tasks = {}
    for name in BENCHMARKS:
        for category in ("t2i", "i2t"):
            task = make_task(name, category)
            tasks[task.metadata.name] = task
    return tasks


TASKS = make_tasks()
