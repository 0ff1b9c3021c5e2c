"""Files of captions by two captioners."""

import hashlib

import pyarrow as pa


PROMPT = "Describe this image in detail."
BOAT = "A red boat lies on the beach, half in the sand. Behind it the sea is calm."


def make_rows() -> list[dict]:
    """Two captioners on 12 images: a caption of six images, two of the same file, a failure, a mark, a refusal."""
    rows = []
    for image in range(12):
        short = f"Picture number {image} of a boat."
        if image < 6:
            short = "A picture of some things."
        content = str(max(image, 1)).encode()  # 0 and 1 are the same file
        for captioner, caption in (("blip", short), ("llava", f"The image shows boat {image}. {BOAT}")):
            row = {
                "key": f"{image:04}",
                "url": None,
                "sha256": hashlib.sha256(content).hexdigest(),
                "caption": caption,
                "captioner": captioner,
                "revision": None,
                "prompt": PROMPT,
                "generation_settings": "{}",
                "num_tokens": image,
                "rejected_by": None,
                "error": "",
            }
            rows.append(row)
    rows[21] |= {"caption": None, "error": "timeout"}
    rows[23] |= {"rejected_by": "of_the_past"}
    rows[19] |= {"caption": "I cannot see the image."}
    return rows


TYPES = dict.fromkeys(make_rows()[0], pa.string())
TYPES["num_tokens"] = pa.int64()
SCHEMA = pa.schema(TYPES.items(), metadata={"note": "kept"})
