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
"""
Images and their captions, those in side files too, in webdataset shards, which training streams.

    python examples/pack_webdataset.py --output_dir shards --dataset_name imagefolder --data_dir my_photos \
        --side_files "captions/*.parquet" --side_key_column sha256 --key_column image
    accelerate launch examples/train_lotlip.py --dataset_name webdataset --data_files "shards/*.tar" --streaming \
        --image_column jpg --caption_column caption.json --long_captions_column long_captions.json ...
"""

import argparse
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from datasets import Dataset, IterableDataset
from PIL import Image
from tqdm.auto import tqdm

from ..data.arguments import HelpFormatter, add_data_arguments, add_side_file_arguments
from ..data.captions import CaptionReader
from ..data.images import UnreadableImageError, read_file, read_image, undecoded
from ..data.loading import get_columns, load_split
from ..data.rows import find_key, read_url
from ..files import written_whole


FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
QUALITY = 95  # of images that are written anew


def as_format(content: bytes, image_format: str) -> tuple[bytes, bool]:
    """
    An image file in one of `FORMATS`, as it is where it has it, and whether it had to be written anew, upright in RGB.

    Raises:
        `UnreadableImageError`: if the file is no image.
    """
    image = read_image({"bytes": content, "path": None})
    if Image.open(io.BytesIO(content)).format == FORMATS[image_format]:
        return content, False
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[image_format], quality=QUALITY)
    return buffer.getvalue(), True


def pack_row(row: dict, reader: CaptionReader, args: argparse.Namespace, counts: Counter) -> dict[str, bytes] | None:
    """
    The members of a sample by their extensions, None where there is no image or no caption. `datasets` takes the types
    of a shard from its first samples: all have the same members, and blank text, which training skips, for what is
    not there.
    """
    short, long = reader.short_captions(row), reader.long_captions(row)
    if not short and not long:
        counts["without a caption were left out"] += 1
        return None
    try:
        content = read_file(row[args.image_column])
        image, is_new = as_format(content, args.image_format)
    except UnreadableImageError:
        counts["with an image that cannot be read were left out"] += 1
        return None
    counts[f"were not in the format {args.image_format} and written anew"] += is_new
    counts["packed"] += 1
    sha256 = hashlib.sha256(content).hexdigest()
    about = {"key": find_key(row, args, args.key_column) or sha256, "url": read_url(row) or "", "sha256": sha256}
    captions = {"caption": short or [""], "long_captions": long or [""]}
    has_captions = {"caption": reader.short_column is not None, "long_captions": reader.has_long_captions}
    captions = {name: texts for name, texts in captions.items() if has_captions[name]}
    members = {"json": about | captions, **{f"{name}.json": texts for name, texts in captions.items()}}
    return {args.image_format: image} | {name: json.dumps(value).encode() for name, value in members.items()}


def write_tar(samples: Iterable[tuple[int, dict[str, bytes]]], path: Path) -> None:
    """Writes a shard, whole or not at all."""
    with written_whole(path) as partial, tarfile.open(partial, "w") as tar:
        for number, members in samples:
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{number:09d}.{extension}")  # a key of the data may have dots and slashes
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def pack(dataset: Dataset | IterableDataset, args: argparse.Namespace) -> Counter:
    """
    Writes the images and captions of a data set as shards, and counts its rows by what became of them.

    Raises:
        `ValueError`: if there is no caption, or there are shards in the folder.
    """
    if list(args.output_dir.glob("*.tar")):
        raise ValueError(f"`--output_dir {args.output_dir}` holds shards: delete them, or name another folder.")
    dataset = undecoded(dataset, args.image_column)
    reader = CaptionReader(get_columns(dataset), args, args, args.image_column)
    counts = Counter()

    def samples() -> Iterator[dict[str, bytes]]:
        for row in tqdm(dataset, desc="Packing", unit=" images"):
            members = pack_row(row, reader, args, counts)
            if members is not None:
                yield members

    args.output_dir.mkdir(parents=True, exist_ok=True)
    numbered, shard = enumerate(samples()), 0
    while part := list(islice(numbered, args.shard_size)):
        write_tar(part, args.output_dir / f"{shard:05d}.tar")
        shard += 1
    if shard == 0:
        raise ValueError(f"There is nothing to pack: {dict(counts)}. Name the right columns, keys and `--side_files`.")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_data_arguments(parser)
    add_side_file_arguments(parser)
    parser.add_argument("--output_dir", type=Path, required=True, help="The folder of the shards.")
    parser.add_argument("--shard_size", type=int, default=1000, help="Images in a shard.")
    parser.add_argument(
        "--image_format",
        choices=FORMATS,
        default="jpg",
        help="Files in this format are kept byte by byte, others are written anew: a column has one format.",
    )
    args = parser.parse_args()
    if args.shard_size < 1:
        parser.error(f"`--shard_size {args.shard_size}` must be at least 1.")
    counts = pack(load_split(args, args.train_split, args.max_train_samples), args)
    print(f"{args.output_dir} holds {counts.pop('packed')} images.")
    for what, number in counts.items():
        if number:
            print(f"{number} {what}.")


if __name__ == "__main__":
    main()
