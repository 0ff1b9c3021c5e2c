"""What is measured of a training, and what is left of it: the best model, the summary, the model card."""

import json
import math
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.metrics import ImageTextRetrieval
from modeling_lotlip.training.arguments import METRICS
from modeling_lotlip.training.monitoring import measure_slots, read_metrics
from tests.helpers.commands import run_command


def test_slots_are_measured_one_by_one():
    generator = torch.Generator().manual_seed(1)
    images = torch.nn.functional.normalize(torch.randn(9, 16, generator=generator), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(9, 7, 16, generator=generator), dim=-1)  # K = 2, m = 2
    texts[[1, 4], 1:4] = 0  # two images lack their first long caption
    texts[1:, 4:] = 0  # only one has a second: its slots are not counted
    present = (texts != 0).any(dim=-1)
    scale = torch.tensor(5.0)
    loss, slot_losses = global_loss(contrastive_loss, images, texts, logit_scale=scale)
    expected = []
    for slot in range(7):
        rows = present[:, slot]
        logits = scale.double() * texts[rows, slot].double() @ images[rows].double().t()
        target = torch.arange(len(logits))
        one_way, other_way = (torch.nn.functional.cross_entropy(x, target) for x in (logits, logits.t()))
        expected.append((one_way + other_way) / 2 if rows.sum() > 1 else torch.tensor(math.nan))
    torch.testing.assert_close(slot_losses, torch.stack(expected).float(), equal_nan=True)
    torch.testing.assert_close(loss, slot_losses[:4].mean())

    measured = measure_slots(slot_losses, num_corner_tokens=2)
    names = ["loss_short", "loss_cls", "loss_corner_1", "loss_corner_2"]
    assert measured == pytest.approx(dict(zip(names, slot_losses[:4].tolist())))


TIMES = ("images_per_second", "tokens_per_second", "data_wait", "memory_gb")


def without_times(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def test_a_resumed_run_has_the_measurements_and_the_best_model_of_the_uninterrupted_one(train, tmp_path):
    options = {"max_train_steps": 12, "eval_steps": 2, "checkpointing_steps": 1, "logging_steps": 3}
    options |= {"metric_for_best_model": "zero_shot_top5", "learning_rate": 3e-3}
    whole = train("whole", **options)
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [3, 6, 9, 12]
    evaluations = {row["step"]: row["zero_shot_top5"] for row in rows if "zero_shot_top5" in row}
    assert list(evaluations) == [2, 4, 6, 8, 10, 12]
    assert all(0 <= row["data_wait"] <= 1 and row["tokens_per_second"] > 0 for row in rows if "loss" in row)
    for row in (row for row in rows if "loss" in row):
        slots = [row[f"loss_{name}"] for name in ("short", "cls", "corner_1", "corner_2")]
        assert row["loss"] == pytest.approx(sum(slots) / 4, rel=1e-5)
    best_step = max(evaluations, key=evaluations.get)  # the first of the best
    best, checkpoint = (load_file(whole / name / "model.safetensors") for name in ("best", f"checkpoint-{best_step}"))
    assert checkpoint.keys() == {f"model.{name}" for name in best}
    assert all(torch.equal(best[name], checkpoint[f"model.{name}"]) for name in best)
    told = json.loads((whole / "best" / "eval_results.json").read_text())
    assert told["zero_shot_top5"] == evaluations[best_step]

    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "best")
    for step in range(2, 13):
        shutil.rmtree(stopped / f"checkpoint-{step}")
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write('{"step": 13, "lo')  # killed while it wrote
    resumed = train("stopped", **options, resume_from_checkpoint="latest")
    assert without_times(read_metrics(resumed / "metrics.jsonl")) == without_times(rows)
    for part in (".", "best"):
        weights, expected = (load_file(folder / part / "model.safetensors") for folder in (resumed, whole))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_the_model_card_carries_the_evaluation_for_the_hub(train):
    folder = train("carded", max_train_steps=2)
    results = json.loads((folder / "eval_results.json").read_text())
    card = ModelCard.load(folder / "README.md")
    told = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert told == {name: value for name, value in results.items() if "_num_" not in name}
    tasks = {result.metric_type: result.task_type for result in card.data.eval_results}
    assert tasks["zero_shot_top1"] == "zero-shot-image-classification"
    assert tasks["long_t2i_recall@1"] == "image-text-retrieval"
    assert {result.dataset_name for result in card.data.eval_results} == {"drawn scenes"}
    assert "| `max_train_steps` | 2 |" in card.text and "| `objective` | lotlip |" in card.text


