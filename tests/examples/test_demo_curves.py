"""The curves of the demo: those of earlier runs are taken where they were made alike."""

import json
from argparse import Namespace

import pytest

from examples.paper.demo_curves import run_example


@pytest.fixture
def kept(tmp_path):
    """The curve of a run that ended, with its folder."""
    found = {"processor_seconds": 3, "seconds": 2, "curve": [{"step": 5}]}
    (tmp_path / "curve.json").write_text(json.dumps(found))
    (tmp_path / "options.json").write_text(json.dumps({"eval_steps": 160, "example_arguments": ["--seed", "1"]}))
    return found


def test_a_curve_of_the_same_options_is_kept(kept, tmp_path):
    assert run_example(tmp_path, 0, Namespace(eval_steps=160, example_arguments=["--seed", "1"])) == kept


@pytest.mark.parametrize("changed", [{"eval_steps": 80}, {"example_arguments": []}])
def test_a_curve_of_other_options_is_refused(kept, tmp_path, changed):
    options = {"eval_steps": 160, "example_arguments": ["--seed", "1"]} | changed
    with pytest.raises(ValueError, match="was made with .*'eval_steps': 160.*, not .*: name another --output_dir"):
        run_example(tmp_path, 0, Namespace(**options))


def test_a_curve_of_unknown_options_is_refused(kept, tmp_path):
    (tmp_path / "options.json").unlink()
    with pytest.raises(ValueError, match="was made with None, not "):
        run_example(tmp_path, 0, Namespace(eval_steps=160, example_arguments=[]))
