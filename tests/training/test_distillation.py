"""The start model as a teacher of images and short captions."""

import pytest
import torch
from torch.nn.functional import normalize

from modeling_lotlip import LotlipModel
from modeling_lotlip.encoder.dual_encoder import load_encoder
from modeling_lotlip.losses import Pairs
from modeling_lotlip.training.batch import CaptionBatch, Texts
from modeling_lotlip.training.distillation import StartModel, Teacher, distill
from modeling_lotlip.training.dual_encoder import ContrastiveModel, ImageSide
from modeling_lotlip.training.outputs import read_metrics
from tests.conftest import assert_same_weights, tiny_config
from tests.helpers.dual_encoders import SHORT, flatten


def test_the_error_is_that_of_images_and_of_the_short_captions_that_there_are():
    images = normalize(torch.randn(3, 4), dim=-1)
    short = normalize(torch.randn(3, 4), dim=-1)
    pairs = Pairs.from_embeds(images, short=short, short_mask=torch.tensor([True, False, True]))
    of_images = normalize(torch.randn(3, 4), dim=-1)
    of_short = normalize(torch.randn(3, 4), dim=-1)
    errors = distill(pairs, pairs, of_images, of_short)
    of_captions = (short - of_short).square().sum(dim=-1)
    expected = (images - of_images).square().sum(dim=-1) + of_captions * torch.tensor([1, 0, 1])
    torch.testing.assert_close(errors, expected)
    torch.testing.assert_close(distill(pairs, pairs, short=of_short), of_captions * torch.tensor([1, 0, 1]))


@pytest.mark.parametrize("image_side", ImageSide)
def test_the_teacher_embeds_what_the_start_model_does(make_accelerator, image_side):
    model = LotlipModel(tiny_config()).eval()
    contrastive_model = ContrastiveModel(model)
    contrastive_model.image_side = image_side
    teacher = Teacher(StartModel.copy(model, 20), contrastive_model, make_accelerator())
    ids = torch.randint(5, 64, (5, 6))
    short = Texts(ids, torch.ones_like(ids))
    pixel_values = torch.randn(5, 3, 32, 32)
    batch = CaptionBatch({"pixel_values": pixel_values}, short, start_short=short)
    with torch.no_grad():
        images = model.embed_images(pixel_values)
        captions = model.embed_captions(short_input_ids=ids)
        model.text_projection.weight.zero_()  # the copy stays as it was
    embeds = teacher.embed(batch, [2, 3])
    torch.testing.assert_close(embeds["short"], captions.short)
    if image_side is ImageSide.FROZEN:
        assert "images" not in embeds
    else:
        torch.testing.assert_close(embeds["images"], images)


def test_the_teacher_takes_what_is_cached_of_a_frozen_tower(make_accelerator):
    """Its own projection goes over it: no image is embedded again."""
    model = LotlipModel(tiny_config()).eval()
    model.visual_projection = torch.nn.Linear(32, 32, bias=False)
    contrastive_model = ContrastiveModel(model)
    contrastive_model.image_side = ImageSide.PROJECTION
    teacher = Teacher(StartModel.copy(model, 20), contrastive_model, make_accelerator())
    pixel_values = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = model.embed_images(pixel_values)
        features = contrastive_model.encode_images({"pixel_values": pixel_values})
        model.visual_projection.weight.zero_()  # the copy stays as it was
    ids = torch.randint(5, 64, (5, 6))
    short = Texts(ids, torch.ones_like(ids))
    batch = CaptionBatch({}, short, image_features=features, start_short=short)
    torch.testing.assert_close(teacher.embed(batch, [2, 3])["images"], expected)


@pytest.mark.parametrize("family", ["clip", "siglip2"])
def test_short_captions_stay_where_the_start_model_has_them(train, family_folders, noise_dir, family):
    """
    Also where the model reads longer texts than the start model; resumed bit by bit. SigLIP 2, whose image tower is
    frozen here, pads short captions further than before: they do not start where they were.
    """
    is_frozen = family == "siglip2"
    start = family_folders(family)
    options = {"config_name": None, "model_name_or_path": start, "max_length": 90, "learning_rate": 1e-3}
    options |= {"dataset_name": noise_dir, "train_split": "train", "eval_split": "train", "max_train_steps": 6}
    options |= {"per_device_train_batch_size": 9, "logging_steps": 1, "checkpointing_steps": 3}
    options["freeze_vision_model" if is_frozen else "no_freeze_vision_model"] = True
    options["min_crop_scale"] = 1
    texts = flatten(SHORT)[0]
    before = load_encoder(str(start)).encode_text(texts, convert_to_tensor=True)
    moved = {}
    for weight in (0.0, 100.0):
        folder = train(f"weight_{weight}", **options, distill_weight=weight)
        after = load_encoder(str(folder)).encode_text(texts, convert_to_tensor=True)
        moved[weight] = (after - before).square().sum(dim=-1).mean().item()
    assert moved[100.0] < 0.3 * moved[0.0]
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    assert (rows[0]["loss_distill"] < 1e-5) == (family == "clip")
    of_captions = (rows[0]["loss_short"] + rows[0]["loss_long"]) / 2
    assert rows[0]["loss"] == pytest.approx(of_captions + 100 * rows[0]["loss_distill"], rel=1e-3)
    again = train("again", **options, distill_weight=100.0, resume_from_checkpoint=folder / "checkpoint-3")
    assert_same_weights(again, folder)


def test_a_model_without_a_start_has_no_teacher(train):
    with pytest.raises(SystemExit):
        train("run", distill_weight=1.0)
