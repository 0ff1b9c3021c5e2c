"""The processes that a launcher has started."""

from types import SimpleNamespace

import pytest

from modeling_lotlip.utils.processes import check_single_process, join_processes


@pytest.mark.parametrize(
    ("device", "has_accelerator", "expected"),
    [(None, False, True), (None, True, False), ("cpu", True, True), ("cuda:0", True, False)],
)
def test_processes_without_an_accelerator_are_joined_on_the_cpu(monkeypatch, device, has_accelerator, expected):
    """Else accelerate leaves those of torchrun alone, and each does all of the work."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: has_accelerator)
    monkeypatch.setattr("accelerate.PartialState", lambda **options: options)
    assert join_processes(device, timeout=7) == {"cpu": expected, "timeout": 7}


def test_a_command_that_does_not_share_its_work_is_started_once():
    check_single_process("align", SimpleNamespace(num_processes=1))
    with pytest.raises(ValueError, match="`lotlip align` runs in one process: start it without `accelerate launch`"):
        check_single_process("align", SimpleNamespace(num_processes=2))
