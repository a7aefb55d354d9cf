"""kill -9 in the middle of a sweep: no job is half removed, and the next sweep finishes the work."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import seeded

from darner.db.tables.retention import lease, retention_batch, retention_run
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine

PROGRAM = """
import asyncio, sys
from darner.db import Database
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine

async def main():
    db = Database.open("sqlite:///" + sys.argv[1])
    async with RetentionEngine(db, holder="killed", config=SweepConfig(first_batch=20, max_batch=25, min_pause_s=0.002)) as engine:
        print("sweeping", flush=True)
        await engine.run(dry_run=False, by="tester")

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(4))
async def test_a_killed_sweep_leaves_whole_jobs_and_the_next_one_finishes(history: History, tmp_path: Path, seed: int) -> None:
    await seeded(history.db)
    for index in range(500):
        history.add("SUCCEEDED", ended_h=7 + index / 100, parts=3)
    stays = history.add("SUCCEEDED", ended_h=3)

    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", PROGRAM, str(tmp_path / "darner.db")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 30
    until = 500 - random.Random(seed).randrange(1, 400)  # noqa: S311
    while len(history.left()) > until and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)  # noqa: ASYNC251
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()

    left = history.left()
    assert history.orphans() == 0
    assert all(history.children_of(key) == 7 for key in left[:20])
    audited = select(func.coalesce(func.sum(retention_batch.c.removed), 0))
    assert history.db.read_sync(lambda conn: conn.execute(audited).scalar()) == 501 - len(left)

    history.db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)))  # as half a minute later
    async with RetentionEngine(history.db, holder="next", config=SweepConfig(min_pause_s=0.0001)) as engine:
        run = await engine.run(dry_run=False, by="tester")
    assert history.left() == [stays]
    assert history.orphans() == 0
    assert run.removed == len(left) - 1
    states = history.db.read_sync(
        lambda conn: list(conn.execute(select(retention_run.c.state).order_by(retention_run.c.id)).scalars())
    )
    assert states == ["DONE", "FAILED", "DONE"]
