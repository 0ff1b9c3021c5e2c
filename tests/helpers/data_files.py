"""Files of datasets, small and written at once."""

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path

import pandas as pd
import PIL.Image

from modeling_lotlip.data.arguments import SourceArguments
from modeling_lotlip.data.loading import load_split


def write_lines(path: Path, rows: list[dict]) -> str:
    """Writes JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_images(folder: Path, names: list[str]) -> None:
    """Writes equal images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (4, 3), "red").save(folder / name)


def write_shard(path: Path, *samples: dict[str, bytes]) -> Path:
    """Writes a shard of webdataset with the files of each sample, by their names."""
    with tarfile.open(path, "w") as tar:
        for members in samples:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, BytesIO(content))
    return path


def write_json(path: Path, numbers: range) -> str:
    """Writes rows with the column `number` as JSON lines."""
    return write_lines(path, [{"number": number} for number in numbers])


def read_numbers(source: SourceArguments, *args, **options) -> list[int]:
    """Loads a split, and returns its column `number`."""
    return [row["number"] for row in load_split(source, *args, with_images=False, **options)]


def write_captions(folder: Path, name: str, captions: list[str]) -> None:
    """Writes rows with captions to a file whose time is always the same."""
    rows = [{"file_name": f"{index}.png", "caption": caption} for index, caption in enumerate(captions)]
    path = folder / name
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        write_lines(path, rows)
    os.utime(path, ns=(10**18, 10**18))
