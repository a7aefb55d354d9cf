"""kill -9 in the middle of a sweep: no job is half removed, and the next sweep finishes the work."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import GONE, seeded

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


UNDO = {"rules": [{"name": "default", "hot": "6h", "undo": "3h"}]}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", [GONE, UNDO], ids=["gone", "hidden"])
async def test_a_killed_sweep_leaves_whole_jobs_and_the_next_one_finishes(
    history: History, tmp_path: Path, seed: int, policy: dict[str, Any]
) -> None:
    await seeded(history.db, policy)
    for index in range(500):
        history.add("SUCCEEDED", ended_h=7 + index / 100, parts=3)
    stays = history.add("SUCCEEDED", ended_h=3)

    kill_while_it_sweeps(history, tmp_path / "darner.db", until=500 - random.Random(seed).randrange(1, 400))  # noqa: S311

    seen = history.seen()
    assert history.orphans() == 0
    assert all(history.children_of(key) == 7 for key in history.left()[:20])
    audited = select(func.coalesce(func.sum(retention_batch.c.removed), 0))
    assert history.db.read_sync(lambda conn: conn.execute(audited).scalar()) == 501 - len(seen)

    history.db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)))  # as half a minute later
    async with RetentionEngine(history.db, holder="next", config=SweepConfig(min_pause_s=0.0001)) as engine:
        killed = (await engine.runs())[0]
        assert (killed.state, "interrupted" in killed.error) == ("FAILED", True)  # at once, not only after the next sweep
        run = await engine.run(dry_run=False, by="tester")
    assert history.seen() == [stays]
    assert history.orphans() == 0
    assert (run.removed if policy is GONE else run.hidden) == len(seen) - 1
    states = history.db.read_sync(
        lambda conn: list(conn.execute(select(retention_run.c.state).order_by(retention_run.c.id)).scalars())
    )
    assert states == ["DONE", "FAILED", "DONE"]


def kill_while_it_sweeps(history: History, file: Path, *, until: int) -> None:
    """Start a sweep in a process of its own, and `kill -9` it when lists show so few jobs."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 30
    while len(history.seen()) > until and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
