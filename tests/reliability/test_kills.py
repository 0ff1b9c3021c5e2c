"""The short form of `kills.py`: three kills of each job, one of them in the middle of a write."""

import pytest

from tests.reliability.kills import Run, make_jobs


@pytest.mark.processes
@pytest.mark.parametrize("name", ["training", "captioning", "indexing", "embedding"])
def test_a_job_that_is_killed_ends_as_the_undisturbed_one(tmp_path, name):
    told = []
    with make_jobs(tmp_path, num_steps=6, num_pictures=40, num_copies=4) as jobs:
        (job,) = (job for job in jobs if job.name == name)
        summary = Run(job, tmp_path, seed=0, has_workers=False).run(3, told.append)
    assert summary.startswith(f"{name}: 3 kills, 1 of them while a file was written, in ")
    assert len(told) == 3
    assert "while it wrote" in told[0]