def test_zero_shot_classification_is_that_of_the_command(train, tmp_path):
    folder = train("classified", max_train_steps=3, templates="this is a {}", max_eval_samples=40)
    options = ["--model", folder, "--max_eval_samples", 40, "--templates", "this is a {}"]
    expected = run_command("classify", tmp_path / "results.json", *options)
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["zero_shot_top1"] == expected["top1"] and results["zero_shot_top5"] == expected["top5"]


def test_the_best_model_is_kept_anew_for_another_metric(train, tmp_path):
    options = {"checkpointing_steps": 2, "eval_steps": 2, "logging_steps": 1}
    first = train("first", **options, max_train_steps=4, metric_for_best_model="zero_shot_top5")
    shutil.copytree(first / "checkpoint-2", tmp_path / "second" / "checkpoint-2")
    options |= {"resume_from_checkpoint": "latest", "metric_for_best_model": "short_i2t_median_rank"}
    second = train("second", **options, max_train_steps=4)
    best = json.loads((second / "best" / "eval_results.json").read_text())
    ranks = [row["short_i2t_median_rank"] for row in read_metrics(second / "metrics.jsonl") if "zero_shot_top1" in row]
    assert best["short_i2t_median_rank"] == min(ranks)


def test_paths_of_this_machine_are_not_in_the_model_card(train, tmp_path):
    load_scenes(24, seed=2).save_to_disk(tmp_path / "private" / "pictures")
    options = {"dataset_name": tmp_path / "private" / "pictures", "eval_split": "train", "max_train_steps": 1}
    card = (train("carded", **options, max_train_samples=None) / "README.md").read_text()
    assert "pictures" in card and str(tmp_path) not in card and "private" not in card


@pytest.mark.parametrize("streaming", [False, True])
def test_an_evaluation_on_the_training_data_is_told(train, tmp_path, caplog, streaming):
    if streaming:
        load_scenes(60, seed=2).to_parquet(tmp_path / "rows.parquet")
        vocab = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])}
        LotlipTokenizer(vocab=vocab).save_pretrained(tmp_path / "tokenizer")
        options = {"dataset_name": "parquet", "data_files": tmp_path / "rows.parquet", "eval_split": "train"}
        options |= {"streaming": True, "tokenizer_name": tmp_path / "tokenizer"}
        told, share = "1 of 1 files of the evaluation data are trained on too", 1.0
    else:
        options = {"train_split": "train[:60]", "eval_split": "train[54:66]", "max_train_samples": None}
        told, share = "6 of 12 images of the evaluation data are trained on too", 0.5
    folder = train("run", **options, max_train_steps=1)
    assert caplog.text.count(told) == 1
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["share_trained_on"] == share
    card = ModelCard.load(folder / "README.md")
    assert f"The model was trained on {100 * share:.3g} per cent of this data" in card.text
    assert "share_trained_on" not in {result.metric_type for result in card.data.eval_results}
    with pytest.raises(ValueError, match=f"knows the training data best: {told}. Give "):
        train("best", **options, max_train_steps=1, metric_for_best_model="long_mean_recall")
    assert not (tmp_path / "best").exists()


