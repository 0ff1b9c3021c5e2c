"""How similar captions are to their images, computed here in another way."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from transformers import AutoModel, AutoProcessor

from modeling_lotlip.captioning.similarity import Similarities
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions


def test_captions_unlike_their_images(run, tmp_path, model_dir):
    scenes = load_scenes(8, seed=5)
    files = [row["image"]["bytes"] for row in undecoded(scenes, "image")]
    digests = [hashlib.sha256(file).hexdigest() for file in files]
    texts = {"llava": "a photo of a {} boat. the ground is sand.", "blip": "the tree is {} and {}. a house."}
    colors = ["red", "green", "blue", "yellow", "sea", "sand", "house", "tree"]
    rows = [
        {"key": None, "sha256": digest, "captioner": captioner, "caption": text.format(color, color)}
        for captioner, text in texts.items()
        for digest, color in zip([*digests[:7], "f" * 64], colors)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "captions.parquet")
    scenes.save_to_disk(tmp_path / "scenes")
    images = {"dataset_name": str(tmp_path / "scenes"), "key_column": "image", "file_key_column": "sha256"}
    options = {"dual_encoder": str(model_dir), **images, "batch_size": 3}

    model, processor = AutoModel.from_pretrained(model_dir).eval(), AutoProcessor.from_pretrained(model_dir)
    expected = {}
    for row in rows:
        if row["sha256"] in digests:
            image = scenes[digests.index(row["sha256"])]["image"]
            text = join_sub_captions(split_sub_captions(row["caption"]))  # as evaluations read it
            with torch.inference_mode():
                outputs = model(**processor(text=[text], images=image, return_tensors="pt"))
            similarity = torch.cosine_similarity(outputs.text_embeds, outputs.image_embeds).item()
            expected[row["captioner"], row["sha256"]] = similarity
    threshold = sorted(expected.values())[5] + 1e-4

    def read_marks(folder: str) -> dict:
        rows = parquet.read_table(tmp_path / folder / "captions.parquet").to_pylist()
        return {(row["captioner"], row["sha256"]): row["rejected_by"] for row in rows}

    unlike = {place for place, similarity in expected.items() if similarity < threshold}
    report = run(tmp_path / "captions.parquet", "out", **options, min_image_text_similarity=threshold)
    rule = "image_text_similarity"
    assert read_marks("out") == {
        (row["captioner"], row["sha256"]): rule if (row["captioner"], row["sha256"]) in unlike else None
        for row in rows
    }
    # of the image that is not in the data set nothing is measured
    assert {name: of["num_unmeasured"] for name, of in report["captioners"].items()} == {"blip": 1, "llava": 1}
    assert report[rule]["lowest"][0]["similarity"] == pytest.approx(min(expected.values()), abs=1e-5)
    of_llava = [similarity for (captioner, _), similarity in expected.items() if captioner == "llava"]
    assert report[rule]["mean"]["llava"] == pytest.approx(sum(of_llava) / 7, abs=1e-5)
    # without a threshold they are listed only
    listed = run(tmp_path / "captions.parquet", "listed", **options)
    assert listed[rule] == report[rule] and set(read_marks("listed").values()) == {None}
    # images outside the part that was read are unmeasured, too
    limits = {"max_train_samples": 3, "min_image_text_similarity": -1, "reject_unmeasured": True}
    few = run(tmp_path / "captions.parquet", "few", **options, **limits)
    assert {low["key"] for low in few[rule]["lowest"]} == set(digests[:3])
    assert {digest for (_, digest), mark in read_marks("few").items() if mark is None} == set(digests[:3])
    assert few["captioners"]["llava"] | {"changed": None} == {
        "num_captions": 8,
        "num_failed": 0,
        "num_unmeasured": 5,
        "num_kept": 3,
        "rejected": {rule: 5},
        "changed": None,
    }
    with pytest.raises(ValueError, match=f"`--dual_encoder {tmp_path}` cannot be used"):
        run(tmp_path / "captions.parquet", "few", **options | {"dual_encoder": str(tmp_path)})
    with pytest.raises(ValueError, match="None of 8 images has a caption"):
        run(tmp_path / "captions.parquet", "none", **options | {"file_key_column": "captioner"})


def test_what_is_not_a_number_is_unmeasured():
    similarities = Similarities(iter([("a", "boat", 0.5), ("b", "boat", float("nan")), ("a", "car", 0.25)]))
    found = similarities.find(["a", "a", "b", "c"], ["boat", "car", "boat", "boat"])
    np.testing.assert_equal(found, np.array([0.5, 0.25, np.nan, np.nan], dtype=np.float32))
    assert [low["similarity"] for low in similarities.lowest] == [0.25, 0.5]
    assert np.isnan(Similarities(iter([])).find(["a"], ["boat"])).all()
