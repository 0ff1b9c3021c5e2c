"""Locks by which one process at a time makes what all of them use."""

from threading import Event, Thread

from modeling_lotlip.utils import locks
from modeling_lotlip.utils.locks import lock_file


def test_who_waits_for_a_lock_says_so_and_gets_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "SECONDS_IN_SILENCE", 0.01)
    file = tmp_path / "model.lock"
    is_entered = Event()

    def enter():
        with lock_file(file, "Another process makes it."):
            is_entered.set()

    waiting = Thread(target=enter)
    with lock_file(file, "Nobody makes it."):
        waiting.start()
        assert not is_entered.wait(0.2)
    waiting.join()
    assert is_entered.is_set()
    assert caplog.messages == ["Another process makes it."]
