"""`lotlip serve`: it answers OpenAI's client, Ctrl-C ends it, and what is wrong is told in a line before it starts."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest

import lotlip
from tests.conftest import as_token_wise


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "number, status, last",
    [(signal.SIGINT, 130, "lotlip serve: interrupted."), (signal.SIGTERM, -signal.SIGTERM, None)],
)
def test_it_answers_until_a_signal(number, status, last, model_dir):
    command = [sys.executable, "-m", "lotlip", "serve", "--model", str(model_dir), "--device", "cpu", "--port", "0"]
    options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # a job in the background of a shell inherits that SIGINT is ignored
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, **options) as server:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/v1", server.stdout.readline())[0]
            http_client = httpx.Client(trust_env=False)
            with openai.OpenAI(base_url=address, api_key="none", http_client=http_client) as client:
                assert len(client.embeddings.create(model=str(model_dir), input=["a red boat", "a tree"]).data) == 2
            server.send_signal(number)
            _, errors = server.communicate(timeout=60)
        finally:
            server.kill()
    assert server.returncode == status and "Traceback" not in errors
    assert last is None or errors.splitlines()[-1] == last


def fail(arguments: list[str], capsys) -> str:
    """What a command that fails says in its last line."""
    assert lotlip.main(["serve", "--device", "cpu", "--port", "0", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("lotlip serve: error: ")
    return error


def test_a_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"--host 127.0.0.1 --port {port} cannot be listened at" in fail(["--port", port], capsys)


def test_no_model_and_a_token_wise_one_are_told(model_dir, tmp_path, capsys):
    from transformers import AutoProcessor

    from modeling_lotlip import LotlipConfig
    from modeling_lotlip.modeling_variants_lotlip import LotlipTokenWiseModel

    config = as_token_wise(LotlipConfig.from_pretrained(model_dir))
    LotlipTokenWiseModel(config).save_pretrained(tmp_path / "tokens")
    AutoProcessor.from_pretrained(model_dir).save_pretrained(tmp_path / "tokens")
    assert "compares all tokens" in fail(["--model", str(tmp_path / "tokens")], capsys)
    assert "nowhere` cannot be used" in fail(["--model", str(tmp_path / "nowhere")], capsys)


def test_a_missing_extra_is_told(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "modeling_lotlip.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert 'pip install "lotlip[serve]"' in fail([], capsys)


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--max_batch_size", "0"], ["--max_pixels", "0"], ["--max_waiting", "9"]]
)
def test_wrong_limits_are_told(arguments, capsys):
    with pytest.raises(SystemExit):
        lotlip.main(["serve", *arguments])
    error = capsys.readouterr().err
    assert (
        error.startswith(f"lotlip serve: error: {arguments[0]}") and "must be at" in error and error.count("\n") == 1
    )
