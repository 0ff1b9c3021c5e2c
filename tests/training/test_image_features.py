import copy
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from datasets import Dataset, Image
from safetensors.torch import load_file

from modeling_lotlip import LotlipImageProcessor, LotlipModel, LotlipVisionModel
from modeling_lotlip.data.arguments import DatasetArguments
from modeling_lotlip.data.loading import compute_fingerprint, load_split
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.image_features import ImageFeatures, cache_image_features
from tests.conftest import launch, tiny_config


@pytest.fixture
def tower_calls():
    """The batch size of every call of an image tower outside of evaluation."""
    calls = []

    def record(module, inputs, outputs):
        if isinstance(module, LotlipVisionModel) and not torch.is_inference_mode_enabled():
            calls.append(len(outputs.pooler_output))

    hook = torch.nn.modules.module.register_module_forward_hook(record)
    yield calls
    hook.remove()


def assert_same_weights(folder: Path, expected: Path, atol: float) -> None:
    weights, expected = load_file(folder / "model.safetensors"), load_file(expected / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=atol)


def test_training_with_the_cache_is_training_without(train, tmp_path, tower_calls):
    start = train("start", max_train_steps=1)
    options = {"config_name": None, "model_name_or_path": start, "learning_rate": 1e-4, "max_train_steps": 12}
    tower_calls.clear()
    plain = train("plain", **options)
    assert sum(tower_calls) == 2 * 44, "each image once in each of two epochs"

    options |= {"cache_image_features": True, "image_features_dir": tmp_path / "features"}
    options["per_device_eval_batch_size"] = 11
    tower_calls.clear()
    cached = train("cached", **options)
    assert tower_calls == [11] * 4, "each image once, and never again"
    (file,) = (tmp_path / "features").glob("*.npy")
    assert ImageFeatures(file).features.shape == (44, 32)
    # AdamW moves a weight without a gradient (the key biases) by its rounding: allow a little of 12 steps
    assert_same_weights(cached, plain, atol=1e-4)

    tower_calls.clear()
    again = train("again", **options, dataloader_num_workers=2)
    assert tower_calls == [], "a second run starts at once"
    assert_same_weights(again, cached, atol=0)


