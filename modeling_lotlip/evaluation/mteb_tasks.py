# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Image-text retrieval by long texts, and in eleven languages, as tasks of MTEB, which has none of them.

The classes are written as MTEB writes its own. The data of each is read from the files that its publishers ship, or
from a copy in MTEB's layout on the Hub, which `push_dataset_to_hub` makes. No such copy is published, so that
`metadata.dataset` names the publishers' page.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from ..data.published import get_benchmark, load_benchmark
from ..sub_captions import join_sub_captions, split_sub_captions


class ImageTextRetrieval(AbsTaskRetrieval):
    """
    Retrieval of images by their texts, or of texts by their images. Each text belongs to one image.

    Args:
        data_dir (`str` or `Path`, *optional*):
            The folder of the benchmark, as its publishers ship it.
        path (`str`, *optional*):
            Instead of it a data set in MTEB's layout (`queries`, `corpus`, `qrels`), an id on the Hub or a folder.
        revision (`str`, *optional*, defaults to `"main"`):
            The revision of the data set on the Hub.
        joins_sub_captions (`bool`, *optional*, defaults to `False`):
            Whether long texts from `data_dir` are split into sub-captions and joined again with `". "`, as in the
            paper and in `lotlip evaluate`. Otherwise they are as published.
        kwargs:
            Arguments of MTEB's tasks.

    Example:

    ```python
    >>> from modeling_lotlip.evaluation.mteb_tasks import Urban1kT2IRetrieval

    >>> task = Urban1kT2IRetrieval(data_dir="benchmarks/urban1k")
    >>> task.metadata.category, task.metadata.main_score
    ('t2i', 'recall_at_1')
    ```"""

    benchmark: str

    def __init__(
        self,
        data_dir: str | Path | None = None,
        path: str | None = None,
        revision: str = "main",
        joins_sub_captions: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_dir = data_dir
        self.joins_sub_captions = joins_sub_captions
        self.has_copy = path is not None
        if path is not None:
            dataset = {"path": path, "revision": revision}
            self.metadata = self.metadata.model_copy(update={"dataset": dataset})

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """
        Reads images and texts.

        Raises:
            `FileNotFoundError`: if neither `data_dir` nor `path` is given, or files are missing.
            `ValueError`: if files are damaged, or the size is not the published one.
        """
        if self.data_loaded:
            return
        if self.has_copy:
            super().load_data(num_proc=num_proc, **kwargs)
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
            captions = [[text] for text in dataset["long_captions"]]
            if self.joins_sub_captions:
                captions = [[join_sub_captions(split_sub_captions(text))] for (text,) in captions]
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


COMMON = {
    "type": "Any2AnyRetrieval",
    "modalities": ["text", "image"],
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "main_score": "recall_at_1",
    "task_subtypes": ["Image Text Retrieval"],
    "dialect": [],
}

DCI = COMMON | {
    "reference": "https://arxiv.org/abs/2312.08578",
    "dataset": {"path": "https://github.com/facebookresearch/DCI", "revision": "published"},
    "date": ("2023-01-01", "2023-12-14"),
    "domains": ["Scene", "Written"],
    "license": "cc-by-nc-4.0",
    "annotations_creators": "human-annotated",
    "sample_creation": "created",
    "bibtex_citation": r"""
@misc{urbanek2023picture,
  archiveprefix = {arXiv},
  author = {Jack Urbanek and Florian Bordes and Pietro Astolfi and Mary Williamson and Vasu Sharma and
            Adriana Romero-Soriano},
  eprint = {2312.08578},
  primaryclass = {cs.CV},
  title = {A Picture is Worth More Than 77 Text Tokens: Evaluating CLIP-Style Models on Dense Captions},
  year = {2023},
}
""",
}


class DCIT2IRetrieval(ImageTextRetrieval):
    benchmark = "dci"
    metadata = TaskMetadata(
        name="DCIT2IRetrieval",
        description="Retrieve images by long descriptions, a summary and the details, of 7,805 images of SA-1B.",
        category="t2i",
        **DCI,
    )


class DCII2TRetrieval(ImageTextRetrieval):
    benchmark = "dci"
    metadata = TaskMetadata(
        name="DCII2TRetrieval",
        description="Retrieve long descriptions, a summary and the details, by 7,805 images of SA-1B.",
        category="i2t",
        **DCI,
    )


IIW = COMMON | {
    "reference": "https://aclanthology.org/2024.emnlp-main.6",
    "dataset": {"path": "https://github.com/google/imageinwords", "revision": "published"},
    "date": ("2023-01-01", "2024-05-05"),
    "domains": ["Scene", "Written"],
    "license": "cc-by-4.0",
    "annotations_creators": "human-annotated",
    "sample_creation": "created",
    "bibtex_citation": r"""
@inproceedings{garg2024imageinwords,
  author = {Garg, Roopal and Burns, Andrea and Karagol Ayan, Burcu and Bitton, Yonatan and Montgomery, Ceslee and
            Onoe, Yasumasa and Bunner, Andrew and Krishna, Ranjay and Baldridge, Jason and Soricut, Radu},
  booktitle = {Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing},
  pages = {93--127},
  title = {ImageInWords: Unlocking Hyper-Detailed Image Descriptions},
  year = {2024},
}
""",
}


class IIWT2IRetrieval(ImageTextRetrieval):
    benchmark = "iiw"
    metadata = TaskMetadata(
        name="IIWT2IRetrieval",
        description="Retrieve images by hyper-detailed descriptions, the 612 of ImageInWords' three evaluation sets.",
        category="t2i",
        **IIW,
    )


class IIWI2TRetrieval(ImageTextRetrieval):
    benchmark = "iiw"
    metadata = TaskMetadata(
        name="IIWI2TRetrieval",
        description="Retrieve hyper-detailed descriptions, the 612 of ImageInWords' three evaluation sets, by images.",
        category="i2t",
        **IIW,
    )


URBAN1K = COMMON | {
    "reference": "https://arxiv.org/abs/2403.15378",
    "dataset": {"path": "BeichenZhang/Urban1k", "revision": "published"},
    "date": ("2024-03-01", "2024-05-21"),
    "domains": ["Scene", "Written"],
    "license": "not specified",
    "annotations_creators": "LM-generated",
    "sample_creation": "found",
    "bibtex_citation": r"""
@inproceedings{zhang2024longclip,
  author = {Zhang, Beichen and Zhang, Pan and Dong, Xiaoyi and Zang, Yuhang and Wang, Jiaqi},
  booktitle = {European Conference on Computer Vision},
  pages = {310--325},
  title = {Long-CLIP: Unlocking the Long-Text Capability of CLIP},
  year = {2024},
}
""",
}


class Urban1kT2IRetrieval(ImageTextRetrieval):
    benchmark = "urban1k"
    metadata = TaskMetadata(
        name="Urban1kT2IRetrieval",
        description="Retrieve images by long descriptions of 1,000 busy street scenes, of which many are alike.",
        category="t2i",
        **URBAN1K,
    )


class Urban1kI2TRetrieval(ImageTextRetrieval):
    benchmark = "urban1k"
    metadata = TaskMetadata(
        name="Urban1kI2TRetrieval",
        description="Retrieve long descriptions by images of 1,000 busy street scenes, of which many are alike.",
        category="i2t",
        **URBAN1K,
    )


DOCCI = COMMON | {
    "reference": "https://google.github.io/docci",
    "dataset": {"path": "https://google.github.io/docci", "revision": "published"},
    "date": ("2021-01-01", "2024-04-30"),
    "domains": ["Scene", "Written"],
    "license": "cc-by-4.0",
    "annotations_creators": "human-annotated",
    "sample_creation": "created",
    "bibtex_citation": r"""
@inproceedings{onoe2024docci,
  author = {Yasumasa Onoe and Sunayana Rane and Zachary Berger and Yonatan Bitton and Jaemin Cho and Roopal Garg and
            Alexander Ku and Zarana Parekh and Jordi Pont-Tuset and Garrett Tanzer and Su Wang and Jason Baldridge},
  booktitle = {European Conference on Computer Vision},
  title = {{DOCCI}: Descriptions of Connected and Contrasting Images},
  year = {2024},
}
""",
}


class DOCCIT2IRetrieval(ImageTextRetrieval):
    benchmark = "docci"
    metadata = TaskMetadata(
        name="DOCCIT2IRetrieval",
        description="Retrieve images by long descriptions that tell them from related ones, 5,000 of DOCCI's test.",
        category="t2i",
        **DOCCI,
    )


class DOCCII2TRetrieval(ImageTextRetrieval):
    benchmark = "docci"
    metadata = TaskMetadata(
        name="DOCCII2TRetrieval",
        description="Retrieve long descriptions that tell images from related ones, 5,000 of DOCCI's test.",
        category="i2t",
        **DOCCI,
    )


SHAREGPT4V = COMMON | {
    "reference": "https://arxiv.org/abs/2311.12793",
    "dataset": {"path": "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V", "revision": "published"},
    "date": ("2023-11-01", "2023-11-21"),
    "domains": ["Scene", "Written"],
    "license": "cc-by-nc-4.0",
    "annotations_creators": "LM-generated",
    "sample_creation": "found",
    "bibtex_citation": r"""
@article{chen2023sharegpt4v,
  author = {Chen, Lin and Li, Jinsong and Dong, Xiaoyi and Zhang, Pan and He, Conghui and Wang, Jiaqi and
            Zhao, Feng and Lin, Dahua},
  journal = {arXiv preprint arXiv:2311.12793},
  title = {ShareGPT4V: Improving Large Multi-Modal Models with Better Captions},
  year = {2023},
}
""",
}


class ShareGPT4V1kT2IRetrieval(ImageTextRetrieval):
    benchmark = "sharegpt4v-1k"
    metadata = TaskMetadata(
        name="ShareGPT4V1kT2IRetrieval",
        description="Retrieve images by generated long captions, the first 1,000 of SA-1B in ShareGPT4V.",
        category="t2i",
        **SHAREGPT4V,
    )


class ShareGPT4V1kI2TRetrieval(ImageTextRetrieval):
    benchmark = "sharegpt4v-1k"
    metadata = TaskMetadata(
        name="ShareGPT4V1kI2TRetrieval",
        description="Retrieve generated long captions by images, the first 1,000 of SA-1B in ShareGPT4V.",
        category="i2t",
        **SHAREGPT4V,
    )


class ShareGPT4V10kT2IRetrieval(ImageTextRetrieval):
    benchmark = "sharegpt4v-10k"
    metadata = TaskMetadata(
        name="ShareGPT4V10kT2IRetrieval",
        description="Retrieve images by generated long captions, the first 10,000 of SA-1B in ShareGPT4V.",
        category="t2i",
        **SHAREGPT4V,
    )


class ShareGPT4V10kI2TRetrieval(ImageTextRetrieval):
    benchmark = "sharegpt4v-10k"
    metadata = TaskMetadata(
        name="ShareGPT4V10kI2TRetrieval",
        description="Retrieve generated long captions by images, the first 10,000 of SA-1B in ShareGPT4V.",
        category="i2t",
        **SHAREGPT4V,
    )


XTD10 = COMMON | {
    "type": "Any2AnyMultilingualRetrieval",
    "reference": "https://arxiv.org/abs/2012.05107",
    "dataset": {"path": "https://github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10", "revision": "published"},
    "eval_langs": {
        "de": ["deu-Latn"],
        "en": ["eng-Latn"],
        "es": ["spa-Latn"],
        "fr": ["fra-Latn"],
        "it": ["ita-Latn"],
        "jp": ["jpn-Jpan"],
        "ko": ["kor-Hang"],
        "pl": ["pol-Latn"],
        "ru": ["rus-Cyrl"],
        "tr": ["tur-Latn"],
        "zh": ["zho-Hans"],
    },
    "date": ("2014-01-01", "2020-11-24"),
    "domains": ["Scene", "Written"],
    "license": "not specified",
    "annotations_creators": "human-annotated",
    "sample_creation": "human-translated",
    "bibtex_citation": r"""
@article{aggarwal2020towards,
  author = {Aggarwal, Pranav and Kale, Ajinkya},
  journal = {arXiv preprint arXiv:2012.05107},
  title = {Towards Zero-shot Cross-lingual Image Retrieval},
  year = {2020},
}
""",
}


class XTD10T2IRetrieval(ImageTextRetrieval):
    benchmark = "xtd10-{}"
    metadata = TaskMetadata(
        name="XTD10T2IRetrieval",
        description="Retrieve 1,000 images of MSCOCO by captions in eleven languages.",
        category="t2i",
        **XTD10,
    )


class XTD10I2TRetrieval(ImageTextRetrieval):
    benchmark = "xtd10-{}"
    metadata = TaskMetadata(
        name="XTD10I2TRetrieval",
        description="Retrieve captions in eleven languages by 1,000 images of MSCOCO.",
        category="i2t",
        **XTD10,
    )


LONG_TEXT_TASKS = (
    DCIT2IRetrieval,
    DCII2TRetrieval,
    IIWT2IRetrieval,
    IIWI2TRetrieval,
    Urban1kT2IRetrieval,
    Urban1kI2TRetrieval,
    DOCCIT2IRetrieval,
    DOCCII2TRetrieval,
    ShareGPT4V1kT2IRetrieval,
    ShareGPT4V1kI2TRetrieval,
    ShareGPT4V10kT2IRetrieval,
    ShareGPT4V10kI2TRetrieval,
)
XTD10_TASKS = (XTD10T2IRetrieval, XTD10I2TRetrieval)


__all__ = ["LONG_TEXT_TASKS", "XTD10_TASKS", "ImageTextRetrieval"]
