"""Lengths, agreement and similarities of captions, each computed here in another way."""

import hashlib

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from transformers import AutoModel, AutoProcessor, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from modeling_lotlip.captioning.arguments import FilterArguments
from modeling_lotlip.captioning.files import read_rows
from modeling_lotlip.captioning.measures import measure_lengths
from modeling_lotlip.data.images import undecoded
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions
from tests.helpers.caption_files import make_rows


def test_report_of_lengths_and_agreement(captions_dir, run, tmp_path):
    words = sorted({word for row in make_rows() for word in (row["caption"] or "").lower().split()})
    vocab = {
        word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words])
    }
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**small, vocab_size=len(vocab), initializer_range=0.5)).save_pretrained(tmp_path / "bert")
    BertTokenizer(vocab=vocab).save_pretrained(tmp_path / "bert")
    options = {"report": True, "tokenizer_path": str(tmp_path / "bert"), "text_model": str(tmp_path / "bert")}
    report = run(captions_dir / "*.parquet", "out", **options, num_lowest=2)
    assert (tmp_path / "out" / "report" / "lengths.png").stat().st_size > 1000
    rows = [row for path in sorted((tmp_path / "out").glob("*.parquet")) for part in read_rows(path) for row in part]
    kept = [row for row in rows if row["caption"] and not row["rejected_by"]]
    for captioner, statistics in report["statistics"].items():
        rows = [row for row in kept if captioner in ("all", row["captioner"])]
        assert statistics["num_images"] == len({row["key"] for row in rows}) and statistics["num_texts"] == len(rows)
        split = [len(split_sub_captions(row["caption"])) for row in rows]
        assert statistics["sub_captions_per_text"] == pytest.approx(sum(split) / len(rows))

    model, tokenizer = AutoModel.from_pretrained(tmp_path / "bert"), AutoTokenizer.from_pretrained(tmp_path / "bert")
    pairs = {}
    for row in kept:
        text = join_sub_captions(split_sub_captions(row["caption"]))
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        pairs.setdefault(row["key"], []).append(states.mean(dim=0))
    scores = {key: torch.cosine_similarity(*both, dim=0).item() for key, both in pairs.items() if len(both) == 2}
    agreement = report["agreement"]["blip / llava"]
    assert agreement["num_images"] == len(scores)
    assert agreement["mean"] == pytest.approx(sum(scores.values()) / len(scores), abs=1e-5)
    lowest = sorted(scores.values())[:2]
    assert [low["similarity"] for low in agreement["lowest"]] == pytest.approx(lowest, abs=1e-5)
    # of fewer images, the same ones in every run
    for _ in range(2):
        few = run(captions_dir / "*.parquet", "out", **options, max_report_images=3)["agreement"]
        assert few["blip / llava"]["num_images"] <= 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="--text_model .*empty` cannot be used"):
        run(captions_dir / "*.parquet", "out", **options | {"text_model": str(tmp_path / "empty")})
    with pytest.raises(
        ValueError, match="--text_model .* cannot be used: it is no dual encoder, which `--truncate_dim`"
    ):
        run(captions_dir / "*.parquet", "out", **options, truncate_dim=8)


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
    images = {"dataset_name": str(tmp_path / "scenes"), "key_column": "image", "side_key_column": "sha256"}
    options = {"dual_encoder": str(model_dir), **images, "batch_size": 3, "eval_split": "train"}

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

    report = run(tmp_path / "captions.parquet", "out", **options, min_image_text_similarity=threshold)
    for row in parquet.read_table(tmp_path / "out" / "captions.parquet").to_pylist():
        is_unlike = expected.get((row["captioner"], row["sha256"]), 1) < threshold
        assert row["rejected_by"] == ("image_text_similarity" if is_unlike else None)
    found = report["image_text_similarity"]
    assert {name: of["num_captions"] for name, of in found["captioners"].items()} == {"blip": 7, "llava": 7}
    assert found["lowest"][0]["similarity"] == pytest.approx(min(expected.values()), abs=1e-5)
    assert not (tmp_path / "out" / ".mended").exists()
    # without a threshold they are listed only
    listed = run(tmp_path / "captions.parquet", "listed", **options, report=True, tokenizer_path=str(model_dir))
    assert listed["image_text_similarity"] == found
    # of fewer images, by either limit
    for limits in ({"max_eval_samples": 3}, {"max_report_images": 3}, {"max_eval_samples": 5, "max_report_images": 3}):
        limits |= {"report": True, "tokenizer_path": str(model_dir)}
        few = run(tmp_path / "captions.parquet", "few", **options, **limits)["image_text_similarity"]
        assert {low["key"] for low in few["lowest"]} == set(digests[:3])
        for low in few["lowest"]:
            assert low["similarity"] == pytest.approx(expected[low["captioner"], low["key"]], abs=1e-5)
    with pytest.raises(ValueError, match=f"`--dual_encoder {tmp_path}` cannot be used"):
        run(tmp_path / "captions.parquet", "few", **options | {"dual_encoder": str(tmp_path)}, report=True)
    with pytest.raises(ValueError, match="None of 8 images has a caption"):
        run(tmp_path / "captions.parquet", "none", **options | {"side_key_column": "captioner"}, report=True)


def test_images_are_counted_by_their_keys(tmp_path, model_dir):
    keys = {"llava": ["a", "a", "b"], "blip": ["b", "c", "c"]}
    rows = [{"key": key, "captioner": name, "caption": "A boat. A dog."} for name, own in keys.items() for key in own]
    rows = [{**row, "rejected_by": None} for row in rows]
    columns = FilterArguments(captions=["*"], output_dir=tmp_path)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "keys.parquet")
    lengths, hashes = measure_lengths([tmp_path / "keys.parquet"], columns, str(model_dir))
    assert {name: of.num_images for name, of in lengths.items()} == {"blip": 2, "llava": 2, "all": 3}
    assert len(hashes) == 3 and list(hashes) == sorted(hashes)
    # without a key each row is an image
    rows[0]["key"] = None
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "no_keys.parquet")
    lengths, hashes = measure_lengths([tmp_path / "no_keys.parquet"], columns, str(model_dir))
    assert {name: of.num_images for name, of in lengths.items()} == {"blip": 3, "llava": 3, "all": 6} and len(
        hashes
    ) == 0
