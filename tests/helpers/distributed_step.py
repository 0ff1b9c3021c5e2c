"""Losses and gradients of every batch of an epoch, computed by one process or several, in several ways."""

from functools import partial

import torch
from accelerate import Accelerator

from modeling_lotlip import LotlipImageProcessor, LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.arguments import ObjectiveArguments
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import build_tokenizer, convert_model
from modeling_lotlip.training.objectives import OBJECTIVES
from modeling_lotlip.training.samples import BatchSampler, CaptionedImages, SampleCollator
from modeling_lotlip.training.step import embed_batch, group_short_captions, make_loss, split_batch
from tests.conftest import tiny_config
from tests.training.conftest import get_gradients


NUM_SAMPLES = 11  # with a global batch of 4 the last one is of 3
TOKENS_PER_GROUP = 150  # one or two rows: processes with shorter captions would have fewer groups of their own


def build_data():
    """Scenes of which some lack a short or a long caption, and two share the short one."""
    dataset = load_scenes(NUM_SAMPLES, seed=5)
    captions, long_captions = list(dataset["caption"]), list(dataset["long_captions"])
    captions[1], captions[2], captions[7] = None, captions[3], captions[8]
    captions[5] = "a photo of a very long and very red boat"
    long_captions[4], long_captions[9] = [], None
    long_captions[6] = long_captions[6] + long_captions[5]
    return (
        dataset.remove_columns(["caption", "long_captions"])
        .add_column("caption", captions)
        .add_column("long_captions", long_captions)
    )


def compute_steps(way: str, global_batch_size: int, accelerator: Accelerator) -> list[dict]:
    vision, how, name, *dims = way.split()  # such as "trained chunks lotlip 16 4" or "... 16 negatives"
    hard_negatives = 2 if "negatives" in dims else 0
    options = {"matryoshka_dims": list(map(int, filter(str.isdecimal, dims))), "num_hard_negatives": hard_negatives}
    loss_function = make_loss(name, name == "siglip", **options)
    if name == "long_clip":  # fewer components than images of a batch
        loss_function = partial(loss_function, num_components=1)
    dataset = build_data()
    reader = RowReader(dataset.column_names, CaptionArguments())
    tokenizer = build_tokenizer(dataset, reader)
    torch.manual_seed(0)
    text_config = {"vocab_size": len(tokenizer), "num_corner_tokens": 0 if name == "filip" else 2}
    config = tiny_config(dropout=0.0, initializer_range=0.1, **text_config)
    config.vision_config.image_size, config.vision_config.initializer_range = 64, 0.1
    model = convert_model(LotlipModel(config), OBJECTIVES[name]).train()
    model.vision_model.requires_grad_(vision == "trained")
    image_processor = LotlipImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    collator = SampleCollator(LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer))
    place = accelerator.process_index, accelerator.num_processes
    batches = BatchSampler(len(dataset), global_batch_size // accelerator.num_processes, 0, *place)
    drawing = {"num_long_captions": 2, "num_sub_captions": 4, "hard_negatives": hard_negatives}
    samples = CaptionedImages(dataset, reader, ObjectiveArguments(**drawing))
    if how == "chunks":
        model.activation_checkpointing_enable()
    model = ContrastiveModel(model)
    prepared = accelerator.prepare(model)

    steps = []
    for epoch in range(3):
        batches.epoch = epoch
        for keys in batches:
            batch, _ = collator([samples[key] for key in keys])
            if how == "whole":
                embeds = prepared(**batch)
            else:
                recompute = how == "chunks"
                embeds = embed_batch(prepared, batch, accelerator, recompute, tokens_per_group=TOKENS_PER_GROUP)
            scalars = model.scalars | {"logit_scale": model.model.logit_scale.exp()}
            loss, _ = loss_function(*embeds, short_groups=group_short_captions(batch), **scalars)
            accelerator.backward(loss)
            num_groups = len(split_batch(batch, accelerator, TOKENS_PER_GROUP)[0])
            step = {"keys": keys, "loss": loss.detach(), "num_groups": num_groups}
            if epoch == 0:  # the same weights for all steps, to compare gradients; then a curve of losses
                step["gradients"] = {name: gradient.clone() for name, gradient in get_gradients(model).items()}
            else:
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.grad is not None:
                            parameter -= 0.05 * parameter.grad
            prepared.zero_grad()
            steps.append(step)
    return steps


def main(argv: list[str]) -> None:
    output_file, global_batch_size, *ways = argv
    accelerator = Accelerator(cpu=True)
    steps = {way: compute_steps(way, int(global_batch_size), accelerator) for way in ways}
    results = {"num_processes": accelerator.num_processes, "steps": steps}
    torch.save(results, f"{output_file}.{accelerator.process_index}")
    accelerator.free_memory()
    accelerator.end_training()
