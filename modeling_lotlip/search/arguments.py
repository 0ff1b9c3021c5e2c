# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The arguments of `lotlip search` and `lotlip app`."""

from dataclasses import dataclass
from pathlib import Path

from ..arguments import DTYPES, argument, refuse_given
from ..embedding.arguments import BACKENDS, DEFAULT_MODEL, KINDS, DecodingArguments, ModelArguments
from ..network import is_loopback
from ..sub_captions import SPLITTERS
from .filters import Filter


# The error of an argument that only an index of pictures has
USED_AS_IT_IS = "has no effect on --embeddings_dir, which is used as it is: leave it out."


@dataclass
class SearchModelArguments(ModelArguments):
    """A dual encoder to search with, and how it is run."""

    model_name_or_path: str | None = argument(
        None,
        "A Hub id or a folder of a dual encoder. Default: in --embeddings_dir the one that made them; else "
        f"{DEFAULT_MODEL}.",
        aliases=("--model",),
        metavar="MODEL",
    )
    dtype: str | None = argument(
        None,
        "The precision of the computation. int8 is for a CPU, by OpenVINO: texts in 8 bits, images in bfloat16. "
        "Default: in --embeddings_dir that of the embeddings; else float32.",
        choices=(*DTYPES, "int8"),
    )
    backend: str | None = argument(
        None,
        "What computes embeddings: PyTorch, or OpenVINO, which is faster on a CPU. Default: in --embeddings_dir "
        "that of the embeddings; else PyTorch.",
        choices=BACKENDS,
    )


