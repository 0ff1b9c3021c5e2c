"""Patches that a trained image tower does not compute in training."""

import json

import pytest
import torch
from safetensors.torch import load_file

from modeling_lotlip import LotlipConfig, LotlipModel, LotlipVisionConfig, LotlipVisionModel
from modeling_lotlip.training.groups import count_image_tokens


def make_tower(patch_dropout: float, num_patches: int = 16) -> LotlipVisionModel:
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return LotlipVisionModel(
        LotlipVisionConfig(**tower, image_size=4 * int(num_patches**0.5), patch_size=4, patch_dropout=patch_dropout)
    )


@pytest.mark.parametrize("share, size, num_kept", [(0.25, 16, 12), (0.5, 16, 8), (0.99, 16, 1), (0.5, 24, 18)])
def test_training_computes_cls_and_some_patches_of_each_image(share, size, num_kept):
    tower, images = make_tower(share), torch.randn(8, 3, size, size)
    embeddings = tower.embeddings
    options = {"interpolate_pos_encoding": size != 16}
    whole = embeddings.eval()(images, **options)
    assert torch.equal(whole, make_tower(0.0).embeddings.train()(images, **options)), "no effect in evaluation mode"
    num_patches = (size // 4) ** 2
    assert whole.shape[1] == 1 + num_patches

    drawn = []
    for _ in range(2):
        kept = embeddings.train()(images, **options)
        assert kept.shape == (8, 1 + num_kept, 16) and torch.equal(kept[:, 0], whole[:, 0])
        is_patch = (kept[:, 1:, None] == whole[:, None, 1:]).all(dim=-1)  # shape = (images, kept, patches)
        assert (is_patch.sum(dim=2) == 1).all(), "each is a patch of its own image, with the position it has there"
        assert is_patch.sum(dim=1).max() == 1, "and none comes twice"
        drawn += [tuple(patches.nonzero().flatten().tolist()) for patches in is_patch.any(dim=1)]
    assert len(set(drawn)) > 5, "others of each image, and in each step"
    assert {patch for patches in drawn for patch in patches} == set(range(num_patches)) or num_kept == 1


def test_patches_that_are_left_out_have_no_gradient():
    tower = make_tower(0.5).train()
    images = torch.randn(2, 3, 16, 16, requires_grad=True)
    output = tower(images).last_hidden_state
    assert output.shape[1] == 9
    output.sum().backward()
    patches = images.grad.unfold(2, 4, 4).unfold(3, 4, 4).abs().sum(dim=(1, 4, 5))
    assert (patches.flatten(1) > 0).sum(dim=1).tolist() == [8, 8]


def test_a_batch_is_divided_by_the_patches_that_are_computed():
    config = LotlipConfig(vision_config={"image_size": 224, "patch_dropout": 0.5})
    with torch.device("meta"):
        model = LotlipModel(config)
    batch = {"pixel_values": torch.empty(1, 3, 224, 224, device="meta")}
    assert count_image_tokens(model.train(), batch) == 99
    assert count_image_tokens(model.eval(), batch) == 197


def test_a_trained_model_keeps_it_in_its_configuration(train):
    def share(folder) -> float:
        return json.loads((folder / "config.json").read_text())["vision_config"]["patch_dropout"]

    options = {"max_train_steps": 2, "warmup_steps": 1, "max_eval_samples": 4}
    whole, half = train("whole", **options), train("half", **options, patch_dropout=0.5)
    assert (share(whole), share(half)) == (0, 0.5)
    weights = [load_file(folder / "model.safetensors") for folder in (whole, half)]
    assert not torch.equal(*(each["vision_model.layers.0.mlp.fc1.weight"] for each in weights))

    further = options | {"config_name": None, "model_name_or_path": half}
    frozen = train("frozen", **further)
    assert share(frozen) == 0.5, "it has no effect where the image tower is frozen"
    assert json.loads((frozen / "training_args.json").read_text())["patch_dropout"] is None
    trained = train("trained", **further, no_freeze_vision_model=True)
    assert share(trained) == json.loads((trained / "training_args.json").read_text())["patch_dropout"] == 0.5
    assert share(train("without", **further, no_freeze_vision_model=True, patch_dropout=0)) == 0


@pytest.mark.parametrize("options", [{"grad_cache_tokens": 200}, {"objective": "filip", "num_corner_tokens": 0}])
def test_a_resumed_run_drops_the_patches_of_the_uninterrupted_one(train, options):
    options |= {"patch_dropout": 0.5, "max_train_steps": 4, "checkpointing_steps": 2, "max_eval_samples": 4}
    whole = train("whole", **options)
    resumed = train("resumed", **options, resume_from_checkpoint=whole / "checkpoint-2")
    weights, expected = load_file(resumed / "model.safetensors"), load_file(whole / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="patch_dropout = 0.5, this run has 0.25"):
        train("other", **options | {"patch_dropout": 0.25}, resume_from_checkpoint=whole / "checkpoint-2")