def test_an_evaluation_on_held_back_rows_is_as_before(train, caplog):
    options = {"train_split": "test[:50%]", "eval_split": "test[50%:]", "split_seed": 0, "max_train_steps": 1}
    folder = train("run", **options, metric_for_best_model="long_mean_recall")
    assert "trained on" not in caplog.text and "trained on 0" not in (folder / "README.md").read_text()
    assert "share_trained_on" not in json.loads((folder / "eval_results.json").read_text())


def test_a_result_that_cannot_be_measured_chooses_no_model(train, tmp_path):
    load_scenes(24, seed=2).remove_columns("long_captions").save_to_disk(tmp_path / "short")
    options = {"dataset_name": tmp_path / "short", "eval_split": "train", "max_train_steps": 1}
    with pytest.raises(ValueError, match="has no long captions"):
        train("run", **options, metric_for_best_model="long_mean_recall")
    assert not (tmp_path / "run").exists()


def test_every_result_can_choose_the_best_model():
    results = ImageTextRetrieval().compute(image_embeds=torch.eye(3), text_embeds=torch.eye(3), ks=(1, 5, 10))
    assert all(METRICS.fullmatch(f"{kind}_{name}") for kind in ("short", "long") for name in results)
    assert METRICS.fullmatch("zero_shot_top1") and not METRICS.fullmatch("loss")


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        ({"logging_steps": 0}, SystemExit, None),
        ({"image_column": "picture"}, ValueError, "--image_column picture"),
        ({"caption_column": "x", "long_captions_column": "y"}, ValueError, "Neither `--caption_column x`"),
        ({"long_captions_column": "y"}, ValueError, "`--long_captions_column y` is no column"),
        ({"label_column": "y", "metric_for_best_model": "zero_shot_top1"}, ValueError, "no class labels"),
        ({"label_column": "y", "class_names": "boat"}, ValueError, "`--label_column y` is no column"),
        ({"label_column": "y"}, ValueError, "`--label_column y` is no column of .*'label'"),
        ({"label_column": "caption"}, ValueError, "`--label_column caption` does not name its classes"),
        ({"caption_column": "titel"}, ValueError, "`--caption_column titel` is no column of .*'long_captions'"),
        ({"max_train_samples": 7}, ValueError, "7 images, too few for one batch of 8"),
        ({"eval_split": "validation"}, ValueError, "no split 'validation' but 'train', 'test'"),
        ({"objective": "filip", "class_names": "boat"}, ValueError, "--objective filip` trains no single embedding"),
        ({"cache_image_features": True, "no_freeze_vision_model": True}, ValueError, "for a frozen image tower"),
        ({"overwrite_output_dir": None}, ValueError, "of an earlier run. Resume it"),
        ({"max_length": 2}, ValueError, "leaves no room for a text"),
        ({"with_tracking": True, "report_to": "wandb"}, ValueError, "`--report_to wandb` is not installed"),
        ({"with_tracking": True, "report_to": "nosuch"}, ValueError, "`--report_to nosuch` is not installed"),
        ({"mixed_precision": "fp16"}, ValueError, "`--mixed_precision fp16` needs an accelerator"),
        (
            {"objective": "clip", "caption_column": ""},
            ValueError,
            "name their column with `--caption_column`, or draw",
        ),
        (
            {"overwrite_output_dir": None, "resume_from_checkpoint": "nope"},
            ValueError,
            "`--resume_from_checkpoint nope` is no folder of a checkpoint",
        ),
        ({"push_to_hub": True, "hub_model_id": "no name!"}, ValueError, "Repo id must"),
    ],
)
def test_an_error_comes_before_an_earlier_run_is_overwritten(train, tmp_path, wrong, error, message):
    earlier = tmp_path / "run" / "model.safetensors"
    earlier.parent.mkdir()
    earlier.write_bytes(b"precious")
    with pytest.raises(error, match=message):
        train("run", **({"overwrite_output_dir": True, "max_train_steps": 1} | wrong))
    assert earlier.read_bytes() == b"precious" and list(earlier.parent.iterdir()) == [earlier]
