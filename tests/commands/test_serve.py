"""`lotlip serve`: it answers OpenAI's client, Ctrl-C ends it, and what is wrong is told in a line before it starts."""

import re
import signal
import subprocess
import sys

import httpx
import openai

from tests.conftest import training_environment
from tests.helpers.commands import read_error


def test_it_answers_until_ctrl_c(model_dir):
    command = [sys.executable, "-m", "lotlip", "serve", "--model", str(model_dir), "--device", "cpu", "--port", "0"]
    options = {"env": training_environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a job in the background of a shell inherits that SIGINT is ignored
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, **options) as server:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/v1", server.stdout.readline())[0]
            http_client = httpx.Client(trust_env=False)
            with openai.OpenAI(base_url=address, api_key="none", http_client=http_client) as client:
                assert len(client.embeddings.create(model=str(model_dir), input=["a red boat", "a tree"]).data) == 2
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=60)
        finally:
            server.kill()
    assert server.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "lotlip serve: interrupted."


def test_a_token_wise_model_is_refused(token_wise_dir, capsys):
    error = read_error(capsys, "serve", "--device", "cpu", "--port", "0", "--model", token_wise_dir)
    assert "compares all tokens" in error
