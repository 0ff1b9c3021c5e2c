"""Files of captions through the rules."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from transformers import AutoModel, AutoProcessor

from modeling_lotlip.captioning.arguments import FilterArguments, RuleArguments, SimilarityArguments
from modeling_lotlip.captioning.filter import CaptionFilter, find_files
from modeling_lotlip.data.caption_files import CaptionFiles
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.utils.sub_captions import join_sub_captions, split_sub_captions
from tests.helpers.caption_files import BOAT, SCHEMA, make_rows


def read_folder(folder: Path) -> list[dict]:
    paths = sorted(folder.glob("*.parquet"))
    assert [path.name for path in paths] == ["0.parquet", "1.parquet"]
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


def test_files(captions_dir, run, tmp_path):
    report = run(captions_dir / "*.parquet", "out")
    before, after = make_rows(), read_folder(tmp_path / "out")
    expected = [None] * 24
    expected[19], expected[23] = "refusal", "of_the_past"
    for place in range(0, 12, 2):  # of the images 0 to 5, of which 0 and 1 are one
        expected[place] = "duplicate"
    assert [row["rejected_by"] for row in after] == expected
    for old, new in zip(before, after):
        assert {**old, "caption": None, "rejected_by": None} == {**new, "caption": None, "rejected_by": None}
    assert after[1]["caption"] == f"Boat 0. {BOAT}" and after[21]["caption"] is None
    assert after[19]["caption"] == before[19]["caption"] and after[23]["caption"] == before[23]["caption"]
    assert report["llava"] == {
        "num_captions": 12,
        "num_failed": 1,
        "num_unmeasured": 0,
        "num_kept": 9,
        "rejected": {"refusal": 1, "of_the_past": 1},
        "changed": {"announcement": 9},
    }
    assert report["blip"]["num_kept"] == 6

    # a second time nothing changes
    again = run(tmp_path / "out" / "*.parquet", "again")
    assert read_folder(tmp_path / "again") == after
    assert again == {name: {**of, "changed": {}} for name, of in report.items()}
    # and the files are read as caption files
    captions = CaptionFiles([str(tmp_path / "out" / "*.parquet")], "key", ["caption"])
    assert captions["0005"] == [f"Boat 5. {BOAT}"] and captions["0011"] == ["Picture number 11 of a boat."]
    assert parquet.read_schema(tmp_path / "out" / "0.parquet").equals(SCHEMA, check_metadata=True)


def test_other_files(run, tmp_path):
    """Columns of another name, and none of what `lotlip recaption` writes beside the caption."""
    table = pa.table({"id": [1, 2], "text": [f"The image shows a dog. {BOAT}", "Dog."], "box": [[1, 2], []]})
    parquet.write_table(table, tmp_path / "other.parquet")
    report = run(tmp_path / "other.parquet", "out", caption_column="text", min_words=2)
    assert report["captions"]["num_kept"] == 1
    assert parquet.read_table(tmp_path / "out" / "other.parquet").to_pylist() == [
        {"id": 1, "text": f"A dog. {BOAT}", "box": [1, 2], "rejected_by": None},
        {"id": 2, "text": "Dog.", "box": [], "rejected_by": "too_short"},
    ]
    with pytest.raises(ValueError, match="`--caption_column caption` is no column .* has .*'text'"):
        run(tmp_path / "other.parquet", "out")


@pytest.mark.parametrize("images, is_marked", [("abc", False), ("abcab", False), ("abcd", True)])
def test_duplicates_are_those_of_more_than_three_images(run, tmp_path, images, is_marked):
    """By one captioner: that another says the same is no fault."""
    rows = [{"captioner": "llava", "sha256": image, "caption": BOAT} for image in images]
    rows += [{"captioner": "blip", "sha256": "e", "caption": BOAT}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    run(tmp_path / "rows.parquet", "out")
    marks = parquet.read_table(tmp_path / "out" / "rows.parquet").column("rejected_by").to_pylist()
    assert marks == ["duplicate" if is_marked else None] * len(images) + [None]


def test_files_of_the_same_name_are_refused(captions_dir, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.parquet").write_bytes((captions_dir / "0.parquet").read_bytes())
    patterns = [str(captions_dir / "*.parquet"), str(tmp_path / "b" / "*")]
    with pytest.raises(ValueError, match="Several of `--captions` have the same name"):
        find_files(patterns, tmp_path / "out")
    # named by two patterns, a file is one
    assert find_files([patterns[0], str(captions_dir / "0.*t")], tmp_path / "out") == [
        captions_dir / "0.parquet",
        captions_dir / "1.parquet",
    ]


def test_bad_files(captions_dir, run, tmp_path):
    (captions_dir / "1.parquet").write_bytes((captions_dir / "1.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match="1.parquet cannot be read, it is damaged or cut off"):
        run(captions_dir / "*.parquet", "out")
    assert not (tmp_path / "out").exists()  # nothing by halves
    with pytest.raises(ValueError, match="names no file"):
        run(captions_dir / "*.csv", "out")
    with pytest.raises(ValueError, match="is the folder of"):
        run(captions_dir / "0.parquet", "captions")
    parquet.write_table(SCHEMA.empty_table(), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="have no rows"):
        run(tmp_path / "empty.parquet", "empty")
    parquet.write_table(pa.table({"caption": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match="`--caption_column caption` of .* must hold strings, not int64"):
        run(tmp_path / "numbers.parquet", "numbers")
    run(captions_dir / "0.parquet", "out")
    with pytest.raises(ValueError, match="holds other captions, such as 0.parquet"):
        run(tmp_path / "empty.parquet", "out")


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

    def read_rows(folder: str) -> dict:
        rows = parquet.read_table(tmp_path / folder / "captions.parquet").to_pylist()
        return {(row["captioner"], row["sha256"]): row for row in rows}

    rule = "image_text_similarity"
    report = run(tmp_path / "captions.parquet", "out", **options, min_image_text_similarity=threshold)
    for place, row in read_rows("out").items():
        assert row[rule] == pytest.approx(expected.get(place), abs=1e-5)
        assert row["rejected_by"] == (rule if place in expected and expected[place] < threshold else None)
    # of the image that is not in the data set nothing is measured
    assert {name: of["num_unmeasured"] for name, of in report.items()} == {"blip": 1, "llava": 1}
    # images outside the part that was read are unmeasured, too
    limits = {"max_train_samples": 3, "min_image_text_similarity": -1, "reject_unmeasured": True}
    few = run(tmp_path / "captions.parquet", "few", **options, **limits)
    assert {place[1] for place, row in read_rows("few").items() if row["rejected_by"] is None} == set(digests[:3])
    assert few["llava"]["num_unmeasured"] == few["llava"]["rejected"][rule] == 5 and few["llava"]["num_kept"] == 3
    with pytest.raises(ValueError, match=f"`--dual_encoder {tmp_path}` cannot be used"):
        run(tmp_path / "captions.parquet", "few", **options | {"dual_encoder": str(tmp_path)})
    with pytest.raises(ValueError, match="None of 8 images has a caption"):
        run(tmp_path / "captions.parquet", "none", **options | {"file_key_column": "captioner"})


def test_what_is_not_a_number_is_unmeasured():
    options = {"dual_encoder": "model", "min_image_text_similarity": 0.3}
    captions = CaptionFilter(
        FilterArguments(["captions.parquet"], Path("out")), RuleArguments(), SimilarityArguments(**options)
    )
    captions.similarities = {("1", BOAT): float("nan"), ("2", BOAT): 0.5, ("3", BOAT): 0.25}
    rows = [{"key": key, "caption": BOAT, "rejected_by": None} for key in (1, 2, 3, 4)]
    captions.compare(rows)
    assert [row["rejected_by"] for row in rows] == [None, None, "image_text_similarity", None]
    assert [row["image_text_similarity"] for row in rows] == [None, 0.5, 0.25, None]
