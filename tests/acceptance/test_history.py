"""The job history: what a preheat leaves behind, for how long, and that a power cut takes none of it away."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from darner.testing.cluster import UpCluster, UpFactory
from darner.testing.content import sha256_of
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024**2
HOT, KEPT = timedelta(hours=6), timedelta(days=7)


def moment(text: str) -> datetime:
    assert text.endswith("Z"), f"{text}: times are RFC 3339 with Z"
    return datetime.fromisoformat(text)


def only_job(cluster: UpCluster, **wanted: object) -> dict[str, Any]:
    found = [job for job in cluster.documents("jobs", "ls") if all(job[key] == value for key, value in wanted.items())]
    assert len(found) == 1, found
    return dict(found[0])


def test_a_preheat_is_hot_for_six_hours_after_its_end_and_told_in_the_history_for_a_week(shared_cluster: UpCluster) -> None:
    with CountingOrigin({"/a.bin": 10 * MIB}) as origin:
        done = shared_cluster.run("preheat", origin.url("/a.bin"))
        assert done.returncode == 0, done.stderr
        listed = only_job(shared_cluster, type="preheat", state="SUCCESS")
        assert listed["detail_state"] == "SUCCEEDED"
        shown = shared_cluster.documents("jobs", "show", str(listed["id"]), "--events")[0]
    assert (shown["state"], shown["detail_state"]) == ("SUCCESS", "SUCCEEDED")
    kinds = [event["kind"] for event in shown["events"]]
    assert len(kinds) >= 2, kinds
    times = [moment(event["at"]) for event in shown["events"]]
    assert times == sorted(times)
    finished, retention = moment(shown["finished_at"]), shown["retention"]
    assert (retention["tier"], retention["next_tier"]) == ("hot", "warm")
    assert abs(moment(retention["moves_at"]) - finished - HOT) < timedelta(seconds=1)
    assert abs(moment(retention["forgotten_at"]) - finished - KEPT) < timedelta(seconds=1)
    for_people = shared_cluster.run("jobs", "show", str(listed["id"]), "--events")
    assert for_people.returncode == 0
    assert "SUCCEEDED" in for_people.stdout
    assert "forgotten" in for_people.stdout.lower()


def test_a_preheat_that_fails_says_so_and_why(shared_cluster: UpCluster) -> None:
    with CountingOrigin({"/gone.bin": MIB}) as origin:
        origin.set_fault("/gone.bin", Fault(status=404))
        done = shared_cluster.run("preheat", origin.url("/gone.bin"))
        assert done.returncode == 1
        assert "404" in done.stderr
        job = only_job(shared_cluster, state="FAILURE")
    assert job["detail_state"] == "FAILED"
    shown = shared_cluster.documents("jobs", "show", str(job["id"]))[0]
    assert "404" in shown["error"]


def test_the_policy_can_be_seen_changed_and_tried_before_it_acts(shared_cluster: UpCluster) -> None:
    before = shared_cluster.run("retention", "policy", "show")
    assert before.returncode == 0, before.stderr
    assert "6h" in before.stdout
    changed = shared_cluster.run("retention", "policy", "set", "--keep", "36h", "--reason", "an audit wants it", "--yes")
    assert changed.returncode == 0, changed.stderr
    assert "36h" in shared_cluster.run("retention", "policy", "show").stdout
    assert "an audit wants it" in shared_cluster.run("retention", "policy", "history").stdout
    tried = shared_cluster.run("retention", "run", "--dry-run")
    assert tried.returncode == 0, tried.stderr
    status = shared_cluster.run("retention", "status")
    assert status.returncode == 0, status.stderr
    back = shared_cluster.run("retention", "policy", "rollback", "1", "--reason", "as it was", "--yes")
    assert back.returncode == 0, back.stderr
    assert "36h" not in shared_cluster.run("retention", "policy", "show").stdout


@pytest.mark.timeout(300)
def test_after_a_power_cut_jobs_policy_and_finished_pieces_are_all_there(darner_up: UpFactory, tmp_path: Path) -> None:
    cluster = darner_up(peers=1)
    with CountingOrigin({"/kept.bin": 40 * MIB}) as origin:
        done = cluster.run("preheat", origin.url("/kept.bin"), "--scope", "all_peers")
        assert done.returncode == 0, done.stderr
        changed = cluster.run("retention", "policy", "set", "--keep", "48h", "--reason", "weekend", "--yes")
        assert changed.returncode == 0, changed.stderr
        before = only_job(cluster, type="preheat")

        cluster.kill_everything()
        assert cluster.cluster_file.exists(), "a power cut leaves cluster.json behind; the next start must cope with it"
        cluster.start()

        after = only_job(cluster, type="preheat")
        facts = ("id", "state", "detail_state", "created_at", "finished_at")
        assert {key: after[key] for key in facts} == {key: before[key] for key in facts}
        assert "48h" in cluster.run("retention", "policy", "show").stdout
        origin.forget_counts()
        for daemon in cluster.facts.daemons:
            output = tmp_path / daemon.name
            done = cluster.run("get", origin.url("/kept.bin"), "-O", output, "--endpoint", daemon.socket)
            assert done.returncode == 0, done.stderr
            assert sha256_of(output) == origin.sha256("/kept.bin")
        assert origin.body_bytes() == 0, "finished pieces were loaded again after the restart"


def test_a_job_on_hold_and_a_cancelled_job_are_shown_as_such(shared_cluster: UpCluster) -> None:
    with CountingOrigin({"/slow.bin": 64 * MIB}) as origin:
        origin.set_fault("/slow.bin", Fault(bytes_per_s=MIB))
        started = shared_cluster.run("preheat", origin.url("/slow.bin"), "--no-wait")
        assert started.returncode == 0, started.stderr
        job_id = str(shared_cluster.documents("jobs", "ls")[0]["id"])
        cancelled = shared_cluster.run("jobs", "cancel", job_id, "--yes")
        assert cancelled.returncode == 0, cancelled.stderr
        watched = shared_cluster.run("jobs", "watch", job_id, timeout_s=90)
        assert watched.returncode == 1, watched.stdout
        shown = shared_cluster.documents("jobs", "show", job_id)[0]
        assert (shown["state"], shown["detail_state"]) == ("FAILURE", "CANCELLED")
        origin.set_fault("/slow.bin", None)
    held = shared_cluster.run("jobs", "hold", job_id, "--reason", "post-mortem")
    assert held.returncode == 0, held.stderr
    assert shared_cluster.documents("jobs", "show", job_id)[0]["held"]
    assert shared_cluster.run("jobs", "release", job_id).returncode == 0
    assert not shared_cluster.documents("jobs", "show", job_id)[0]["held"]
