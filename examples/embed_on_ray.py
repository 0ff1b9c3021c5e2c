# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
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
import torch
from modeling_lotlip.encoder.features import prepare_images
from modeling_lotlip.encoder.models import load_model
from pyarrow.fs import FileSystem, FileType, LocalFileSystem

from modeling_lotlip.data.images import SAFE_EXTENSIONS, SAFE_FORMATS, Resizing, UnreadableImageError, read_image
from modeling_lotlip.data.rows import batched
from modeling_lotlip.encoder.arguments import LoadingArguments
from modeling_lotlip.encoder.batches import describe_file, embed_images
from modeling_lotlip.search.index import list_images
from modeling_lotlip.table.embed import embed_background, note_model
from modeling_lotlip.table.storage import EmbeddingTable, model_settings
from modeling_lotlip.table.thresholds import maintain
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse


@dataclass
class RayArguments(Arguments):
    """What is embedded, by how many workers."""

    photos: str = argument(help="The folder of images, with all folders in it, or its URL: s3://, gs://, file://.")
    output_dir: Path = argument(help="The folder of the table.")
    model_name_or_path: str = argument(help="A dual encoder.", aliases=("--model",))
    num_workers: int = argument(2, "Processes that each have the model.", least=1)
    num_gpus: float = argument(0.0, "GPUs of each worker.", least=0)
    batch_size: int = argument(64, "Images in a batch.", least=1)


class Worker:
    """Embeds batches of files, in a process of its own."""

    def __init__(self, name: str, num_gpus: float):
        self.model, self.processor = load_model(name, LoadingArguments(device="cuda" if num_gpus > 0 else "cpu"))
        self.resizing = Resizing.of(self.processor.image_processor)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        rows, inputs = [], []
        for path, content in zip(batch["path"], batch["bytes"]):
            row = {"path": path, "size": len(content), **describe_file(content, SAFE_FORMATS)}
            try:
                image = read_image({"bytes": content}, resizing=self.resizing, formats=SAFE_FORMATS)
                inputs.append(prepare_images(self.processor, [image]))
                rows.append(row)
            except UnreadableImageError as error:
                rows.append(row | {"problem": str(error)})
        if inputs:
            stacked = {name: torch.cat([each[name] for each in inputs]) for name in inputs[0]}
            embeds = iter(embed_images(self.model, stacked).tolist())
            rows = [row if "problem" in row else row | {"embedding": next(embeds)} for row in rows]
        return {"row": rows}


def open_store(photos: str) -> tuple[FileSystem, str, str]:
    """The file system of a folder or URL, the path in it, and how the index calls the place."""
    if "://" not in photos:
        path = source = str(Path(photos).resolve())
        filesystem = LocalFileSystem()
    else:
        source = photos.rstrip("/")
        filesystem, path = FileSystem.from_uri(source)
    if filesystem.get_file_info(path).type != FileType.Directory:
        raise ValueError("there is no such folder")
    return filesystem, path, source


def make_row(found: dict, folder: str) -> dict:
    """The row of the table of a file."""
    found["key"] = str(PurePosixPath(found.pop("path")).relative_to(folder))
    return found | ({"embedding": torch.tensor(found["embedding"])} if found.get("embedding") else {})


def main() -> None:
    (args,) = parse((RayArguments,), description=__doc__)
    try:
        filesystem, folder, source = open_store(args.photos)
        is_local = isinstance(filesystem, LocalFileSystem)
        images = list_images(folder) if is_local else None  # Ray's own list follows links
    except (OSError, ValueError) as error:
        raise SystemExit(f"--photos {args.photos} cannot be read: {error}. Name the folder of your images.") from error
    model, processor = load_model(args.model_name_or_path, LoadingArguments(device="cpu"))
    settings = model_settings(model, processor) | {"kinds": ["image"], "source": source}
    size = processor.image_processor.crop_size or processor.image_processor.size
    dim = embed_images(model, {"pixel_values": torch.zeros(1, 3, size["height"], size["width"])}).shape[-1]
    table = EmbeddingTable.create(args.output_dir, dim, settings, note_model(model), dtype="float16")

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells nobody that it was started
    endings = sorted(ending.removeprefix(".") for ending in SAFE_EXTENSIONS)
    if images is None:
        files = ray.data.read_binary_files(folder, filesystem=filesystem, include_paths=True, file_extensions=endings)
    else:
        files = ray.data.from_items([{"path": path} for path in images])
        files = files.map(lambda row: row | {"bytes": Path(row["path"]).read_bytes()})
    rows = files.map_batches(
        Worker,
        fn_constructor_args=(args.model_name_or_path, args.num_gpus),
        batch_size=args.batch_size,
        compute=ray.data.ActorPoolStrategy(size=args.num_workers),
        num_cpus=0.5,  # beside the processes that read
        num_gpus=args.num_gpus or None,
    )
    with table.writing():
        for found in batched((make_row(found["row"], folder) for found in rows.iter_rows()), 8 * args.batch_size):
            table.delete([row["key"] for row in found])
            table.append(found)
        maintain(table, lambda: embed_background(model, processor))
    print(f"{len(table):,} images are in {args.output_dir}; {len(table.unreadable):,} cannot be read.")


if __name__ == "__main__":
    with exit_on_error("embed_on_ray.py"):
        main()
