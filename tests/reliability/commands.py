"""Commands in a process of their own: all that they import, so that a fork of a server has it already."""

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import lotlip
import modeling_lotlip.captioning.endpoint
import modeling_lotlip.captioning.recaption
import modeling_lotlip.encoder.batches
import modeling_lotlip.search.searcher  # noqa: F401
import modeling_lotlip.table.embed
import modeling_lotlip.training.loop  # noqa: F401
from tests.conftest import training_environment


def run_quietly(log: Path, argv: list[str], has_workers: bool, program: Callable = lotlip.main, **variables) -> None:
    """Runs a program in this process and a group of processes of its own, with what it says in a file."""
    os.setsid()
    gc.freeze()
    if not has_workers:  # which take seconds to start
        modeling_lotlip.encoder.batches.count_workers = lambda: 0
    with open(log, "a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ |= training_environment() | variables
    tempfile.tempdir = None  # is found anew, in the environment
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
    torch.set_num_threads(1)
    sys.exit(program(argv))


def launch(argv: list[str]) -> None:
    """Runs `torchrun` in this process, with what its processes write on standard output in a file."""
    from torch.distributed import run

    output, *arguments = argv
    with open(output, "w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
    run.main(arguments)
