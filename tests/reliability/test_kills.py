"""The short form of `kills.py`: three kills of each job, one of them in the middle of a write."""

import os

import pytest

from tests.reliability.kills import Run, find_file_in_work, make_jobs


@pytest.mark.parametrize("name", ["training", "captioning", "indexing"])
def test_a_job_that_is_killed_ends_as_the_undisturbed_one(tmp_path, name):
    told = []
    with make_jobs(tmp_path, num_steps=6, num_pictures=40, num_copies=4) as jobs:
        (job,) = (job for job in jobs if job.name == name)
        summary = Run(job, tmp_path, seed=0, has_workers=False).run(3, told.append)
    assert summary.startswith(f"{name}: 3 kills, 1 of them while a file was written, in ")
    assert len(told) == 3 and "while it wrote" in told[0]


def test_a_write_is_told_by_the_open_files(tmp_path):
    (tmp_path / "read").touch()
    with open(tmp_path / "read"), open(tmp_path / ".lock", "w"):
        assert find_file_in_work(os.getpid(), tmp_path) is None
        with open(tmp_path / "written", "w"):
            assert find_file_in_work(os.getpid(), tmp_path) == "written"
    assert find_file_in_work(os.getpid(), tmp_path) is None
