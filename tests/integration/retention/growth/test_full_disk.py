"""A disk that is really full: a small file system in memory, filled to its last byte by something else."""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from darner.core.errors import DarnerError, StorageFullError
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import job, job_payload
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.growth import Growth
from darner.retention.growth.ladder import Stage
from darner.testing.history import Shape, fill

MIB = 1024**2
RESERVE = 24 * MIB
JOBS = 6_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=176m", "tmpfs", str(where)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("needs to mount a file system")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.fixture
def db(small_disk: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{small_disk}/darner.db", patience_s=5)
    migrate(opened)
    # 18 % of the jobs are older than the policy of `swept` keeps them.
    fill(opened, Shape(jobs=JOBS, newest_ms=int(time.time() * 1000) - 7_200_000, step_ms=20_000, parts=1, events=2, block=2_000))
    yield opened
    opened.close()


def fill_up(where: Path) -> None:
    """Something else takes all that is left."""
    with (where / "ballast").open("wb") as file:
        for size in (MIB, 65_536, 4_096):
            try:
                while True:
                    os.write(file.fileno(), b"\xff" * size)
            except OSError:
                continue


def put_all(db: Database, at_once: int) -> None:
    """Jobs keep coming until the disk takes no more."""
    while True:
        put(db, at_once)


def put(db: Database, jobs: int) -> None:
    """New jobs, as they come in."""

    def write(conn: Connection) -> None:
        now, first = db_now_ms(conn), int(conn.execute(select(func.max(job.c.id))).scalar_one()) + 1
        rows = [
            {"id": first + number, "type": "preheat", "state": "QUEUED", "created_at": now, "updated_at": now, "uuid": f"n{number}"}
            for number in range(jobs)
        ]
        conn.execute(insert(job), rows)
        conn.execute(insert(job_payload), [{"job_id": row["id"], "args": os.urandom(2_000).hex()} for row in rows])

    db.write_sync(write)


def swept_away(db: Database) -> int:
    """How many of the first jobs are gone."""
    left = select(func.count()).select_from(job).where(job.c.id <= JOBS)
    return JOBS - int(db.read_sync(lambda conn: conn.execute(left).scalar_one()))


async def done(swept: RetentionEngine) -> bool:
    return (await swept.runs())[0].state == "DONE"


async def until(what: Callable[[], Awaitable[bool] | bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = what()
            if found is True or (not isinstance(found, bool) and await found):
                return
            await asyncio.sleep(0.05)


async def test_on_a_full_disk_the_reserve_lets_the_sweep_make_room_and_the_manager_recovers(small_disk: Path, db: Database) -> None:
    config = GrowthConfig(first_s=0.01, look_s=0.2, reserve_bytes=RESERVE, full_s=1.5, vacuum_s=10)
    growth = Growth(db, config=config)
    swept = RetentionEngine(db, config=SweepConfig(first_after_s=(3600, 3600), prompt_s=3600))
    async with swept, growth:
        await swept.set_policy({"rules": [{"name": "all", "hot": "29h"}]}, by="test", reason="")
        growth.on_full = lambda: swept.run(dry_run=False, by="a full disk", yes=True)
        reserve = small_disk / "reserve.bin"
        await until(reserve.exists)
        assert reserve.stat().st_blocks * 512 >= RESERVE
        await db.checkpoint()
        fill_up(small_disk)
        with pytest.raises(StorageFullError):
            await asyncio.to_thread(put_all, db, 400)
        assert not reserve.exists()
        await until(lambda: growth.refuses_low_priority() is not None)
        await until(lambda: swept_away(db) >= JOBS // 10)
        await until(lambda: done(swept))
        put(db, 50)  # new jobs come in again
        (small_disk / "ballast").unlink()
        await until(reserve.exists)
        await until(lambda: growth.refuses_low_priority() is None)
        steps = (await growth.report())["ladder"]["steps"]
        assert steps[0]["after"] == Stage.REFUSE.word


async def test_without_a_reserve_the_same_sweep_could_not_even_begin(small_disk: Path, db: Database) -> None:
    async with RetentionEngine(db, config=SweepConfig(first_after_s=(3600, 3600), prompt_s=3600)) as swept:
        await swept.set_policy({"rules": [{"name": "all", "hot": "29h"}]}, by="test", reason="")
        await db.checkpoint()
        fill_up(small_disk)
        with pytest.raises(StorageFullError):
            put_all(db, 50)
        with pytest.raises(DarnerError):
            await swept.run(dry_run=False, by="test", yes=True)


async def test_room_of_removed_jobs_goes_back_to_the_file_system_in_short_steps(db: Database, small_disk: Path) -> None:
    async with Growth(db, config=GrowthConfig(reserve_bytes=0)) as growth:

        def remove(conn: Connection) -> None:
            conn.execute(job_payload.delete().where(job_payload.c.job_id <= JOBS // 2))
            conn.execute(job.delete().where(job.c.id <= JOBS // 2))

        db.write_sync(remove)
        await db.checkpoint()
        before = (small_disk / "darner.db").stat().st_size
        found = await growth.give_back()
        await db.checkpoint()
        assert (small_disk / "darner.db").stat().st_size < before * 0.9
        assert found.steps > 1
        report = await growth.report()
        assert report["figures"]["database"]["reclaimable"] < before * 0.1
