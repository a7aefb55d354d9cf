"""`darner up` on MariaDB and PostgreSQL: the usual work, servers that go away under it, and `darner db`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from darner.db import Database
from darner.db.tables.jobs import job
from darner.testing.cluster import UpCluster, UpFactory
from darner.testing.databases import MariaDb, PostgreSql, Server
from darner.testing.origin import CountingOrigin, Fault

MIB = 1024**2
HOUR_MS = 3_600_000
KINDS = [pytest.param(kind, marks=pytest.mark.debian(kind.package), id=kind.kind) for kind in (MariaDb, PostgreSql)]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of its own, because it is stopped and killed here."""
    with request.param() as running:
        yield running


def ok(cluster: UpCluster, *args: str | Path, timeout_s: float = 90.0) -> str:
    done = cluster.run(*args, timeout_s=timeout_s)
    assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    return done.stdout


def jobs(cluster: UpCluster) -> list[dict[str, Any]]:
    return cluster.documents("jobs", "ls")


def age_all(url: str, hours: float) -> None:
    """Make all ended jobs older than they are."""
    db = Database.open(url)
    back = int(hours * HOUR_MS)
    moved = {name: job.c[name] - back for name in ("created_at", "finished_at", "base_at")}
    db.write_sync(lambda conn: conn.execute(update(job).where(job.c.finished_at.is_not(None)).values(moved)))
    db.close()


def test_the_usual_work_on_a_server(server: Server, darner_up: UpFactory) -> None:
    url = server.create()
    cluster = darner_up(peers=1, database=url)
    with CountingOrigin({"/a.bin": 8 * MIB, "/b.bin": MIB}) as origin:
        cluster.documents("retention", "policy", "set", "--keep", "6h", "--reason", "as upstream", "--yes")
        ok(cluster, "preheat", origin.url("/a.bin"), "--scope", "all_peers")
        (old,) = jobs(cluster)
        assert old["detail_state"] == "SUCCEEDED"
        age_all(url, 7)
        ok(cluster, "preheat", origin.url("/b.bin"))
        (run,) = cluster.documents("retention", "run", "--yes")
        assert [one["id"] for one in jobs(cluster)] == [old["id"] + 1], run
    checked = cluster.documents("db", "check")[0]
    assert checked["ok"], checked
    assert "not-a-secret" not in str(checked)
    assert {"connection", "schema", "clock", "version"} <= {one["name"] for one in checked["findings"]}
    sized = cluster.documents("db", "size")[0]
    assert {"job", "job_payload"} <= {one["name"] for one in sized["tables"]}
    assert cluster.documents("db", "upgrade", "--dry-run")[0]["steps"] == []


def test_a_server_that_is_killed_delays_work_and_loses_none(server: Server, darner_up: UpFactory) -> None:
    cluster = darner_up(peers=1, database=server.create())
    with CountingOrigin({"/slow.bin": 24 * MIB, "/b.bin": MIB}) as origin:
        origin.set_fault("/slow.bin", Fault(bytes_per_s=4 * MIB))
        ok(cluster, "preheat", origin.url("/slow.bin"), "--no-wait")
        server.kill()
        away = cluster.run("jobs", "ls", timeout_s=60)
        assert away.returncode == 1
        assert "does not answer" in away.stderr
        assert "Traceback" not in away.stderr
        server.start()
        (slow,) = jobs(cluster)
        ok(cluster, "jobs", "watch", str(slow["id"]), timeout_s=120)
        ok(cluster, "preheat", origin.url("/b.bin"))
        assert [one["detail_state"] for one in jobs(cluster)] == ["SUCCEEDED", "SUCCEEDED"]
        cluster.documents("retention", "run", "--dry-run")
    assert "Traceback" not in (cluster.data_dir / "logs" / "manager.log").read_text()


@pytest.mark.debian("postgresql")
def test_another_database_in_the_same_directory_is_another_history(postgresql_server: Server, darner_up: UpFactory) -> None:
    with CountingOrigin({"/a.bin": MIB}) as origin:
        cluster = darner_up(peers=1)
        ok(cluster, "preheat", origin.url("/a.bin"))
        assert cluster.stop() == 0
        cluster.env["DARNER_DATABASE__URL"] = postgresql_server.create()
        cluster.start()
        assert jobs(cluster) == []
        ok(cluster, "preheat", origin.url("/a.bin"))
        assert len(jobs(cluster)) == 1


def test_a_server_that_is_not_there_is_told_in_one_line(server: Server, tmp_path: Path) -> None:
    url = server.create()
    server.stop()
    cluster = UpCluster(tmp_path / "up", peers=0, database=url)
    done = cluster.run("db", "check", "--database", url, timeout_s=60)
    assert done.returncode == 1
    assert "does not answer" in done.stdout + done.stderr
    assert "not-a-secret" not in done.stdout + done.stderr
