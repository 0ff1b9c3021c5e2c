"""The output of a frozen image tower, computed once."""

import re
import zipfile
from collections import Counter

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image

from modeling_lotlip import LotlipModel, LotlipVisionModel
from modeling_lotlip.data.arguments import DatasetArguments
from modeling_lotlip.data.images import UnreadableImageError
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.encoder.preprocessing import Preprocessing
from modeling_lotlip.training import image_features
from modeling_lotlip.training.dual_encoder import ContrastiveModel, inspect_image_side
from modeling_lotlip.training.image_features import FeatureCache, compute_fingerprint, read_features
from tests.conftest import assert_same_weights
from tests.helpers.data_files import write_images
from tests.helpers.images import replace_values
from tests.helpers.photographs import encode


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


def test_training_with_the_cache_is_training_without(train, tmp_path, tower_calls):
    start = train("start", max_train_steps=1)
    options = {"config_name": None, "model_name_or_path": start, "learning_rate": 1e-4, "max_train_steps": 12}
    plain = train("plain", **options)

    options |= {"cache_image_features": True, "image_features_dir": tmp_path / "features"}
    options["per_device_eval_batch_size"] = 11
    tower_calls.clear()
    cached = train("cached", **options)
    assert tower_calls == [1, 1, 1, 1] + [11] * 4, "each image once, after noise, and never again"
    (file,) = (tmp_path / "features").rglob("*.npy")
    assert np.load(file).shape == (44, 32)
    # AdamW moves a weight without a gradient (the key biases) by its rounding: allow a little of 12 steps
    assert_same_weights(cached, plain, atol=1e-4)

    tower_calls.clear()
    again = train("again", **options)
    assert tower_calls == [1, 1, 1], "a second run starts at once: an image of noise says what is trained"
    assert_same_weights(again, cached)

    options |= {"checkpointing_steps": 1, "max_train_steps": 1}
    train("resumed", **options)
    options |= {"max_train_steps": 2, "resume_from_checkpoint": "latest"}
    options["model_name_or_path"] = train("other", max_train_steps=1, seed=1)
    with pytest.raises(ValueError, match="checkpoint-1 was written with image_tower = .*, this run has "):
        train("resumed", **options)


@pytest.fixture
def cache(tmp_path, make_accelerator):
    """A function that gives the features of ten scenes, and the batch sizes of the calls of the tower for it."""
    accelerator = make_accelerator()
    scenes = load_scenes(10, seed=5)

    def compute(model: LotlipModel, processor, num_calls: int | None = None, dataset: Dataset = scenes):
        sizes = []

        def record(module, inputs, options):
            if len(sizes) == num_calls:
                raise KeyboardInterrupt
            pixel_values = inputs[0] if inputs else options["pixel_values"]
            sizes.append(len(pixel_values))

        model.vision_model.requires_grad_(False)
        contrastive_model = ContrastiveModel(model)
        inspect_image_side(
            contrastive_model, Preprocessing(processor).prepare_images([PIL.Image.new("RGB", (32, 32))])
        )
        hook = model.vision_model.register_forward_pre_hook(record, with_kwargs=True)
        folder = tmp_path / "features"
        features = FeatureCache(contrastive_model, processor, accelerator, folder, batch_size=3)
        try:
            return features.fill(dataset, "image"), sizes
        except KeyboardInterrupt:
            return None, sizes
        finally:
            hook.remove()

    return compute


