"""What `common.py` has, for the processes that run tests, or start others: its imports take seconds."""

import gc
import importlib
import os
from tempfile import TemporaryDirectory

import pytest


# Indices and converted towers of tests do not go to those of the user. It is read when the library is imported; the
# processes of pytest-xdist, and commands that tests start, have it from the first process.
if "PYTEST_XDIST_WORKER" not in os.environ:
    ASSETS = TemporaryDirectory(prefix="lotlip-tests-", ignore_cleanup_errors=True)
    os.environ["HF_ASSETS_CACHE"] = ASSETS.name

# what little is compiled is compiled here, not by processes that import torch for it
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # hypothesis then takes the profile that is asked for
def pytest_configure(config):
    # the process that hands the tests out to workers runs none
    if config.getoption("dist", "no") == "no":
        gc.disable()
        config.pluginmanager.import_plugin("tests.common")


def __getattr__(name: str) -> object:
    """What is imported from here."""
    if name.startswith(("pytest", "_")):
        raise AttributeError(name)
    return getattr(importlib.import_module("tests.common"), name)
