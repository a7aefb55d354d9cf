"""Engines whose clocks the test moves, and the usual policies."""

import asyncio
from collections.abc import Callable
from typing import Any

from darner.db import Database
from darner.retention.clock import BootReading
from darner.retention.config import SweepConfig
from darner.retention.engine import RetentionEngine
from darner.retention.values import Run

QUICK = SweepConfig(min_pause_s=0.0001, first_batch=20)
# Six hours, then gone without undo.
GONE = {"rules": [{"name": "default", "hot": "6h"}]}


class Boot:
    """A boot clock that the test moves."""

    def __init__(self, boot_id: str = "boot-1") -> None:
        self.ms = 50_000
        self.boot_id = boot_id

    def __call__(self) -> BootReading:
        return BootReading(boot_id=self.boot_id, ms=self.ms)


def engine_of(db: Database, *, holder: str = "m1", boot: Callable[[], BootReading] | None = None, **more: Any) -> RetentionEngine:
    settings = {"config": QUICK, **more}
    return RetentionEngine(db, holder=holder, boot_clock=boot or Boot(), **settings)


async def seeded(db: Database, policy: dict[str, Any] | None = None) -> None:
    """A database whose policy is this one (default: GONE) and settled, as after an empty sweep."""
    async with engine_of(db) as engine:
        await engine.set_policy(policy or GONE, by="tester")
        assert (await engine.run(dry_run=False, by="tester")).state == "DONE"


async def sweep(db: Database, **more: Any) -> Run:
    """One sweep by hand."""
    async with engine_of(db, **more) as engine:
        return await engine.run(dry_run=False, by="tester")


async def until_done(engine: RetentionEngine, run: Run) -> Run:
    """The end of a run, also of one that takes longer than its answer waits."""
    if engine.sweeping is not None:
        await engine.sweeping
    return await engine.find_run(run.id)


async def swept(engine: RetentionEngine, **order: Any) -> Run:
    """A sweep by hand, to its end."""
    return await until_done(engine, await engine.run(dry_run=False, by="t", **order))


async def until(reached: Callable[[], bool]) -> None:
    """Wait for what happens in the database."""
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110  (it happens in the database)
            await asyncio.sleep(0.005)
