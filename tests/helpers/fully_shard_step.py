"""
Loss and gradients of a batch by a model whose parameters are sharded (FSDP2) over the processes that launch this file.

    torchrun --nproc_per_node 2 tests/helpers/fully_shard_step.py OUTPUT
"""

import sys

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from modeling_lotlip import LotlipModel
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.groups import embed_batch, split_batch
from modeling_lotlip.training.step import group_short_captions, make_loss
from tests.conftest import tiny_config


def main():
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = ContrastiveModel(LotlipModel(tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)))
    model.model.vision_model.requires_grad_(False)
    model.train()  # a frozen tower stays in evaluation mode
    batch = {
        "pixel_values": torch.randn(8, 3, 32, 32),
        "short_input_ids": torch.randint(5, 64, (8, 6)),
        "short_attention_mask": torch.ones(8, 6, dtype=torch.long),
        "input_ids": torch.randint(5, 64, (8, 2, 12)),
        "attention_mask": torch.ones(8, 2, 12, dtype=torch.long),
    }
    batch["attention_mask"][1:, :, 3:] = 0  # one long caption among short ones: of the first process alone two groups
    batch["attention_mask"][4, 1] = 0
    share = 8 // accelerator.num_processes
    start = share * accelerator.process_index
    batch = {name: values[start : start + share] for name, values in batch.items()}

    if accelerator.num_processes > 1:
        for layer in [*model.model.text_model.layers, *model.model.vision_model.layers]:
            fully_shard(layer)
        # a scalar cannot be sharded; the loss is that of the global batch on every process, and so is its gradient
        fully_shard(model, ignored_params={model.model.logit_scale})
    num_groups = 1
    if accelerator.num_processes > 1:
        embeds = embed_batch(model, batch, accelerator, tokens_per_group=80)
        num_groups = len(split_batch(batch, accelerator, tokens_per_group=80)[0])
    else:
        embeds = model(**batch)
    scale = model.model.logit_scale.exp()
    loss, _ = make_loss("lotlip")(*embeds, logit_scale=scale, short_groups=group_short_captions(batch))
    loss.backward()
    sharded = [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradient = parameter.grad
            gradients[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    if accelerator.is_main_process:
        torch.save(
            {"loss": loss.detach(), "gradients": gradients, "sharded": sharded, "num_groups": num_groups}, sys.argv[1]
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
