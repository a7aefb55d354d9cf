"""The benchmarks of retention stay alive, and what they prove holds: kills lose nothing, and each prints its ratio."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str, timeout_s: float = 400) -> str:
    command = [sys.executable, f"bench/{arguments[0]}", *arguments[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_thirty_processes_are_killed_over_handover_and_sweeps_and_nothing_is_lost() -> None:
    told = bench("kills.py", "30", "--seed", "7")
    assert "lost 0, seen twice 0, early 0" in told
    where = dict(re.findall(r"(\d+) (archive|deleted|warm)", told)[::-1])
    assert where, "the killed processes did no work"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("retention_load.py", "--jobs", "100000"), r"darner / upstream's way: [\d.]+ x"),
        (("bytes_per_job.py", "--jobs", "100000"), r"[\d.]+ x smaller"),
    ],
    ids=["retention_load", "bytes_per_job"],
)
def test_benchmarks_run_at_a_hundred_thousand_jobs(arguments: tuple[str, ...], says: str) -> None:
    assert re.search(says, bench(*arguments))
