"""What processes agree on, with a second process that is made up."""

from types import SimpleNamespace

import pytest
import torch

from modeling_lotlip.training import processes
from modeling_lotlip.training.processes import fail_together, gather_max


def make_pair_of_processes(*values_of_the_other: int) -> SimpleNamespace:
    """The accelerator of a process beside which there is another one with these values."""
    return SimpleNamespace(
        num_processes=2,
        device="cpu",
        gather=lambda values: torch.cat([values, torch.tensor([values_of_the_other])]),
    )


def test_each_value_becomes_the_max_of_all_processes():
    assert gather_max([3, 1], make_pair_of_processes(2, 5)) == [3, 5]


def test_what_a_block_leaves_becomes_the_max_under_its_name():
    with fail_together(make_pair_of_processes(0, 2, 5), num_groups=0, stop_number=0) as agreed:
        agreed["num_groups"] = 3
        agreed["stop_number"] = 1
    assert agreed == {"num_groups": 3, "stop_number": 5}


def test_a_block_that_fails_raises_its_own_error(monkeypatch):
    monkeypatch.setattr(processes, "gather_object", lambda messages: [*messages, None])
    with pytest.raises(KeyError, match="mine"), fail_together(make_pair_of_processes(0)):
        raise KeyError("mine")


def test_a_block_that_fails_elsewhere_is_an_error_with_the_message_from_there(monkeypatch):
    monkeypatch.setattr(processes, "gather_object", lambda messages: [*messages, "no disk"])
    with pytest.raises(ValueError, match="^no disk$"), fail_together(make_pair_of_processes(1)):
        pass