def test_a_stopped_pass_goes_on(cache, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(image_features, "SHARD_SIZE", 4)
    model, processor = loaded
    assert cache(model, processor, num_calls=5) == (None, [1, 3, 1, 3, 1]), "at first one that shows the shape"
    features, sizes = cache(model, processor)
    assert sizes == [1, 2], "what is written is not computed again"
    scenes = load_scenes(10, seed=5)["image"]
    for number in (0, 5, 9):
        pixel_values = processor.image_processor(scenes[number], return_tensors="pt")["pixel_values"]
        expected = model.embed_images(pixel_values)[0]
        torch.testing.assert_close(read_features(features, number), expected, rtol=0, atol=1e-5)
    assert not list(tmp_path.rglob("*-partial"))


def test_a_changed_tower_preprocessing_or_dataset_is_noticed(cache, loaded):
    model, processor = loaded
    assert cache(model, processor)[1]
    assert not cache(model, processor)[1]
    assert cache(model, processor, dataset=load_scenes(9, seed=5))[1]
    processor.image_processor.image_mean = [0.4, 0.5, 0.6]
    assert cache(model, processor)[1]
    with torch.no_grad():
        model.vision_model.layers[0].mlp.fc1.bias[0] += 1e-3
    assert cache(model, processor)[1]


OWN_PROCESSOR = """
from modeling_lotlip import LotlipImageProcessor

class Dimmed(LotlipImageProcessor):
    def __call__(self, *arguments, **options):
        inputs = super().__call__(*arguments, **options)
        inputs["pixel_values"] = inputs["pixel_values"] * {factor}
        return inputs
"""


def test_a_changed_code_of_the_preprocessing_is_noticed(cache, loaded, load_modules):
    model, processor = loaded
    for factor in (0.5, 0.1):
        module = load_modules({"dimmed_of_a_test": OWN_PROCESSOR.format(factor=factor)})
        processor.image_processor = module.Dimmed(**processor.image_processor.to_dict())
        assert cache(model, processor)[1]
        assert not cache(model, processor)[1]


def test_what_changes_no_image_computes_none_again(cache, loaded):
    model, processor = loaded
    cache(model, processor)
    model.config.matryoshka_dims = [32, 8]
    model.config.text_config.corner_attention_mask = not model.config.text_config.corner_attention_mask
    model.register_buffer("text_mean", torch.zeros(32))
    assert not cache(model, processor)[1]


@pytest.mark.parametrize("change", ["setting", "buffer"])
def test_what_a_class_of_a_user_may_compute_images_by_is_noticed(cache, loaded, change):
    model, processor = loaded
    model.head = torch.nn.Module()
    model.head.register_buffer("mean", torch.zeros(32))
    cache(model, processor)
    if change == "setting":
        model.config.image_power = 3.0
    else:
        model.head.mean += 1
    assert cache(model, processor)[1]


@pytest.mark.parametrize("is_final", [True, False])
def test_images_that_can_perhaps_be_read_later_are_tried_again(cache, loaded, monkeypatch, is_final):
    def refuse(reader: RowReader, row: dict) -> PIL.Image.Image:
        raise UnreadableImageError("the memory is full", is_final)

    with monkeypatch.context() as patch:
        patch.setattr(RowReader, "read_image", refuse)
        features, _ = cache(*loaded)
    assert read_features(features, 0).isnan().all()
    cache(*loaded)
    assert read_features(features, 0).isnan().all() == is_final
    _, sizes = cache(*loaded)
    assert sizes == []


def test_the_first_rows_of_a_dataset_keep_their_name():
    """The drawn scenes are made anew in every run: their fingerprint must not change with it."""
    args = DatasetArguments()
    fingerprints = {compute_fingerprint(load_split(args, "train", 30), "image") for _ in range(2)}
    assert len(fingerprints) == 1
    assert compute_fingerprint(load_split(args, "train", 31), "image") not in fingerprints


@pytest.mark.processes
def test_an_image_that_cannot_be_read_is_skipped_as_without_the_cache(train, tmp_path, caplog):
    scenes = load_scenes(24, seed=7)
    files = {5: encode(scenes[5]["image"])[:100], 9: b"no image"}
    bad = {row: {"image": {"bytes": content, "path": None}} for row, content in files.items()}
    replace_values(scenes, bad).save_to_disk(tmp_path / "data")
    start = train("start", max_train_steps=1)
    options = {"config_name": None, "model_name_or_path": start, "max_train_steps": 6, "learning_rate": 1e-4}
    options |= {"dataset_name": tmp_path / "data", "train_split": "train[:20]", "eval_split": "train[20:]"}
    options |= {"max_train_samples": None, "dataloader_num_workers": 1, "per_device_eval_batch_size": 3}

    def count_skipped(name: str, **more) -> dict:
        caplog.clear()
        folders.append(train(name, max_bad_fraction=0.5, **options, **more))
        return Counter(re.findall(r"Skipped: (the image of row \d+ cannot be read: .*)", caplog.text))

    folders = []
    plain = count_skipped("plain")
    assert len(plain) == 2
    assert plain.total() == 4, "6 steps of 3 an epoch"
    counted = re.findall(r"Of the rows of this training, .*", caplog.text)
    cache = {"cache_image_features": True, "image_features_dir": tmp_path / "features"}
    assert count_skipped("cached", **cache) == plain
    assert len(counted) == 1
    assert re.findall(r"Of the rows of this training, .*", caplog.text) == counted
    assert_same_weights(folders[1], folders[0], atol=1e-4)


def test_the_fingerprint_knows_images_in_archives(tmp_path):
    fingerprints = []
    for color in ("red", "red", "blue"):
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.writestr("a.png", encode(PIL.Image.new("RGB", (8, 8), color)))
        rows = Dataset.from_dict({"image": [f"zip://a.png::{tmp_path / 'photos.zip'}"]})
        fingerprints.append(compute_fingerprint(rows.cast_column("image", Image()), "image"))
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[0] != fingerprints[2]


def test_the_fingerprint_knows_a_dataset_that_was_saved_anew_by_the_same_names(tmp_path):
    """Whose hash by `datasets` is that of before."""
    fingerprints = []
    for color in ("red", "blue"):
        (tmp_path / "a.png").write_bytes(encode(PIL.Image.new("RGB", (8, 8), color)))
        rows = Dataset.from_dict({"image": [str(tmp_path / "a.png")]}).cast_column("image", Image())
        rows.save_to_disk(tmp_path / "saved")
        for _ in range(2):
            saved = Dataset.load_from_disk(tmp_path / "saved")
            fingerprints.append(compute_fingerprint(saved, "image"))
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[2] == fingerprints[3]
    assert fingerprints[0] != fingerprints[2]


def test_the_fingerprint_knows_the_column_of_images():
    """Two columns of one dataset, whose contents lie in the same file."""
    images = [[encode(PIL.Image.new("RGB", (8, 8), color))] for color in ("red", "blue")]
    features = Features({"image": Image(), "thumbnail": Image()})
    rows = Dataset.from_dict(dict(zip(features, images)), features=features)
    assert compute_fingerprint(rows, "image") != compute_fingerprint(rows, "thumbnail")


def test_the_fingerprint_knows_the_files_of_images(tmp_path):
    write_images(tmp_path, ["a.png", "b.png"])
    rows = Dataset.from_dict({"image": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]})
    rows = rows.cast_column("image", Image())
    first = compute_fingerprint(rows, "image")
    assert compute_fingerprint(rows, "image") == first
    assert compute_fingerprint(rows.select([0]), "image") != first
    PIL.Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / "b.png")
    assert compute_fingerprint(rows, "image") != first
    (tmp_path / "b.png").unlink()
    assert compute_fingerprint(rows, "image") != first
