"""`kill -9` of one process in the middle of a preheat: `up` starts it again, and job, bytes and disks end as they should."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from darner.testing.cluster import Facts, UpCluster, UpFactory
from darner.testing.image import ImageLayout, make_image
from darner.testing.registry import SmallRegistry

MIB = 1024**2
LAYERS = (48 * MIB, 16 * MIB, MIB)
ENDED = ("SUCCESS", "FAILURE")
VICTIMS: dict[str, Callable[[Facts], int]] = {
    "manager": lambda facts: facts.manager_pid,
    "scheduler": lambda facts: facts.scheduler_pids[0],
    "seed": lambda facts: facts.seed.pid,
    "peer": lambda facts: facts.peers[0].pid,
}


def wait_for_end(cluster: UpCluster, job_id: int, *, timeout_s: float = 200) -> dict[str, Any]:
    """The job once it has ended; a manager that is just coming back is asked again."""
    deadline = time.monotonic() + timeout_s
    shown: dict[str, Any] = {}
    while time.monotonic() < deadline:
        done = cluster.documents("jobs", "show", str(job_id)) if cluster.run("jobs", "show", str(job_id)).returncode == 0 else []
        shown = done[0] if done else shown
        if shown.get("state") in ENDED:
            return shown
        time.sleep(0.5)
    pytest.fail(f"the job did not end: {shown}\n{cluster.log_tail()}")


def wait_until_a_third_has_left(registry: SmallRegistry, layout: ImageLayout) -> None:
    deadline = time.monotonic() + 60
    while sum(registry.blob_bytes().values()) < sum(layout.blobs().values()) / 3:
        assert time.monotonic() < deadline, "the preheat did not begin"
        time.sleep(0.05)


def unexpected_files(cluster: UpCluster) -> list[str]:
    """Files in the daemons' stores that are neither content under its task's id nor the store's own records."""
    found = []
    for daemon in cluster.facts.daemons:
        content = daemon.dir / "content" / "tasks"
        for path in (path for path in daemon.dir.rglob("*") if path.is_file()):
            named = path.parent.parent == content and len(path.name) == 64 and path.name.startswith(path.parent.name)
            if not named and ("content" in path.parts or "spool" in path.parts or path.name.endswith((".tmp", ".part"))):
                found.append(str(path))
    return found


@pytest.mark.timeout(420)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_process_killed_in_the_middle_of_a_preheat_changes_nothing_in_the_end(
    darner_up: UpFactory, tmp_path: Path, victim: str
) -> None:
    layout = make_image(tmp_path / "image", layers=LAYERS)
    with SmallRegistry() as registry:
        registry.add("app", "v1", layout)
        registry.bytes_per_s = 5 * MIB
        cluster = darner_up(peers=2, env={"DARNER_PROXY__REGISTRYMIRROR__ADDR": registry.server.base_url})
        started = cluster.run("preheat", registry.manifest_url("app", "v1"), "--type", "image", "--scope", "all_peers", "--no-wait")
        assert started.returncode == 0, started.stderr
        job_id = cluster.documents("jobs", "ls")[0]["id"]
        wait_until_a_third_has_left(registry, layout)
        pid = VICTIMS[victim](cluster.facts)
        cluster.kill(pid)
        registry.bytes_per_s = 0.0
        cluster.wait_for_restart(pid)

        job = wait_for_end(cluster, job_id)
        timeline = cluster.run("jobs", "show", str(job_id), "--events").stdout
        assert (job["state"], job["detail_state"]) == ("SUCCESS", "SUCCEEDED"), timeline
        sent = registry.blob_bytes()
        assert all(size <= sent[digest] <= 2 * size + 4 * MIB for digest, size in layout.blobs().items()), sent

        registry.forget_counts()
        for daemon in cluster.facts.daemons:
            for digest, size in layout.blobs().items():
                served = httpx.get(f"{daemon.mirror}/v2/app/blobs/{digest}", timeout=60)
                assert (served.status_code, len(served.content)) == (200, size)
                assert served.content == layout.blob_path(digest).read_bytes()
        assert registry.blob_bytes() == {}, "a daemon of a finished job had to read from the registry"
        assert unexpected_files(cluster) == []
