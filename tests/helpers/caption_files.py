"""Files of captions by two captioners."""

import hashlib

import pyarrow as pa


PROMPT = "Describe this image in detail."
BOAT = "A red boat lies on the beach, half in the sand. Behind it the sea is calm."


def make_rows() -> list[dict]:
    """Two captioners on 12 images: a caption of six images, two of the same file, a failure, a mark, a refusal."""
    rows = []
    for image in range(12):
        texts = {"blip": f"Picture number {image} of a boat.", "llava": f"The image shows boat {image}. {BOAT}"}
        if image < 6:
            texts["blip"] = "A picture of some things."
        for captioner, caption in texts.items():
            digest = hashlib.sha256(str(max(image, 1)).encode()).hexdigest()  # 0 and 1 are the same file
            row = {"key": f"{image:04}", "url": None, "sha256": digest, "caption": caption, "captioner": captioner}
            row |= {"revision": None, "prompt": PROMPT, "generation_settings": "{}", "num_tokens": image}
            rows.append(row | {"rejected_by": None, "error": ""})
    rows[21] |= {"caption": None, "error": "timeout"}
    rows[23] |= {"rejected_by": "of_the_past"}
    rows[19] |= {"caption": "I cannot see the image."}
    return rows


SCHEMA = pa.schema(
    [(name, pa.int64() if name == "num_tokens" else pa.string()) for name in make_rows()[0]], metadata={"note": "kept"}
)
