# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Image-text retrieval by long texts, and in eleven languages, as tasks of MTEB, which has none of them. Their data is
read from the files that its publishers ship; `metadata.dataset` names the publishers' page.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from ..data.published import get_benchmark, load_benchmark
from ..sub_captions import mark_sub_captions


class ImageTextRetrieval(AbsTaskRetrieval):
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
        names = {subset: self.benchmark.format(subset) for subset in self.hf_subsets}
        if self.data_dir is None:
            how_to_get = get_benchmark(next(iter(names.values()))).how_to_get()
            raise FileNotFoundError(f"{self.metadata.name} needs `data_dir`, the folder of its files: {how_to_get}")
        self.dataset = {
            subset: {split: self.read(name) for split in self.metadata.eval_splits} for subset, name in names.items()
        }
        self.data_loaded = True

    def read(self, name: str) -> RetrievalSplitData:
        """The queries, the corpus and which belong together, of a benchmark of `modeling_lotlip.data.published`."""
        dataset = load_benchmark(name, self.data_dir)
        if "long_captions" in dataset.column_names:
            captions = [[mark_sub_captions(text)] for text in dataset["long_captions"]]
        else:
            captions = dataset["caption"]
        ids = [f"image-{number}" for number in range(len(dataset))]
        images = dataset.select_columns(["image"]).add_column("id", ids)
        pairs = [(id_, f"text-{id_}-{index}", text) for id_, of in zip(ids, captions) for index, text in enumerate(of)]
        texts = Dataset.from_dict({"id": [text_id for _, text_id, _ in pairs], "text": [text for *_, text in pairs]})
        is_t2i = self.metadata.category == "t2i"
        relevant_docs: dict[str, dict[str, int]] = {}
        for image_id, text_id, _ in pairs:
            query_id, corpus_id = (text_id, image_id) if is_t2i else (image_id, text_id)
            relevant_docs.setdefault(query_id, {})[corpus_id] = 1
        queries, corpus = (texts, images) if is_t2i else (images, texts)
        return RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=relevant_docs, top_ranked=None)


# By the beginning of a task's name: the benchmark, what its texts are, and the publishers' page
BENCHMARKS = {
    "DCI": ("dci", "long descriptions of 7,805 images of SA-1B", "https://github.com/facebookresearch/DCI"),
    "IIW": ("iiw", "the 612 descriptions of ImageInWords", "https://github.com/google/imageinwords"),
    "Urban1k": ("urban1k", "long descriptions of 1,000 busy street scenes", "BeichenZhang/Urban1k"),
    "DOCCI": ("docci", "the 5,000 long descriptions of DOCCI's test", "https://google.github.io/docci"),
    "ShareGPT4V1k": ("sharegpt4v-1k", "1,000 generated long captions of SA-1B", "Lin-Chen/ShareGPT4V"),
    "ShareGPT4V10k": ("sharegpt4v-10k", "10,000 generated long captions of SA-1B", "Lin-Chen/ShareGPT4V"),
    "XTD10": (
        "xtd10-{}",
        "captions in eleven languages of 1,000 images of MSCOCO",
        "https://github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10",
    ),
}
LANGUAGES = {
    **{"de": "deu-Latn", "en": "eng-Latn", "es": "spa-Latn", "fr": "fra-Latn", "it": "ita-Latn", "jp": "jpn-Jpan"},
    **{"ko": "kor-Hang", "pl": "pol-Latn", "ru": "rus-Cyrl", "tr": "tur-Latn", "zh": "zho-Hans"},
}


def make_task(name: str, category: str) -> type[ImageTextRetrieval]:
    """The task of a key of `BENCHMARKS`, to retrieve images by texts (`"t2i"`) or texts by images (`"i2t"`)."""
    benchmark, texts, page = BENCHMARKS[name]
    is_multilingual = "{}" in benchmark
    metadata = TaskMetadata(
        name=f"{name}{category.upper()}Retrieval",
        description=f"Retrieve images by {texts}." if category == "t2i" else f"Retrieve {texts}, by their images.",
        category=category,
        type="Any2AnyMultilingualRetrieval" if is_multilingual else "Any2AnyRetrieval",
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs={key: [code] for key, code in LANGUAGES.items()} if is_multilingual else ["eng-Latn"],
        main_score="recall_at_1",
        dataset={"path": page, "revision": "published"},
    )
    return type(metadata.name, (ImageTextRetrieval,), {"benchmark": benchmark, "metadata": metadata})


TASKS = {task.metadata.name: task for task in (make_task(name, way) for name in BENCHMARKS for way in ("t2i", "i2t"))}