@dataclass
class IndexArguments(DecodingArguments):
    """The pictures that are searched, and how."""

    _argument_group_name = "search"

    photos: str | None = argument(
        None, "A folder of pictures, with all folders in it.", positional=True, metavar="PHOTOS"
    )
    embeddings_dir: Path | None = argument(
        None,
        "Search the embeddings in a folder, of `lotlip embed` or of an earlier search, as they are.",
        aliases=("--embeddings",),
        metavar="DIR",
    )
    index_dir: Path | None = argument(
        None,
        "Where indices of pictures are kept. Default: `assets/lotlip/search` in the cache of the Hub.",
    )
    sub_caption_splitter: str | None = argument(
        None,
        "Where a text is split: where a sentence ends (needs sentencex), or at every full stop and line break as in "
        "the paper. Default: sentences if sentencex is installed; in --embeddings_dir as its captions were.",
        choices=tuple(SPLITTERS),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.embeddings_dir is not None:
            refuse_given(self, ("index_dir", "sub_caption_splitter", "exact_decoding"), USED_AS_IT_IS)


@dataclass
class SearchArguments(IndexArguments):
    """What is searched for."""

    texts: list[str] = argument([], "Descriptions of what to find.", positional=True, metavar="TEXT")
    texts_file: Path | None = argument(None, "A file of more of them, one in a line.")
    k: int = argument(5, "How many results for each text. Where there are fewer, all are shown.", least=1)
    folder: str | None = argument(None, "Search the pictures in this folder of PHOTOS, and all folders in it.")
    taken_from: str | None = argument(
        None, "Search the pictures that were taken on this day or later.", metavar="YYYY-MM-DD"
    )
    taken_to: str | None = argument(
        None, "Search the pictures that were taken on this day or before.", metavar="YYYY-MM-DD"
    )
    all_copies: bool = argument(False, "Show pictures that are nearly the same one by one, not as one result.")
    kind: str | None = argument(None, "What to search for in --embeddings_dir. Default: image.", choices=KINDS)

    def __post_init__(self):
        super().__post_init__()
        if self.embeddings_dir is not None and self.photos is not None:
            # there is no PHOTOS then: the first word is a text as well
            self.texts, self.photos = [self.photos, *self.texts], None
        if self.embeddings_dir is None and self.photos is None:
            raise ValueError("there is nothing to search in: name a folder of PHOTOS, or one of --embeddings_dir.")
        self.read_filter()
        if self.kind is not None and self.embeddings_dir is None:
            raise ValueError(f"--kind {self.kind} is of --embeddings_dir: in PHOTOS pictures are searched.")
        if not self.texts and self.texts_file is None:
            raise ValueError("there is nothing to search for: add a TEXT, or name a file of them by --texts_file.")
        if not all(text.strip() for text in self.texts):
            raise ValueError("a TEXT is blank: describe what to find.")

    def read_filter(self) -> Filter:
        """Which pictures are searched. Raises a `ValueError` if a day is no date."""
        return Filter.read(self.folder, self.taken_from, self.taken_to)

    def read_texts(self) -> list[str]:
        """
        The texts, then those of the file, whose blank lines are left out.

        Raises:
            `ValueError`: if it cannot be read, or holds none.
        """
        if self.texts_file is None:
            return list(self.texts)
        from ..files import read_lines  # not at the top: it imports pyarrow

        texts = read_lines(self.texts_file, "texts_file")
        if not texts:
            raise ValueError(f"--texts_file {self.texts_file} holds no text: write one in a line.")
        return [*self.texts, *texts]


@dataclass
class PageArguments(IndexArguments):
    """The page, and a data set whose pictures it can search."""

    dataset_name: str | None = argument(
        None,
        "Search the pictures of a data set instead: a Hub id, a builder such as `imagefolder`, or a local folder. "
        "Default, without any pictures: drawn scenes.",
    )
    dataset_config_name: str | None = argument(None, "The configuration of the data set, if it has several.")
    data_dir: str | None = argument(None, "The folder of the data, for a builder.")
    data_files: list[str] | None = argument(None, "The files of the data, for a builder.")
    eval_split: str | None = argument(None, "The split of the data set. Default: train; of the drawn scenes, test.")
    max_eval_samples: int | None = argument(None, "Use this many images of the data set, the first ones.", least=1)
    image_column: str | None = argument(None, "The column of the images (or their paths). Default: image.")
    k: int = argument(12, "How many pictures to show.", least=1)
    port: int = argument(7860, "The port to listen at.", least=1, most=65535)
    host: str = argument(
        "127.0.0.1", "The address to listen at. `0.0.0.0`: whoever reaches this machine reaches the page."
    )
    no_browser: bool = argument(False, "Do not open the page in a browser.")
    share: bool = argument(False, "Also make a public address, through Gradio's servers.")
    auth_file: Path | None = argument(
        None, "A file with a line USER:PASSWORD for each user, which only you can read.", metavar="FILE"
    )
    without_password: bool = argument(
        False, "No password: whoever reaches the page can search, with --share or --host."
    )

    @property
    def is_shared(self) -> bool:
        """Whether others than the users of this machine reach the page."""
        return self.share or not is_loopback(self.host)

    def __post_init__(self):
        super().__post_init__()
        if self.is_shared and self.auth_file is None and not self.without_password:
            option = "--share" if self.share else f"--host {self.host}"
            raise ValueError(
                f"{option} shows the pictures to whoever finds the page: let in those of an --auth_file, or everyone "
                "by --without_password."
            )
        if self.without_password and (self.auth_file is not None or not self.is_shared):
            raise ValueError("--without_password is of --share and --host without --auth_file: leave it out.")
        sources = {"PHOTOS": self.photos, "--embeddings_dir": self.embeddings_dir, "--dataset_name": self.dataset_name}
        named = [name for name, value in sources.items() if value is not None]
        if len(named) > 1:
            raise ValueError(f"name one collection, not both {named[0]} and {named[1]}.")
        if self.photos is not None or self.embeddings_dir is not None:
            of_data_sets = ("dataset_config_name", "data_dir", "data_files")
            of_data_sets += ("eval_split", "max_eval_samples", "image_column")
            refuse_given(self, of_data_sets, f"is of --dataset_name: leave it out beside {named[0]}.")
