# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[ray]"]
# ///
"""
Embeds the images of a folder, or of an object store, on several processes or machines with Ray, into a table that
`lotlip search` reads.

    python examples/embed_on_ray.py --photos my_photos --output_dir outputs/index --model MODEL --num_workers 2
    python examples/embed_on_ray.py --photos s3://bucket/photos --output_dir outputs/index --model MODEL
    lotlip search --embeddings outputs/index "a red boat at a pier"

With `RAY_ADDRESS` it runs on that cluster, else on this machine; every machine needs the package, and reads the folder
at the same path, or the store with credentials of its own. What a worker that dies has not handed over is computed
again by the others. This process alone writes: an image is in the table once, and what is written stays when the run
is ended. A later run adds and replaces images; what was deleted since stays in the table.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import ray
import ray.data
import torch
from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from modeling_lotlip.data.images import SAFE_EXTENSIONS, SAFE_FORMATS
from modeling_lotlip.data.reader import RowInfo
from modeling_lotlip.data.rows import batched
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.batches import RowCollator, TableReader, embed_rows
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.search.index import list_images
from modeling_lotlip.table.embed import embed_background, note_model, to_rows
from modeling_lotlip.table.storage import EmbeddingTable
from modeling_lotlip.table.thresholds import maintain
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse


# A worker computes beside the processes that read
CPUS_OF_WORKER = 0.5
# Batches that are written to the table at once
BATCHES_PER_WRITE = 8


@dataclass
class RayArguments(Arguments):
    """What is embedded, by how many workers."""

    photos: str = argument(
        help="The folder of images, with all folders in it, or its URL: s3://, gs://, file://.",
    )
    output_dir: Path = argument(help="The folder of the table.")
    model_name_or_path: str = argument(help="A dual encoder.", aliases=("--model",))
    num_workers: int = argument(2, "Processes that each have the model.", least=1)
    num_gpus: float = argument(0.0, "GPUs of each worker.", least=0)
    batch_size: int = argument(64, "Images in a batch.", least=1)


class Worker:
    """
    Embeds batches of files, in a process of its own.

    Args:
        name (`str`): The model.
        device (`str`): Where it computes.
    """

    def __init__(self, name: str, device: str):
        self.encoder = load_encoder(name, LoadingArguments(device=device))
        reader = TableReader(["image"], formats=SAFE_FORMATS, resizing=self.encoder.preprocessing.resizing)
        self.collate = RowCollator(self.encoder.preprocessing, reader)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Returns, under `row`, rows of the table whose keys are the paths of the files."""
        rows = []
        for path, content in zip(batch["path"], batch["bytes"]):
            info = RowInfo(None, path, file_facts={"size": len(content)})
            rows.append((info, {"image": {"path": None, "bytes": content}}))
        found = []
        for embedded in embed_rows(self.encoder, [self.collate(rows)]):
            found += to_rows(embedded, self.encoder.model)
        for row in found:
            if "embedding" in row:
                row["embedding"] = row["embedding"].tolist()
        return {"row": found}


def open_store(photos: str) -> tuple[FileSystem, str, str]:
    """
    Returns the file system of a folder or URL, the path in it, and how the index calls it.

    Raises:
        `ValueError`: if there is no such folder, or no such kind of URL.
    """
    if "://" in photos:
        source = photos.rstrip("/")
        filesystem, path = FileSystem.from_uri(source)
    else:
        source = str(Path(photos).resolve())
        filesystem = LocalFileSystem()
        path = source
    if filesystem.get_file_info(path).type != FileType.Directory:
        raise ValueError("there is no such folder")
    return filesystem, path, source


def read_local_file(row: dict) -> dict:
    """Returns a row with the content of the file that its `path` names."""
    return row | {"bytes": Path(row["path"]).read_bytes()}


def read_files(filesystem: FileSystem, folder: str, images: list[str] | None) -> ray.data.Dataset:
    """
    Returns the `images` of a local folder, or all those in a store, each with its `path` and its content, `bytes`,
    which processes of Ray read.
    """
    if images is not None:
        return ray.data.from_items([{"path": path} for path in images]).map(read_local_file)
    endings = sorted(ending.removeprefix(".") for ending in SAFE_EXTENSIONS)
    return ray.data.read_binary_files(folder, filesystem=filesystem, include_paths=True, file_extensions=endings)


def to_table_row(found: dict, folder: str) -> dict:
    """Returns the row of the table that a worker has found, known by the path in the folder."""
    row = found | {"key": str(PurePosixPath(found["key"]).relative_to(folder))}
    # Ray gives all rows the same columns
    if row.get("embedding") is None:
        row.pop("embedding", None)
    else:
        row["embedding"] = torch.tensor(row["embedding"])
    return row


def main() -> None:
    (args,) = parse((RayArguments,), description=__doc__)
    images = None
    try:
        filesystem, folder, source = open_store(args.photos)
        if isinstance(filesystem, LocalFileSystem):
            images = list_images(folder)  # Ray's own list follows links
    except (OSError, ValueError) as error:
        raise ValueError(f"--photos {args.photos} cannot be read: {error}; name the folder of your images.") from error
    encoder = load_encoder(args.model_name_or_path, LoadingArguments(device="cpu"))
    encoder.check_single_embeddings()
    settings = encoder.settings() | {"kinds": ["image"], "source": source}
    table = EmbeddingTable.create(args.output_dir, encoder.dim, settings, note_model(encoder), dtype="float16")

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells nobody that it was started
    device = "cuda" if args.num_gpus > 0 else "cpu"
    rows = read_files(filesystem, folder, images).map_batches(
        Worker,
        fn_constructor_args=(args.model_name_or_path, device),
        batch_size=args.batch_size,
        compute=ray.data.ActorPoolStrategy(size=args.num_workers),
        num_cpus=CPUS_OF_WORKER,
        num_gpus=args.num_gpus or None,
    )
    with table.writing():
        found = (to_table_row(row["row"], folder) for row in rows.iter_rows())
        for written in batched(found, BATCHES_PER_WRITE * args.batch_size):
            table.delete([row["key"] for row in written])
            table.append(written)
        maintain(table, lambda: embed_background(encoder))
    print(f"{len(table):,} images are in {args.output_dir}; {len(table.unreadable):,} cannot be read.")


if __name__ == "__main__":
    with exit_on_error("embed_on_ray.py"):
        main()
