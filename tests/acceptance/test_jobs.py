"""Jobs as people meet them when something gets in the way: a power cut, a locked database, a slow registry, Ctrl-C."""

import json
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from darner.testing.cluster import UpCluster, UpFactory, parse_documents
from darner.testing.content import sha256_of
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024**2
INTERRUPTED = 130


def newest_job(cluster: UpCluster) -> dict[str, Any]:
    return dict(cluster.documents("jobs", "ls", "--limit", "1")[0])


def stored_file(cluster: UpCluster, size: int) -> Path:
    """The seed's file of a content of this size."""
    content = cluster.facts.seed.dir / "content"
    (found,) = [path for path in content.rglob("*") if path.is_file() and path.stat().st_size == size]
    return found


def wait_for_bytes(origin: CountingOrigin, size: int) -> None:
    deadline = time.monotonic() + 60
    while origin.body_bytes() < size:
        assert time.monotonic() < deadline, "the preheat did not begin"
        time.sleep(0.05)


@pytest.mark.parametrize("harm", ["deleted", "cut short", "changed"])
def test_a_preheat_of_content_that_a_seed_lost_brings_it_back(shared_cluster: UpCluster, harm: str) -> None:
    size = 12 * MIB + sum(harm.encode())
    with CountingOrigin({"/a.bin": size}) as origin:
        assert shared_cluster.run("preheat", origin.url("/a.bin")).returncode == 0
        path = stored_file(shared_cluster, size)
        if harm == "deleted":
            path.unlink()
        else:
            with path.open("r+b") as file:
                file.truncate(MIB) if harm == "cut short" else file.write(b"not what the origin sent")
        again = shared_cluster.run("preheat", origin.url("/a.bin"))
        assert again.returncode == 0, again.stderr
        assert sha256_of(stored_file(shared_cluster, size)) == origin.sha256("/a.bin")


def test_ctrl_c_ends_the_watching_and_not_the_job(shared_cluster: UpCluster) -> None:
    with CountingOrigin({"/slow.bin": 24 * MIB}) as origin:
        origin.set_fault("/slow.bin", Fault(bytes_per_s=2 * MIB))
        command = shared_cluster.popen("preheat", origin.url("/slow.bin"))
        wait_for_bytes(origin, MIB)
        job = newest_job(shared_cluster)
        command.send_signal(signal.SIGINT)
        said, complaint = command.communicate(timeout=30)
        assert command.returncode == INTERRUPTED, said + complaint
        assert f"darner jobs watch {job['id']}" in complaint
        assert "Traceback" not in complaint
        assert newest_job(shared_cluster)["state"] == "PENDING"
        origin.set_fault("/slow.bin", None)
        assert shared_cluster.run("jobs", "watch", str(job["id"])).returncode == 0


def test_watching_goes_on_over_a_restart_of_the_manager_and_prints_json_lines(darner_up: UpFactory) -> None:
    cluster = darner_up(peers=0)
    with CountingOrigin({"/slow.bin": 24 * MIB}) as origin:
        origin.set_fault("/slow.bin", Fault(bytes_per_s=2 * MIB))
        watching = cluster.popen("preheat", origin.url("/slow.bin"), "--json")
        wait_for_bytes(origin, MIB)
        pid = cluster.facts.manager_pid
        cluster.kill(pid)
        cluster.wait_for_restart(pid)
        origin.set_fault("/slow.bin", None)
        told, complaint = watching.communicate(timeout=90)
    assert watching.returncode == 0, complaint
    lines = [json.loads(line) for line in told.splitlines()]
    assert lines[0]["state"] == "PENDING"
    assert (lines[-1]["state"], lines[-1]["bytes_done"]) == ("SUCCESS", 24 * MIB)
    assert complaint == ""


def test_a_job_is_answered_while_its_registry_says_nothing(shared_cluster: UpCluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v2/app/manifests/v1"
        done = shared_cluster.run("preheat", url, "--type", "image", "--no-wait", "--json")
        assert done.returncode == 0, done.stderr
        (job,) = parse_documents(done.stdout)
        assert (job["state"], job["detail_state"], job["part_count"]) == ("PENDING", "QUEUED", 0)
        assert shared_cluster.run("jobs", "cancel", str(job["id"])).returncode == 0
        ended = newest_job(shared_cluster)
        assert (ended["state"], ended["detail_state"]) == ("FAILURE", "CANCELLED")


def test_a_database_that_another_process_holds_is_waited_for(shared_cluster: UpCluster) -> None:
    other = sqlite3.connect(shared_cluster.data_dir / "darner.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(8.0, lambda: other.execute("COMMIT"))
    release.start()
    with CountingOrigin({"/a.bin": MIB}) as origin:
        done = shared_cluster.run("preheat", origin.url("/a.bin"))
    release.join()
    other.close()
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
def test_a_power_cut_in_the_middle_of_a_preheat_costs_only_what_was_on_its_way(darner_up: UpFactory, tmp_path: Path) -> None:
    cluster = darner_up(peers=1)
    with CountingOrigin({"/a.bin": 64 * MIB}) as origin:
        origin.set_fault("/a.bin", Fault(bytes_per_s=4 * MIB))
        assert cluster.run("preheat", origin.url("/a.bin"), "--no-wait").returncode == 0
        job_id = str(newest_job(cluster)["id"])
        wait_for_bytes(origin, 24 * MIB)
        cluster.kill_everything()
        origin.set_fault("/a.bin", None)
        cluster.start()
        watched = cluster.run("jobs", "watch", job_id)
        assert watched.returncode == 0, watched.stderr + cluster.run("jobs", "show", job_id, "--events").stdout
        # Four pieces of 4 MiB may be under way at the cut.
        assert 64 * MIB <= origin.body_bytes() <= (64 + 4 * 4) * MIB + 4

        cluster.kill_everything()
        cluster.start()
        origin.forget_counts()
        done = cluster.run("get", origin.url("/a.bin"), "-O", tmp_path / "a", "--endpoint", cluster.facts.peers[0].socket)
        assert done.returncode == 0, done.stderr
        assert sha256_of(tmp_path / "a") == origin.sha256("/a.bin")
        assert origin.body_bytes() == 0, "the seed that was started again was no parent"


def test_a_database_of_a_newer_darner_is_refused_with_the_reason_alone(darner_up: UpFactory) -> None:
    cluster = darner_up(peers=0)
    assert cluster.stop() == 0
    with sqlite3.connect(cluster.data_dir / "darner.db") as database:
        [present] = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = '9999_future'")
    database.close()
    done = subprocess.run(cluster.command(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "9999_future" in done.stderr
    assert "newer" in done.stderr
    assert "Traceback" not in done.stderr
    assert "manager is ready" not in done.stderr, "the log of the run before is not why"
    with sqlite3.connect(cluster.data_dir / "darner.db") as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (present,))
    database.close()
    cluster.start()
    assert httpx.get(f"{cluster.facts.manager_http}/healthy").status_code == 200
