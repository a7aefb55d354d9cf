"""Retention through the command line of a real system: set, looked at, held, guarded, undone, rolled back, archived.

Jobs must be an hour old before anything moves, so these tests make them older in the database file.
"""

import json
import os
import pty
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from darner.db import Database
from darner.testing.cluster import UpCluster, UpFactory, darner_command
from darner.testing.history import Shape, fill
from darner.testing.origin import CountingOrigin

MIB = 1024**2
HOUR_MS = 3_600_000
FAILED, USAGE = 1, 2


def ok(cluster: UpCluster, *args: str | Path, text_in: str | None = None) -> str:
    done = cluster.run(*args, text_in=text_in)
    assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    return done.stdout


def refused(cluster: UpCluster, *args: str, code: int = FAILED, text_in: str | None = None) -> str:
    """What it says on stderr: one paragraph."""
    done = cluster.run(*args, text_in=text_in)
    assert done.returncode == code, f"{args}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("darner: "), done.stderr
    return done.stderr


def policy(cluster: UpCluster) -> dict[str, Any]:
    return dict(cluster.documents("retention", "policy", "show")[0])


def job(cluster: UpCluster, job_id: int) -> dict[str, Any]:
    return dict(cluster.documents("jobs", "show", str(job_id), "--events")[0])


def ids(cluster: UpCluster, *filters: str) -> list[int]:
    return [one["id"] for one in cluster.documents("jobs", "ls", "--limit", "1000", *filters)]


def preheat(cluster: UpCluster, *options: str) -> int:
    """A job that ends well; its id."""
    with CountingOrigin({"/a.bin": MIB}) as origin:
        ok(cluster, "preheat", origin.url("/a.bin"), *options)
    return ids(cluster, "--limit", "1")[0]


def age(cluster: UpCluster, job_id: int, hours: float) -> None:
    """Make an ended job older than it is."""
    back = int(hours * HOUR_MS)
    names = ("created_at", "started_at", "finished_at", "base_at")
    moved = ", ".join(f"{name} = {name} - {back}" for name in names)
    with closing(sqlite3.connect(cluster.data_dir / "darner.db", timeout=30)) as conn, conn:
        changed = conn.execute(f"UPDATE job SET {moved} WHERE id = ? AND finished_at IS NOT NULL", (job_id,)).rowcount  # noqa: S608
    assert changed == 1


def sweep(cluster: UpCluster) -> dict[str, Any]:
    return dict(cluster.documents("retention", "run")[0])


def answered(cluster: UpCluster, *args: str, answer: str, **env: str) -> tuple[int, str]:
    """Exit code and output of a command at a terminal where a person types something."""
    ours, theirs = pty.openpty()
    command = [*darner_command(), "--data-dir", str(cluster.data_dir), *args]
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            command, stdin=theirs, capture_output=True, text=True, env={**cluster.env, **env}, timeout=60, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def system(shared_cluster: UpCluster) -> UpCluster:
    """A system with the policy of a fresh installation and nothing held."""
    ok(shared_cluster, "retention", "policy", "preset", "default", "--yes")
    return shared_cluster


# The policy.


def test_a_looser_rule_is_set_at_once_and_a_tighter_one_needs_consent(system: UpCluster) -> None:
    version = policy(system)["version"]
    said = ok(system, "retention", "policy", "set", "--rule", "success", "--warm", "14d", "--reason", "audits look back")
    assert "warm 7d → 14d" in said
    assert policy(system)["version"] == version + 1
    complaint = refused(system, "retention", "policy", "set", "--rule", "success", "--warm", "2d")
    assert "--yes" in complaint
    assert "tightens" in complaint
    assert policy(system)["version"] == version + 1
    ok(system, "retention", "policy", "set", "--rule", "success", "--warm", "2d", "--yes")
    assert "audits look back" in ok(system, "retention", "policy", "history")
    words = ok(system, "retention", "policy", "diff", str(version), str(version + 2))
    assert "warm 7d → 2d" in words
    ok(system, "retention", "policy", "rollback", str(version))
    assert policy(system)["rules"] == system.documents("retention", "policy", "show", str(version))[0]["rules"]


