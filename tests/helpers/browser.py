"""The search page in a process of its own, and Chromium to look at it."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling_lotlip.utils.addresses import listen
from tests.conftest import ROOT, python_environment
from tests.helpers.waiting import wait_until


@contextmanager
def serve(output: Path, *arguments: object) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of the page, and its process, whose output goes to a file."""
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    exact = ("--device", "cpu", "--backend", "torch", "--dtype", "float32")
    command = [sys.executable, "-m", "lotlip", "app", "--port", port, "--no_browser", *exact, *arguments]
    options = {"cwd": ROOT, "env": python_environment(), "stderr": subprocess.STDOUT}
    with open(output, "w") as file:
        process = subprocess.Popen(list(map(str, command)), **options, stdout=file)
    try:
        wait_until(
            lambda: "Search your images at" in output.read_text() or process.poll() is not None, output.read_text
        )
        assert process.poll() is None, output.read_text()
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def open_chromium() -> Iterator:
    """The installed Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path is not None, "there is no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
