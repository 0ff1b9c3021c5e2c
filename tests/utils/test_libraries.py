"""Files of libraries are told from those of users."""

import json
import os
import site
import sys
from pathlib import Path

import pytest

from modeling_lotlip.utils.libraries import is_of_library, list_library_folders


@pytest.mark.parametrize("root", [sys.prefix, sys.base_prefix])
def test_the_folder_of_an_environment_is_not_of_a_library_by_the_rules_of_windows(monkeypatch, root):
    """There `site` names it before that of the packages."""
    packages = os.path.join(root, "Lib", "site-packages")
    monkeypatch.setattr(site, "getsitepackages", lambda: [root, packages])
    folders = list_library_folders()
    assert Path(root) not in folders
    assert Path(packages) in folders


@pytest.mark.parametrize("module", [json, pytest])
def test_files_of_python_and_of_installed_packages_are_of_libraries(module):
    assert is_of_library(Path(module.__file__))


def test_a_file_of_a_user_is_of_no_library(tmp_path):
    """Also in a folder that is called like one of packages."""
    assert not is_of_library(tmp_path / "site-packages" / "mine.py")
