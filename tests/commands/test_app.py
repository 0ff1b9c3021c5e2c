"""`lotlip app`: what is wrong is told in a line before anything is served."""

import os
import signal

import httpx
import pytest

import lotlip
from modeling_lotlip.search.arguments import PageArguments
from modeling_lotlip.utils.addresses import listen
from tests.conftest import SERVER
from tests.helpers.commands import to_argv, wait_for_line
from tests.reliability.commands import run_quietly


def test_who_reaches_a_page():
    for host in ("0.0.0.0", "::", "example.org"):
        assert PageArguments(photos=".", host=host, without_password=True).is_shared
    for host in ("127.0.0.1", "localhost", "::1", "127.8.9.1"):
        assert not PageArguments(photos=".", host=host).is_shared


def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path, capsys):
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        status = lotlip.main(["app", str(tmp_path), "--port", str(port)])
        assert status == 2
    assert f"Cannot listen at --host 127.0.0.1 --port {port}: " in capsys.readouterr().err


@pytest.mark.processes
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_deletes_what_was_uploaded(number, status, model_dir, tmp_path):
    (tmp_path / "photos").mkdir()
    log = tmp_path / "output.txt"
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    options = {"model": model_dir, "index_dir": tmp_path / "indices", "port": port, "device": "cpu"}
    argv = to_argv("app", tmp_path / "photos", **options, backend="torch", dtype="float32")
    process = SERVER.Process(
        target=run_quietly, args=(log, [*argv, "--no_browser"], True), kwargs={"TMPDIR": str(tmp_path)}
    )
    process.start()
    try:
        wait_for_line(process, log, "Search your images at")
        file = {"files": ("a.png", b"an image", "image/png")}
        address = f"http://127.0.0.1:{port}/gradio_api/upload"
        httpx.post(address, files=file, trust_env=False).raise_for_status()
        assert [path.name for path in tmp_path.glob("lotlip-uploads-*/*/*")] == ["a.png"]
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == status
    finally:
        process.kill()
    assert not list(tmp_path.glob("lotlip-uploads-*"))
    assert "Traceback" not in log.read_text()
