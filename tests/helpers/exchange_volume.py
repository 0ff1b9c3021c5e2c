"""
The bytes that a process hands to the collectives in a training step, for each way to train and number of processes.
The processes are forked after the imports, which would take most of the time of 14 of them.

    python tests/helpers/exchange_volume.py OUTPUT 2 4 8
"""

import json
import sys
from collections import Counter
from functools import partial

import torch
from accelerate import Accelerator, debug_launcher
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_lotlip import LotlipModel
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.gradient_cache import backward_in_chunks
from modeling_lotlip.training.groups import BatchGroups
from modeling_lotlip.training.loss import global_loss
from modeling_lotlip.training.objectives import OBJECTIVES
from tests.conftest import tiny_config


NUM_IMAGES, SHORT_LENGTH, NUM_LONG_CAPTIONS = 4, 6, 3


class Collectives(TorchDispatchMode):
    """Counts the bytes of every collective's inputs and outputs, those of DDP's reducer included."""

    # where an operator's tensors are, and where its result is written to
    ARGUMENTS = {"allgather_": (1, 0), "allreduce_": (0, 0), "broadcast_": (0, 0)}

    def __init__(self):
        super().__init__()
        self.sent, self.received = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            name = func._opname
            for counter, place in zip((self.sent, self.received), self.ARGUMENTS[name]):  # an unknown one is an error
                counter[name] += sum(x.nbytes for x in tree_leaves(args[place]) if isinstance(x, torch.Tensor))
        return func(*args, **(kwargs or {}))


def run(accelerator: Accelerator, is_frozen: bool, tokens_per_chunk: int | None) -> dict:
    """The third step: after the first one DDP also agrees on the order in which gradients come."""
    torch.manual_seed(accelerator.process_index)
    model = ContrastiveModel(LotlipModel(tiny_config()))
    model.model.vision_model.requires_grad_(not is_frozen)
    prepared = accelerator.prepare(model)
    # the last process has the longest short captions: the others' are padded for the exchange
    is_last = accelerator.process_index == accelerator.num_processes - 1
    short_input_ids = torch.randint(5, 64, (NUM_IMAGES, SHORT_LENGTH if is_last else SHORT_LENGTH - 2))
    input_ids = torch.randint(5, 64, (NUM_IMAGES, NUM_LONG_CAPTIONS, 9))
    batch = {
        "pixel_values": torch.randn(NUM_IMAGES, 3, 32, 32),
        "short_input_ids": short_input_ids,
        "short_attention_mask": torch.ones_like(short_input_ids),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
    }
    loss_function = partial(global_loss, batch=batch, objective=OBJECTIVES["lotlip"], accelerator=accelerator)
    for _ in range(3):
        prepared.zero_grad()
        with Collectives() as collectives:
            groups = BatchGroups(batch, accelerator, tokens_per_chunk)
            if tokens_per_chunk is not None:
                assert len(groups) == 2
                backward_in_chunks(prepared, groups, loss_function, accelerator)
            else:
                loss = loss_function(*groups.embed(prepared, accelerator.device), model.model.logit_scale)
                accelerator.backward(loss.loss)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    everyone = accelerator.gather(flat[None])
    return {
        "sent": collectives.sent,
        "received": collectives.received,
        "are_gradients_equal": bool((everyone == flat).all()),
    }


def measure(output: str) -> None:
    """What each of the processes does."""
    accelerator = Accelerator(cpu=True)
    results = {
        f"{'frozen' if is_frozen else 'trained'}{'' if tokens_per_chunk is None else ', in chunks'}": run(
            accelerator, is_frozen, tokens_per_chunk
        )
        for is_frozen in (True, False)
        for tokens_per_chunk in (None, 66)  # of two images
    }
    with open(f"{output}.{accelerator.num_processes}.{accelerator.process_index}", "w") as file:
        json.dump(results, file)
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    for num_processes in map(int, sys.argv[2:]):
        debug_launcher(measure, (sys.argv[1],), num_processes)