def test_a_person_is_asked_before_a_tighter_rule_and_the_answer_counts(system: UpCluster) -> None:
    version = policy(system)["version"]
    tighter = ("retention", "policy", "set", "--rule", "success", "--warm", "2d")
    code, said = answered(system, *tighter, answer="n\n")
    assert (code, policy(system)["version"]) == (FAILED, version), said
    assert "tightens the policy" in said
    code, said = answered(system, *tighter, answer="y\n")
    assert (code, policy(system)["version"]) == (0, version + 1), said


def test_a_policy_is_changed_in_an_editor(system: UpCluster, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/warm: 7d/warm: $AGE/" "$1"\n')
    editor.chmod(0o755)
    version = policy(system)["version"]
    command = ("retention", "policy", "edit", "--reason", "by hand")
    code, said = answered(system, *command, answer="n\n", EDITOR=str(editor), AGE="10m")
    assert (code, policy(system)["version"]) == (FAILED, version), said
    assert "rule success, warm: '10m' is too short" in said
    code, said = answered(system, *command, answer="", EDITOR=str(editor), AGE="9d")
    assert (code, policy(system)["version"]) == (0, version + 1), said
    assert policy(system)["rules"][1]["warm"] == "9d"
    code, said = answered(system, *command, answer="", EDITOR="false")
    assert code == FAILED
    assert "nothing was changed" in said


def test_a_dry_run_of_a_change_and_a_change_that_changes_nothing_make_no_version(system: UpCluster) -> None:
    version = policy(system)["version"]
    ok(system, "retention", "policy", "preset", "frugal", "--dry-run")
    ok(system, "retention", "policy", "set", "--keep", "2h", "--dry-run")
    assert "stays in force" in ok(system, "retention", "policy", "preset", "default")
    assert policy(system)["version"] == version


def test_a_policy_goes_through_a_file_and_back(system: UpCluster, tmp_path: Path) -> None:
    shown = ok(system, "retention", "policy", "show", "--yaml")
    file = tmp_path / "policy.yaml"
    file.write_text(shown.replace("hot: 6h", "hot: 5h"))
    ok(system, "retention", "policy", "set", "--file", file)
    assert {rule["hot"] for rule in policy(system)["rules"]} == {"5h"}
    ok(system, "retention", "policy", "set", "--file", "-", "--yes", text_in=shown)
    assert {rule["hot"] for rule in policy(system)["rules"]} == {"6h"}


def test_what_an_upstream_file_says_of_retention_becomes_the_policy(system: UpCluster, tmp_path: Path) -> None:
    file = tmp_path / "manager.yaml"
    file.write_text("job: {gc: {interval: 3h, ttl: 30h}}\nauth: {jwt: {key: secret}}\n")
    said = ok(system, "config", "import", file, "--process", "manager", "--retention")
    found = policy(system)
    assert f"version {found['version']}" in said
    assert (found["origin"], found["rules"][0]["hot"], found["rules"][0]["basis"]) == ("grandfathered", "30h", "created")


def test_a_policy_made_from_an_older_version_is_refused_and_says_who_changed_it(system: UpCluster) -> None:
    old = ok(system, "retention", "policy", "show", "--json")
    ok(system, "retention", "policy", "set", "--rule", "rest", "--warm", "40d", "--reason", "an audit")
    complaint = refused(system, "retention", "policy", "set", "--file", "-", "--yes", text_in=old.replace('"30d"', '"35d"'))
    assert "an audit" in complaint
    assert "Look at what changed" in complaint


def test_a_preview_tells_what_another_policy_would_do_to_the_jobs_that_are_there(system: UpCluster) -> None:
    job_id = preheat(system)
    age(system, job_id, 30)
    (shown,) = system.documents("retention", "preview", "--preset", "frugal")
    assert shown["diff"]["rows_sooner"] >= 1
    assert any(job_id in entry["samples"] for entry in shown["rules"] if entry["action"] == "hide")
    said = ok(system, "retention", "preview", "--preset", "frugal")
    assert "will be forgotten sooner" in said
    assert job_id in ids(system)


# Jobs.


def test_a_job_gets_warm_and_tells_the_same_as_before(system: UpCluster) -> None:
    job_id = preheat(system, "--label", "team=ml", "--importance", "high")
    before = job(system, job_id)
    assert (before["labels"], before["importance"], before["tier"]) == ({"team": "ml"}, "high", "hot")
    age(system, job_id, 7)
    sweep(system)
    after = job(system, job_id)
    assert after["tier"] == "warm"
    assert job_id in ids(system, "--tier", "warm")
    assert job_id not in ids(system, "--tier", "hot")
    kept = {"id", "state", "args", "summary", "events", "labels", "importance", "part_count", "bytes_done"}
    differing = {key for key in kept if key != "events" and before[key] != after[key]}
    assert not differing
    assert [event["message"] for event in after["events"]] == [event["message"] for event in before["events"]]
    assert "warm, deleted in" in ok(system, "jobs", "show", str(job_id))


def test_a_rule_decides_about_jobs_with_its_labels(system: UpCluster) -> None:
    job_id = preheat(system, "--label", "pipeline=release")
    rule = {"name": "releases", "match": {"labels": {"pipeline": ["release"]}}, "hot": "6h", "warm": "3660d", "undo": "24h"}
    rules = [rule, *policy(system)["rules"]]
    ok(system, "retention", "policy", "set", "--file", "-", text_in=json.dumps({"rules": rules}))
    assert job(system, job_id)["retention"]["rule"] == "releases"
    assert "label pipeline=release" in ok(system, "retention", "policy", "show")


def test_an_old_job_goes_comes_back_with_everything_and_stays_then(system: UpCluster) -> None:
    job_id = preheat(system)
    before = job(system, job_id)
    age(system, job_id, 8 * 24)
    run = sweep(system)
    assert run["state"] == "DONE", run
    assert job_id not in ids(system)
    assert job_id in ids(system, "--tier", "deleted")
    assert "gone in" in ok(system, "jobs", "ls", "--tier", "deleted")
    assert f"darner jobs release {job_id}" in ok(system, "jobs", "restore", str(job_id))
    sweep(system)
    after = job(system, job_id)
    assert after["held"]
    assert after["args"] == before["args"]
    assert len(after["events"]) >= len(before["events"])
    assert job_id in ids(system)
    ok(system, "jobs", "release", str(job_id))
    sweep(system)
    assert job_id not in ids(system)


def test_a_job_that_a_person_removes_can_be_restored_for_a_while(system: UpCluster) -> None:
    job_id = preheat(system)
    assert "--yes" in refused(system, "jobs", "rm", str(job_id))
    assert job_id in ids(system)
    assert f"darner jobs restore {job_id}" in ok(system, "jobs", "rm", str(job_id), "--yes")
    assert job_id not in ids(system)
    ok(system, "jobs", "restore", str(job_id))
    assert job_id in ids(system)
    ok(system, "jobs", "release", str(job_id))
    assert "not deleted" in refused(system, "jobs", "restore", str(preheat(system)))


def test_holds_keep_jobs_until_they_end(system: UpCluster) -> None:
    post_mortem, tagged = preheat(system), preheat(system, "--tag", "case-4711")
    ok(system, "jobs", "hold", str(post_mortem), "--reason", "post-mortem", "--until", "30d")
    (hold,) = system.documents("retention", "holds", "add", "--tag", "case-4711", "--reason", "a case", "--until", "2099-01-31")
    assert hold["until"].startswith("2099-01-31")
    listed = ok(system, "retention", "holds", "ls")
    assert f"job {post_mortem} " in listed
    assert "tag case-4711" in listed
    for job_id in (post_mortem, tagged):
        age(system, job_id, 60 * 24)
    sweep(system)
    assert {post_mortem, tagged} <= set(ids(system))
    assert "It is held: post-mortem." in ok(system, "jobs", "show", str(post_mortem))
    assert "a case" in ok(system, "jobs", "show", str(tagged))
    ok(system, "jobs", "release", str(post_mortem))
    ok(system, "retention", "holds", "rm", str(hold["id"]))
    left = [one for one in system.documents("retention", "holds", "ls") if one["job_id"] == post_mortem or one["id"] == hold["id"]]
    assert not left, "what was released is still listed"
    sweep(system)
    assert not {post_mortem, tagged} & set(ids(system))


# Sweeps.


def test_sweeps_are_told_paused_and_kept_to_hours(system: UpCluster) -> None:
    said = ok(system, "retention", "run", "--dry-run")
    assert "dry run" in said
    run = sweep(system)
    assert str(run["id"]) in ok(system, "retention", "runs", "ls")
    assert f"run {run['id']}  DONE" in ok(system, "retention", "runs", "show", str(run["id"]), "--batches")
    assert "paused" in ok(system, "retention", "pause")
    assert "paused" in ok(system, "retention", "status")
    assert "waiting" in ok(system, "retention", "resume")
    assert "22:00 to 06:00 (UTC)" in ok(system, "retention", "window", "set", "22:00-06:00")
    assert "22:00" in ok(system, "retention", "status")
    assert "any time" in ok(system, "retention", "window", "set", "any")


def test_a_policy_that_nobody_looked_at_is_held_back_until_a_person_confirms(darner_up: UpFactory) -> None:
    cluster = darner_up(peers=0)
    ok(cluster, "retention", "pause")
    db = Database.open(f"sqlite:///{cluster.data_dir / 'darner.db'}")
    fill(db, Shape(jobs=1_500, newest_ms=int(time.time() * 1000) - 30 * HOUR_MS, step_ms=1_000))
    db.close()
    sweep(cluster)
    count = len(ids(cluster))
    body = {"keep": "2h", "reason": "a slip of the hand"}
    token = cluster.facts.token_file.read_text().strip()
    url = f"{cluster.facts.manager_http}/api/v1/retention/policy"
    httpx.put(url, json=body, headers={"Authorization": f"Bearer {token}"}, trust_env=False).raise_for_status()

    complaint = refused(cluster, "retention", "run")
    assert "darner retention preview" in complaint
    run_id = cluster.documents("retention", "runs", "ls")[0]["id"]
    assert f"darner retention runs confirm {run_id}" in complaint
    assert len(ids(cluster)) == count
    assert f"runs confirm {run_id}" in ok(cluster, "retention", "status")

    ok(cluster, "retention", "runs", "confirm", str(run_id))
    assert ids(cluster) == []
    assert len(ids(cluster, "--tier", "deleted")) == 1_000


def test_old_jobs_are_archived_found_and_restored(darner_up: UpFactory, tmp_path: Path) -> None:
    where = {"DARNER_RETENTION__ARCHIVE__URL": str(tmp_path / "archive"), "DARNER_RETENTION__ARCHIVE__LEAST_JOBS": "1"}
    cluster = darner_up(peers=0, env=where)
    job_id = preheat(cluster)
    before = job(cluster, job_id)
    age(cluster, job_id, 8 * 24)
    sweep(cluster)
    after = job(cluster, job_id)
    assert after["tier"] == "archive"
    assert after["args"] == before["args"]
    assert [event["message"] for event in after["events"]] == [event["message"] for event in before["events"]]
    assert job_id in ids(cluster)
    assert ids(cluster, "--tier", "archive") == [job_id]
    (segment,) = cluster.documents("retention", "archive", "ls")
    assert segment["row_count"] == 1
    ok(cluster, "jobs", "restore", str(job_id))
    back = job(cluster, job_id)
    assert (back["tier"], back["held"]) == ("warm", True)
    assert ids(cluster) == [job_id]


# What everybody meets: wrong input, JSON, completion.


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("policy", "set"), USAGE, "--keep 36h"),
        (("policy", "set", "--keep", "36h", "--rule", "success"), USAGE, "not both"),
        (("policy", "set", "--warm", "3d"), USAGE, "--rule"),
        (("policy", "set", "--rule", "success"), USAGE, "--warm 14d"),
        (("policy", "set", "--rule", "sucess", "--warm", "3d"), FAILED, "did you mean success"),
        (("policy", "set", "--rule", "success", "--warm", "10m"), FAILED, "rule success, warm: '10m' is too short"),
        (("policy", "set", "--rule", "success", "--warm", "1h"), FAILED, "ends before hot does"),
        (("policy", "set", "--rule", "success", "--hot", "none"), USAGE, "hot first"),
        (("policy", "set", "--rule", "success", "--basis", "birth"), FAILED, "finished, created"),
        (("policy", "set", "--keep", "soon"), FAILED, "not a duration"),
        (("policy", "set", "--keep", "59m"), FAILED, "1h after its end"),
        (("policy", "set", "--file", "/nowhere.yaml"), FAILED, "cannot read /nowhere.yaml"),
        (("policy", "preset", "frugle"), FAILED, "Did you mean frugal"),
        (("policy", "rollback", "99999"), FAILED, "no version 99999"),
        (("policy", "diff", "1", "99999"), FAILED, "no version 99999"),
        (("policy", "show", "99999"), FAILED, "no version 99999"),
        (("policy", "edit"), FAILED, "terminal"),
        (("preview", "--preset", "frugal", "--version", "1"), USAGE, "not both"),
        (("preview", "--keep", "1m"), FAILED, "1h after its end"),
        (("run", "--preview-token", "wrong"), FAILED, "preview"),
        (("runs", "show", "99999"), FAILED, "no run 99999"),
        (("runs", "confirm", "99999"), FAILED, "no run 99999"),
        (("runs", "cancel", "99999"), FAILED, "no run 99999"),
        (("holds", "add", "--reason", "x"), USAGE, "--job ID"),
        (("holds", "add", "--reason", "x", "--type", "prehet"), FAILED, "did you mean preheat"),
        (("holds", "add", "--reason", "x", "--label", "team"), USAGE, "KEY=VALUE"),
        (("holds", "add", "--reason", "x", "--job", "99999"), FAILED, "no job 99999"),
        (("holds", "add", "--reason", "x", "--tag", "t", "--until", "never"), USAGE, "30d"),
        (("holds", "add", "--reason", "x", "--tag", "t", "--until", "2001-01-01"), FAILED, "past"),
        (("holds", "rm", "99999"), FAILED, "no hold 99999"),
        (("restore", "99999"), FAILED, "neither in the database nor in the archive"),
        (("window", "set", "late"), FAILED, "22:00-06:00"),
        (("window", "set", "22:00-06:00", "--zone", "Mars/Base"), FAILED, "no time zone"),
        (("budget", "set", "20 parsec"), FAILED, "keep at most"),
    ],
)
def test_wrong_input_is_answered_with_what_would_be_right(
    shared_cluster: UpCluster, words: tuple[str, ...], code: int, said: str
) -> None:
    assert said in refused(shared_cluster, "retention", *words, "--yes", code=code)


