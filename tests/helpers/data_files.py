"""Files of datasets, small and written at once."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import PIL.Image


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
