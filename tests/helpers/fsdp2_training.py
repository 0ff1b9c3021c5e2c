"""A training with sharded parameters (FSDP2) on CPUs, on which accelerate uses DDP whatever it is asked for."""

import gc
import json
import os
from pathlib import Path

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from modeling_lotlip import LotlipModel
from modeling_lotlip.training import loop
from modeling_lotlip.training.arguments import TrainArguments
from modeling_lotlip.utils.arguments import parse


def use_fsdp2() -> None:
    """Makes `Accelerator()` shard, as the configuration in the environment says, with what its own code does."""
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        if self.initialized:
            original(self, *args, **kwargs)
        else:
            original(self, *args, **kwargs)
            self.fsdp_plugin = fsdp_plugin or FullyShardedDataParallelPlugin()
        self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = init


def is_whole(model: LotlipModel) -> bool:
    """Whether no parameter of a model is sharded."""
    return not any(isinstance(parameter, DTensor) for parameter in model.parameters())


def main(argv: list[str]) -> None:
    output_file, *argv = argv
    (args,) = parse((TrainArguments,), argv)
    use_fsdp2()
    told = {}
    gather = loop.gather_model
    whole_models = []

    def gather_and_count(model, accelerator):
        names = {True: [], False: []}
        for name, parameter in model.named_parameters():
            names[isinstance(parameter, DTensor)].append(name)
        told["whole"] = sorted(names[False])
        told["num_sharded"] = len(names[True])
        told["num_processes"] = accelerator.num_processes
        model = gather(model, accelerator)
        gc.collect()
        models = [known for known in gc.get_objects() if isinstance(known, LotlipModel)]
        whole_models.append(len([known for known in models if is_whole(known)]))
        return model

    loop.gather_model = gather_and_count
    loop.run(args)
    told["whole_models"] = whole_models
    Path(f"{output_file}.{os.environ['RANK']}").write_text(json.dumps(told))
