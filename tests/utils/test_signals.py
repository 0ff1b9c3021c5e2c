"""Signals that tell a run to end."""

import os
import signal

import pytest

from modeling_lotlip.utils.signals import StopSignal, hold_interrupts, leave_signals_to_the_main_process


@pytest.fixture
def unnoted():
    """The signals that nobody notes, instead of the end of this process."""
    numbers = []
    all_numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.signal(number, lambda number, _: numbers.append(number)) for number in all_numbers}
    yield numbers
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_second_signal_of_a_kind_ends_the_run_at_once(unnoted, capfd):
    with StopSignal("So be it.") as stop:
        assert not stop.is_received()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_received()
        assert stop.number == signal.SIGINT
        assert unnoted == []
        os.kill(os.getpid(), signal.SIGTERM)  # what torchrun sends behind it
        assert stop.number == signal.SIGTERM
        assert unnoted == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert unnoted == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
        assert unnoted == [signal.SIGTERM, signal.SIGINT]
        os.kill(os.getpid(), signal.SIGHUP)  # the terminal is closed
        assert stop.number == signal.SIGHUP
        assert len(unnoted) == 2
    assert capfd.readouterr().err == "So be it.\n" * 3


def test_outside_signals_are_not_noted(unnoted):
    with StopSignal() as stop:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert unnoted == [signal.SIGTERM]
    assert not stop.is_received()


def test_ctrl_c_is_held_back_until_the_end(unnoted):
    with pytest.raises(ValueError, match="an error of the code inside"), hold_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        assert unnoted == []
        raise ValueError("an error of the code inside")
    assert unnoted == [signal.SIGINT]
    os.kill(os.getpid(), signal.SIGINT)
    assert unnoted == [signal.SIGINT] * 2


def test_a_data_worker_without_process_groups_as_on_windows_ignores_ctrl_c(unnoted, monkeypatch):
    monkeypatch.delattr(os, "setpgid")
    leave_signals_to_the_main_process(0)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
