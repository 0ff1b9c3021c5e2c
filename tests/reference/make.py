"""
Makes `reference.npz` and the files beside it out of the whole reference: see README.md.

    python tests/reference/make.py ../shared/reference/tiny
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


WORD_TABLE = "text.transformer.embeddings.word_embeddings.weight"
NUM_WORDS = 30522


def main(source: Path, folder: Path) -> None:
    expected, loss = (load_file(source / f"{name}.safetensors") for name in ("expected", "loss"))
    weights = torch.load(source / "model.pt", weights_only=True)
    arrays = {
        f"weights/{name}": tensor.numpy()
        for name, tensor in weights.items()
        if name.startswith("text.") and name != WORD_TABLE
    }
    arrays["weights/logit_scale"] = weights["logit_scale"].numpy()

    # the words of the texts and the corner tokens; the others are not needed
    ids = torch.cat([expected["input_ids_128"].flatten(), loss["input_ids"].flatten()])
    rows = torch.cat([ids, torch.arange(NUM_WORDS, len(weights[WORD_TABLE]))]).unique()
    arrays["word_rows"], arrays["words"] = rows.numpy(), weights[WORD_TABLE][rows].numpy()

    arrays |= {f"expected/{name}": x.numpy() for name, x in expected.items() if not name.startswith("vision_")}
    arrays |= {f"loss/{name}": x.numpy() for name, x in loss.items() if name != "pixel_values"}
    for name, array in arrays.items():
        if array.dtype == np.int64:
            arrays[name] = array.astype(np.int16)
    pixel_values = load_file(source / "pixel_values.safetensors")["pixel_values"]
    arrays["pixels"] = ((pixel_values * 0.5 + 0.5) * 255).round().to(torch.uint8).numpy()

    np.savez_compressed(folder / "reference.npz", **arrays)
    for name in ("open_clip_config.json", "tokenization.json", "images.json", "loss.json"):
        shutil.copyfile(source / name, folder / name)
    shutil.copytree(source / "images", folder / "images", dirs_exist_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