@pytest.mark.parametrize(
    "words",
    [
        ("retention", "status"),
        ("retention", "policy", "show"),
        ("retention", "policy", "history"),
        ("retention", "policy", "preset"),
        ("retention", "policy", "preset", "frugal", "--dry-run"),
        ("retention", "policy", "diff", "1"),
        ("retention", "preview"),
        ("retention", "run", "--dry-run"),
        ("retention", "runs", "ls"),
        ("retention", "holds", "ls"),
        ("retention", "window", "show"),
        ("retention", "budget", "show"),
        ("retention", "exports"),
        ("jobs", "ls", "--tier", "hot"),
    ],
    ids=" ".join,
)
def test_json_is_all_there_is_on_stdout(shared_cluster: UpCluster, words: tuple[str, ...]) -> None:
    done = shared_cluster.run(*words, "--json")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["people", "json"])
def test_a_terminal_that_knows_few_characters_gets_the_answer_all_the_same(system: UpCluster, more: tuple[str, ...]) -> None:
    command = ["retention", "policy", "set", "--rule", "success", "--warm", "9d", "--dry-run", *more]
    env = {**system.env, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*darner_command(), "--data-dir", str(system.data_dir), *command], env=env, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    if more:
        assert "Rule success: warm 7d → 9d." in json.loads(done.stdout)["diff"]["words"]
    else:
        assert b"warm 7d -> 9d" in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("retention policy preset fr", {"frugal"}),
        ("retention policy set --rule su", {"success"}),
        ("jobs ls --tier ", {"hot", "warm", "archive", "deleted"}),
        ("jobs ls --state FAIL", {"FAILURE", "FAILED"}),
        ("retention holds add --type pre", {"preheat"}),
        ("preheat --importance c", {"critical"}),
    ],
)
def test_the_shell_completes_names_that_are_known(system: UpCluster, typed: str, offered: set[str]) -> None:
    facts = system.facts
    words = {"COMP_WORDS": f"darner {typed}", "COMP_CWORD": str(len(f"darner {typed}".split(" ")) - 1)}
    known = {"DARNER_MANAGER": facts.manager_http, "DARNER_TOKEN": facts.token_file.read_text().strip()}
    env = {**os.environ, **words, **known, "_DARNER_COMPLETE": "complete_bash"}
    done = subprocess.run(darner_command(), env=env, capture_output=True, text=True, timeout=30, check=False)
    assert offered <= set(done.stdout.split()), done.stdout + done.stderr
