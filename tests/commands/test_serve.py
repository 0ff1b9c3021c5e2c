"""`lotlip serve`: it answers OpenAI's client, Ctrl-C ends it, and what is wrong is told in a line before it starts."""

import os
import signal

import httpx
import openai
import pytest

from tests.conftest import SERVER
from tests.helpers.commands import read_error, to_argv, wait_for_line
from tests.reliability.commands import run_quietly


@pytest.mark.processes
def test_it_answers_until_ctrl_c(model_dir, tmp_path):
    log = tmp_path / "log"
    argv = to_argv("serve", model=model_dir, device="cpu", port=0)
    server = SERVER.Process(target=run_quietly, args=(log, argv, True))
    server.start()
    try:
        address = wait_for_line(server, log, r"http://127\.0\.0\.1:\d+/v1")
        http_client = httpx.Client(trust_env=False)
        with openai.OpenAI(base_url=address, api_key="none", http_client=http_client) as client:
            assert len(client.embeddings.create(model=str(model_dir), input=["a red boat", "a tree"]).data) == 2
        os.kill(server.pid, signal.SIGINT)
        server.join(60)
    finally:
        server.kill()
    assert server.exitcode == 130
    output = log.read_text()
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "lotlip serve: interrupted."


def test_a_token_wise_model_is_refused(token_wise_dir, capsys):
    error = read_error(capsys, "serve", "--device", "cpu", "--port", "0", "--model", token_wise_dir)
    assert "compares all tokens" in error