def test_a_changed_tower_or_data_set_is_noticed(train, tmp_path, tower_calls):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with open(pictures / "metadata.jsonl", "w") as file:
        for index, scene in enumerate(load_scenes(20, seed=3)):
            scene["image"].save(pictures / f"{index}.png")
            file.write(json.dumps({"file_name": f"{index}.png", "caption": scene["caption"]}) + "\n")
    start = train("start", max_train_steps=1)
    options = {"config_name": None, "max_train_steps": 1, "cache_image_features": True, "eval_split": "train"}
    options |= {"image_features_dir": tmp_path / "features", "dataset_name": "imagefolder", "data_dir": pictures}

    def is_computed(name: str, **other) -> bool:
        tower_calls.clear()
        train(name, **{"model_name_or_path": start, **options, **other})
        return bool(tower_calls)

    assert is_computed("first") and not is_computed("second")
    assert not is_computed("other captions drawn", seed=1)
    assert is_computed("fewer", max_train_samples=10)
    assert is_computed("precision", mixed_precision="bf16")

    other = LotlipModel.from_pretrained(start)
    with torch.no_grad():
        other.vision_model.layers[0].mlp.fc1.bias[0] += 1e-3
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        if (start / name).exists():
            (tmp_path / "other").mkdir(exist_ok=True)
            (tmp_path / "other" / name).write_bytes((start / name).read_bytes())
    other.save_pretrained(tmp_path / "other")
    assert is_computed("other tower", model_name_or_path=tmp_path / "other")

    load_scenes(1, seed=4)[0]["image"].save(pictures / "7.png")  # another picture under an old name
    os.utime(pictures / "7.png", (1, 1))
    assert is_computed("other picture") and not is_computed("other picture again")

    # pictures that the data names by their paths alone
    rows = [{"image": str(pictures / f"{index}.png"), "caption": f"boat {index}"} for index in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = {"dataset_name": "json", "data_dir": None, "data_files": tmp_path / "rows.jsonl"}
    assert is_computed("paths", **paths) and not is_computed("same paths", **paths)
    load_scenes(1, seed=5)[0]["image"].save(pictures / "3.png")
    assert is_computed("other picture of a path", **paths)


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    return Accelerator(cpu=True)


def test_a_stopped_pass_goes_on(accelerator, tmp_path):
    torch.manual_seed(0)
    images = load_scenes(10, seed=5)["image"]
    tower = LotlipModel(tiny_config()).vision_model.eval()
    processor = LotlipImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    loaded = []

    def load_image(index: int, last: int | None = None):
        if len(loaded) == last:
            raise KeyboardInterrupt
        loaded.append(index)
        return images[index]

    def cache(**options) -> ImageFeatures:
        return cache_image_features(
            tower, processor, options.pop("load_image", load_image), 10, "data", tmp_path, accelerator, 3
        )

    with pytest.raises(KeyboardInterrupt):
        cache(load_image=lambda index: load_image(index, last=7))
    assert not list(tmp_path.glob("*.npy"))
    first = loaded.copy()
    features = cache()
    assert sorted(set(loaded)) == list(range(10))
    assert loaded[len(first) :] == list(range(6, 10)), "what two whole batches gave is not computed again"
    with torch.no_grad():
        for index in (0, 9):
            pixel_values = processor(images[index], return_tensors="pt")["pixel_values"]
            torch.testing.assert_close(features[index], tower(pixel_values).pooler_output[0], rtol=0, atol=1e-5)
    assert len(list(tmp_path.glob("*.npy"))) == 1 and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_read_is_skipped_as_without_the_cache(train, tmp_path, caplog, num_workers):
    rows = load_scenes(24, seed=7).cast_column("image", Image(decode=False)).to_list()
    rows[5]["image"]["bytes"] = rows[5]["image"]["bytes"][:100]
    rows[9]["image"] = {"bytes": b"no image", "path": None}
    Dataset.from_list(rows, features=load_scenes(1).features).save_to_disk(tmp_path / "data")
    start = train("start", max_train_steps=1)
    options = {"config_name": None, "model_name_or_path": start, "max_train_steps": 6, "learning_rate": 1e-4}
    options |= {"dataset_name": tmp_path / "data", "train_split": "train[:20]", "eval_split": "train[20:]"}
    options |= {"max_train_samples": None, "dataloader_num_workers": num_workers, "per_device_eval_batch_size": 3}

    def count_skipped(name: str, **more) -> dict:
        caplog.clear()
        folders.append(train(name, **{"max_bad_fraction": 0.5, **options, **more}))
        return Counter(re.findall(r"Skipped: (the image of row \d+ cannot be read: .*)", caplog.text))

    folders = []
    plain = count_skipped("plain")
    assert len(plain) == 2 and plain.total() == 4, "6 steps of 3 an epoch"
    counted = re.findall(r"Of the rows of this training, .*", caplog.text)
    cache = {"cache_image_features": True, "image_features_dir": tmp_path / "features"}
    assert count_skipped("cached", **cache) == plain + Counter(plain.keys()), "once more in the pass over the images"
    assert len(counted) == 1 and re.findall(r"Of the rows of this training, .*", caplog.text) == counted
    assert_same_weights(folders[1], folders[0], atol=1e-4)
    assert count_skipped("again", **cache) == plain
    assert_same_weights(folders[2], folders[1], atol=0)

    # as many as the training allows
    cache["image_features_dir"] = tmp_path / "other_features"
    for wrong, message in (
        ({"max_bad_fraction": 0.05}, "2 of .* samples are bad, more than `--max_bad_fraction 0.05` allows"),
        ({"max_bad_in_a_row": 1}, "1 samples in a row are bad .* row 5"),
    ):
        with pytest.raises(ValueError, match=message):
            count_skipped("too_many", **cache, **wrong)
        assert not (tmp_path / "too_many").exists() and not list(cache["image_features_dir"].glob("*.npy"))
        shutil.rmtree(cache["image_features_dir"])


def test_two_processes_share_the_work(train, tmp_path, tower_calls):
    start = train("start", max_train_steps=1)
    options = {"config_name": None, "model_name_or_path": start, "max_train_steps": 2, "cache_image_features": True}
    train("alone", **options, image_features_dir=tmp_path / "features_1", max_train_samples=25)
    done = launch(
        2,
        *("-m", "lotlip", "train"),
        *("--output_dir", str(tmp_path / "two"), "--model_name_or_path", str(start), "--cache_image_features"),
        *("--max_train_samples", "25", "--max_eval_samples", "24", "--per_device_train_batch_size", "4"),
        *("--max_train_steps", "2", "--warmup_steps", "0.2", "--learning_rate", "1e-3"),
        *("--image_features_dir", str(tmp_path / "features_2")),
    )
    assert done.returncode == 0, done.stderr
    files = [next((tmp_path / name).glob("*.npy")) for name in ("features_1", "features_2")]
    assert files[0].name == files[1].name
    one, two = (torch.tensor(ImageFeatures(file).features) for file in files)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    assert one.abs().sum(dim=-1).min() > 0


def test_twenty_fast_steps_are_twenty_plain_steps():
    """Captions padded apart, no image tower and a fused optimizer, against one padded batch and the tower."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    plain = LotlipModel(tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    plain.vision_model.requires_grad_(False).eval()
    fast = ContrastiveModel(copy.deepcopy(plain))
    plain_optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3)
    fast_optimizer = torch.optim.AdamW(fast.parameters(), lr=1e-3, fused=True)
    for _ in range(20):
        pixel_values = torch.randn(6, 3, 32, 32, generator=generator)
        lengths = torch.stack([torch.randint(3, 9, (6,)), torch.randint(15, 31, (6,))], dim=1)
        input_ids = torch.randint(5, 64, (6, 2, 40), generator=generator)
        attention_mask = (torch.arange(40) < lengths[..., None]).long()
        loss = plain(input_ids, pixel_values, attention_mask, return_loss=True).loss
        loss.backward()
        plain_optimizer.step()
        plain_optimizer.zero_grad()

        embeds = fast(
            vision_output=fast.encode_images(pixel_values=pixel_values),
            input_ids=input_ids[:, 1:, :30],
            attention_mask=attention_mask[:, 1:, :30],
            short_input_ids=input_ids[:, 0, :8],
            short_attention_mask=attention_mask[:, 0, :8],
        )
        fast_loss = global_loss(contrastive_loss, *embeds[:2], logit_scale=fast.model.logit_scale.exp()).loss
        torch.testing.assert_close(fast_loss, loss, rtol=1e-5, atol=0)
        fast_loss.backward()
        fast_optimizer.step()
        fast_optimizer.zero_grad()


def test_wrong_uses_are_errors(train, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is for a frozen image tower"):
        train("a", cache_image_features=True)
    disk_usage = shutil.disk_usage
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage if "features" in str(path) else disk_usage(path))
    with pytest.raises(ValueError, match="`--image_features_dir`"):
        train("c", freeze_vision_model=True, cache_image_features=True, image_features_dir=tmp_path / "features")
    assert not list((tmp_path / "features").glob("*.npy"))


def test_the_first_rows_of_a_data_set_keep_their_name(tmp_path):
    """The drawn scenes are made anew in every run: their fingerprint must not change with it."""
    args = DatasetArguments()
    fingerprints = {compute_fingerprint(load_split(args, "train", 30), "image") for _ in range(2)}
    assert len(fingerprints) == 1 and compute_fingerprint(load_split(args, "train", 31), "image") not in fingerprints
