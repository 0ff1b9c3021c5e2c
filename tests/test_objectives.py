"""The objectives of training: each trains, resumes, and leaves a model that loads as any other."""

import shutil

import pytest
import torch
from monitoring import read_metrics
from objectives import OBJECTIVES
from safetensors.torch import load_file
from transformers import AutoModel


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("with_long_captions", [False, True])
def test_an_objective_trains_and_resumes(train, tmp_path, recwarn, caplog, objective, with_long_captions):
    options = {"objective": objective, "max_train_steps": 6, "logging_steps": 1, "eval_steps": 100}
    options |= {
        "num_long_captions": int(with_long_captions),
        "grad_cache_chunk_size": 3 if with_long_captions else None,
    }
    whole = train("whole", **options, checkpointing_steps=3)
    rows = [row for row in read_metrics(whole / "metrics.jsonl") if "loss" in row]
    assert ("loss_cls" in rows[0]) == with_long_captions
    assert ("loss_corner_1" in rows[0]) == (with_long_captions and objective == "lotlip")

    (tmp_path / "resumed").mkdir()
    shutil.copytree(whole / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    resumed = train("resumed", **options, resume_from_checkpoint="latest")
    weights, expected = (load_file(folder / "model.safetensors") for folder in (resumed, whole))
    assert weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)
    assert ("logit_bias" in weights) == (OBJECTIVES[objective].logit_bias is not None)
    if "logit_bias" in weights:
        assert weights["logit_bias"] != OBJECTIVES[objective].logit_bias, "it is trained"
    caplog.clear()
    model = AutoModel.from_pretrained(whole)
    assert model.config.text_config.num_corner_tokens == (2 if objective == "lotlip" else 0)
    assert "logit_bias" not in caplog.text and not hasattr(model, "logit_bias")


def test_laclip_draws_among_all_captions_of_an_image():
    import argparse

    from data.captions import CaptionReader
    from data.samples import CaptionedImages
    from data.scenes import load_scenes

    args = argparse.Namespace(image_column="image", caption_column="caption", long_captions_column="long_captions")
    args.num_long_captions, args.num_sub_captions, args.seed, args.side_files = 0, 1, 0, None
    args.no_short_captions, args.draw_short_from_all = False, True
    dataset = load_scenes(1).remove_columns(["caption", "long_captions"])
    dataset = dataset.add_column("caption", [["a", "b"]]).add_column("long_captions", [["One. Two", "Three"]])
    samples = CaptionedImages(dataset, args, CaptionReader(args, dataset.column_names))
    drawn = [samples[epoch, 0, False] for epoch in range(200)]
    assert {sample["short_caption"] for sample in drawn} == {"a", "b", "One", "Two", "Three"}
    assert all(sample["long_captions"] == [] for sample in drawn)
