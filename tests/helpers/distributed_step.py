"""Losses and gradients of every batch of an epoch, of one process or several, in several ways."""

from dataclasses import replace

import torch
from accelerate import Accelerator

from modeling_lotlip import LotlipImageProcessor, LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.losses import Pairs, contrastive_loss
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.batch import make_as_many
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import build_tokenizer, convert_model
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.order import BatchSampler
from modeling_lotlip.training.processes import gather_max
from modeling_lotlip.training.samples import CaptionedImages, SampleCollator
from modeling_lotlip.training.step import LossOptions, ObjectiveLoss, embed_batch, size_groups
from tests.conftest import tiny_config
from tests.training.conftest import get_gradients


NUM_SAMPLES = 11  # with a global batch of 4 the last one is of 3
TOKENS_PER_GROUP = 150  # one or two rows: processes with shorter captions would have fewer groups of their own


class PrototypeLoss(torch.nn.Module):
    """A loss that brings parameters: each image is also pulled to the nearest of some prototypes."""

    def __init__(self, pull: float = 0.5):
        super().__init__()
        self.pull = pull
        generator = torch.Generator().manual_seed(7)
        self.prototypes = torch.nn.Parameter(torch.randn(5, 32, generator=generator))

    def forward(self, pairs: Pairs, all_pairs: Pairs, logit_scale: torch.Tensor) -> torch.Tensor:
        nearest = (pairs.images @ self.prototypes.t()).logsumexp(dim=1)
        return contrastive_loss(pairs, all_pairs, logit_scale) - self.pull * nearest


def penalize_corners(pairs: Pairs, all_pairs: Pairs) -> torch.Tensor:
    cosines = (pairs.corners[:, :, 0] * pairs.corners[:, :, 1]).sum(dim=-1)
    return cosines.square().mean(dim=1)


LOTLIP = OBJECTIVES["lotlip"]
OF_USERS = {
    "prototypes": replace(LOTLIP, loss=PrototypeLoss, loss_with_bias=None, options={"pull": 0.5}),
    "penalty": replace(LOTLIP, terms={"penalty": penalize_corners}, options={"penalty_weight": 0.3}),
}


def build_data():
    """Scenes of which some lack a short or a long caption, and two share the short one."""
    dataset = load_scenes(NUM_SAMPLES, seed=5)
    captions = list(dataset["caption"])
    long_captions = list(dataset["long_captions"])
    captions[1] = None
    captions[2] = captions[3]
    captions[7] = captions[8]
    captions[5] = "a photo of a very long and very red boat"
    long_captions[4] = []
    long_captions[9] = None
    long_captions[6] = long_captions[6] + long_captions[5]
    return (
        dataset.remove_columns(["caption", "long_captions"])
        .add_column("caption", captions)
        .add_column("long_captions", long_captions)
    )


def build_model(name: str, is_trained: bool, num_words: int, dims: list[int]) -> ContrastiveModel:
    """A small model with the loss of an objective."""
    torch.manual_seed(0)
    num_corner_tokens = 2
    if name == "filip":
        num_corner_tokens = 0
    config = tiny_config(dropout=0.0, initializer_range=0.1, vocab_size=num_words, num_corner_tokens=num_corner_tokens)
    config.vision_config.image_size = 64
    config.vision_config.initializer_range = 0.1
    objective = OF_USERS.get(name) or OBJECTIVES[name]
    model = convert_model(LotlipModel(config), objective).train()
    model.vision_model.requires_grad_(is_trained)
    given = {}
    if name == "long_clip":
        given["num_components"] = 1  # fewer than images of a batch
    options = LossOptions(short_weight=2.0, matryoshka_dims=dims)
    return ContrastiveModel(model, ObjectiveLoss(objective, name == "siglip", options, given))


def compute_steps(way: str, global_batch_size: int, accelerator: Accelerator) -> list[dict]:
    vision, how, name, *dims = way.split()  # such as "trained chunks lotlip 16 4"
    dataset = build_data()
    reader = RowReader(dataset.column_names, CaptionArguments())
    tokenizer = build_tokenizer(dataset, reader)
    contrastive_model = build_model(name, vision == "trained", len(tokenizer), list(map(int, dims)))
    image_processor = LotlipImageProcessor(size=64, crop_size=64)
    collator = SampleCollator(LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer))
    num_processes = accelerator.num_processes
    batch_size = global_batch_size // num_processes
    batches = BatchSampler(len(dataset), batch_size, 0, accelerator.process_index, num_processes)
    arguments = ObjectiveArguments(num_long_captions=2, num_sub_captions=4)
    samples = CaptionedImages(dataset, reader, arguments)
    if how == "chunks":
        contrastive_model.model.gradient_checkpointing_enable()
    prepared = accelerator.prepare(contrastive_model)

    steps = []
    for epoch in range(3):
        batches.epoch = epoch
        for keys in batches:
            batch, _ = collator([samples[key] for key in keys])
            sizes = [len(batch)]
            if how != "whole":
                sizes = size_groups(contrastive_model, batch, TOKENS_PER_GROUP)
                sizes = make_as_many(sizes, *gather_max([len(sizes)], accelerator))
            embeds = embed_batch(prepared, batch, sizes, recompute=how == "chunks")
            losses = contrastive_model.loss(embeds, batch.group_short_captions(), **contrastive_model.scalars)
            accelerator.backward(losses.loss)
            step = {
                "keys": [tuple(key) for key in keys],
                "loss": losses.loss.detach(),
                "num_groups": len(sizes),
            }
            if epoch == 0:  # the same weights for all steps, to compare gradients; then losses
                gradients = get_gradients(contrastive_model)
                step["gradients"] = {name: gradient.clone() for name, gradient in gradients.items()}
            else:
                descend(contrastive_model)
            prepared.zero_grad()
            steps.append(step)
    return steps


@torch.no_grad()
def descend(model: torch.nn.Module) -> None:
    """A step of gradient descent."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter -= 0.05 * parameter.grad


def main(argv: list[str]) -> None:
    output_file, global_batch_size, *ways = argv
    accelerator = Accelerator(cpu=True)
    steps = {way: compute_steps(way, int(global_batch_size), accelerator) for way in ways}
    results = {"num_processes": accelerator.num_processes, "steps": steps}
    torch.save(results, f"{output_file}.{accelerator.process_index}")
    accelerator.free_memory()
    accelerator.end_training()
