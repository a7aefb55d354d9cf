"""An upstream manager.yaml: what it says about how long jobs are kept is not dropped without a word."""

import json
from pathlib import Path

import pytest

from darner.app.cli.root import build
from darner.app.cli.run import guarded

FILE = """
job:
  gc: {ttl: 20m, interval: 3h}
  rateLimit: 5
database: {type: mysql, password: hunter2}
"""


@pytest.fixture
def manager_yaml(tmp_path: Path) -> str:
    path = tmp_path / "manager.yaml"
    path.write_text(FILE)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = guarded(build(arguments), list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def test_the_ttl_is_told_and_how_to_apply_it(capsys: pytest.CaptureFixture[str], manager_yaml: str) -> None:
    status, out, _ = run(capsys, "config", "import", manager_yaml, "--process", "manager")
    assert status == 0
    assert "# retention: job.gc.ttl is 20m, raised to 1h" in out
    assert f"darner config import {manager_yaml} --process manager --retention" in out
    ignored = [line.split()[2] for line in out.splitlines() if line.startswith("# ignored:")]
    assert {"job.gc.interval", "job.rateLimit"} <= set(ignored)
    assert "job.gc.ttl" not in ignored


def test_programs_get_the_policy(capsys: pytest.CaptureFixture[str], manager_yaml: str) -> None:
    _, out, _ = run(capsys, "--json", "config", "import", manager_yaml, "--process", "manager")
    told = json.loads(out)["retention"]
    assert told["policy"]["rules"] == [{"name": "all", "match": {}, "basis": "created", "hot": "1h"}]
    assert told["applied"] is None


def test_a_file_of_another_process_has_no_policy_to_apply(capsys: pytest.CaptureFixture[str], manager_yaml: str) -> None:
    status, _, err = run(capsys, "config", "import", manager_yaml, "--retention")
    assert status != 0
    assert "--retention needs --process manager" in err


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "job: {gc: {ttl: soon}}\n"])
def test_a_file_that_cannot_be_read_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    status, _, err = run(capsys, "config", "import", str(path), "--process", "manager")
    assert status != 0
    assert err.strip()
