"""
Losses and gradients of every batch of an epoch, computed by as many processes as launch this file.

    torchrun --nproc_per_node 2 tests/distributed_step.py OUTPUT GLOBAL_BATCH_SIZE locked|trained CHUNK_SIZE OBJECTIVE
"""

import argparse
import sys
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator

from modeling_lotlip import LotlipConfig, LotlipImageProcessor, LotlipProcessor
from modeling_lotlip.data.captions import CaptionReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.training.gradient_cache import backward_in_chunks
from modeling_lotlip.training.models import build_tokenizer
from modeling_lotlip.training.objectives import OBJECTIVES, scalars_of
from modeling_lotlip.training.samples import CaptionedImages, Collator, GlobalBatches
from modeling_lotlip.training.step import global_loss


NUM_SAMPLES = 11  # with a global batch of 4 the last one is of 3


def build_data(args: argparse.Namespace):
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


def main():
    output_file, vision, objective = sys.argv[1], sys.argv[3], sys.argv[5]
    global_batch_size, chunk_size = int(sys.argv[2]), int(sys.argv[4])
    accelerator = Accelerator(cpu=True)
    args = argparse.Namespace(
        image_column="image",
        caption_column="caption",
        long_captions_column="long_captions",
        num_long_captions=2,
        num_sub_captions=4,
        no_short_captions=False,
        draw_short_from_all=False,
        drop_summary=False,
        objective=objective,
        seed=0,
        keep_duplicate_negatives=False,
        side_files=None,
        sub_caption_splitter="paper",
    )
    dataset = build_data(args)
    reader = CaptionReader(dataset.column_names, args, args, args.image_column)
    tokenizer = build_tokenizer(dataset, reader)
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    tower |= {"initializer_range": 0.1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text_config = {**tower, "vocab_size": len(tokenizer), "projection_dim": 32}
    if OBJECTIVES[objective].is_token_wise:
        text_config["num_corner_tokens"] = 0
    if objective == "long_clip":  # fewer components than images of a batch
        loss = partial(OBJECTIVES[objective].loss, num_components=1)
        OBJECTIVES[objective] = replace(OBJECTIVES[objective], loss=loss)
    vision_config = {**tower, "image_size": 64, "patch_size": 16}
    model_class = OBJECTIVES[objective].model_class
    config = LotlipConfig(text_config=text_config, vision_config=vision_config, projection_dim=32)
    config.token_wise = model_class.is_token_wise
    model = model_class(config)
    model.vision_model.requires_grad_(vision == "trained")
    OBJECTIVES[objective].prepare(model)
    image_processor = LotlipImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    collator = Collator(LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer), max_length=126)
    batches = GlobalBatches(
        len(dataset),
        global_batch_size // accelerator.num_processes,
        args.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    samples = CaptionedImages(dataset, args, reader)
    if chunk_size > 0:
        model.activation_checkpointing_enable()
    prepared = accelerator.prepare(model)

    steps = []
    for epoch in range(3):
        batches.epoch = epoch
        for keys in batches:
            batch, _ = collator([samples[key] for key in keys])
            loss_function = partial(global_loss, batch=batch, args=args, accelerator=accelerator)
            if chunk_size > 0:
                loss = backward_in_chunks(prepared, batch, loss_function, chunk_size, accelerator)
            else:
                outputs = prepared(**batch)
                loss = loss_function(outputs.image_embeds, outputs.text_embeds, **scalars_of(model))
                accelerator.backward(loss)
            step = {"keys": keys, "loss": loss.detach()}
            if epoch == 0:  # the same weights for all steps, to compare gradients; then a curve of losses
                step["gradients"] = {
                    name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
                }
            else:
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.grad is not None:
                            parameter -= 0.05 * parameter.grad
            prepared.zero_grad()
            steps.append(step)
    torch.save(
        {"num_processes": accelerator.num_processes, "steps": steps}, f"{output_file}.{accelerator.process_index}"
    )
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
