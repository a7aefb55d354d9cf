"""kill -9 in the middle of a handover: each job is seen exactly once, and the next manager finishes the work."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.integration.retention.archive.keeping import POLICY, Kept, kept, several
from tests.integration.retention.history import History

from darner.db.tables.retention import lease

PROGRAM = """
import asyncio, sys
from darner.db import Database
from darner.history.codec import Codec
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.engine import Archive
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.ports import RetentionParts

async def main():
    db, codec = Database.open("sqlite:///" + sys.argv[1]), Codec()
    async with Archive(db, ArchiveConfig(url=sys.argv[2], least_jobs=1, segment_jobs=40), codec) as archive:
        parts = RetentionParts(works=archive.works())
        config = SweepConfig(first_batch=10, max_batch=12, min_pause_s=0.001)
        async with RetentionEngine(db, holder="killed", config=config, parts=parts) as engine:
            print("sweeping", flush=True)
            await engine.run(dry_run=False, by="tester")
            await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(6))
async def test_a_killed_handover_shows_each_job_once_and_is_finished(history: History, tmp_path: Path, seed: int) -> None:
    keys = several(history, 400)
    root = tmp_path / "archive"
    async with kept(history, root, policy=POLICY, segment_jobs=40) as it:
        kill_while_it_hands_over(history, tmp_path / "darner.db", root, dice=random.Random(seed))  # noqa: S311
        await seen_once(it, keys)
        history.db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)))  # as half a minute later
        assert (await it.sweep()).state == "DONE"
        await seen_once(it, keys)
        assert (history.left(), history.orphans()) == ([], 0)
        assert sum(int(one["row_count"]) for one in it.segments() if one["state"] == "LIVE") == 400
        assert not list((root / ".tmp").iterdir())


async def seen_once(it: Kept, keys: list[int]) -> None:
    assert sorted(await it.ids(limit=1_000)) == keys
    for key in keys[::97]:
        assert (await it.seen.details(key)).args == {"url": "http://x"}


def kill_while_it_hands_over(history: History, file: Path, root: Path, *, dice: random.Random) -> None:
    """Start a sweep in a process of its own, and `kill -9` it when so many jobs have left, or a moment after it began a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), str(root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()
    left, deadline = dice.randrange(1, 400), time.monotonic() + 60
    while len(history.left()) > left and process.poll() is None and time.monotonic() < deadline:
        time.sleep(dice.random() / 500)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
