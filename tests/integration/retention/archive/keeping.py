"""An archive beside a history, and sweeps that use both."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import QUICK, Boot

from darner.db.tables.archive import archive_segment
from darner.db.tables.retention import lease
from darner.history.codec import Codec
from darner.jobs.events import JobQuery
from darner.jobs.sql import SqlHistory
from darner.retention.archive.config import ArchiveConfig
from darner.retention.archive.engine import Archive
from darner.retention.archive.storage import Storage
from darner.retention.engine import RetentionEngine
from darner.retention.policy import HOUR_MS
from darner.retention.ports import RetentionParts
from darner.retention.values import Run
from darner.retention.works.fold import fold_work

# Warm after 2 h, archived after 4 h, forgotten after 60 h, with 3 h to bring jobs back.
POLICY: dict[str, Any] = {"rules": [{"name": "all", "hot": "2h", "warm": "4h", "archive": "60h", "undo": "3h"}]}


@dataclass
class Kept:
    """An archive, the engine that sweeps with it, and the history that reads it."""

    history: History
    archive: Archive
    engine: RetentionEngine
    seen: SqlHistory

    async def sweep(self) -> Run:
        """One sweep; how it ended."""
        self.history.db.write_sync(lambda conn: conn.execute(update(lease).values(until=1)), durable=False)
        run = await self.engine.run(dry_run=False, by="tester", yes=True)
        if self.engine.sweeping is not None:
            await self.engine.sweeping
        return await self.engine.find_run(run.id)

    async def ids(self, **query: Any) -> list[int]:
        """What lists show, newest first."""
        return [one.id for one, _ in await self.seen.page(JobQuery(**{"limit": 500, **query}))]

    def segments(self) -> Sequence[Mapping[str, Any]]:
        """The catalogue, oldest first."""
        rows = select(archive_segment).order_by(archive_segment.c.id)
        return self.history.db.read_sync(lambda conn: [dict(row) for row in conn.execute(rows).mappings()])

    def states(self) -> list[str]:
        """The states of all segments, oldest first."""
        return [str(one["state"]) for one in self.segments()]

    def older(self, hours: float) -> None:
        """All segments are older by so much."""
        names = ("max_base_at", "created_at", "sealed_at", "expired_at")
        values = {name: archive_segment.c[name] - int(hours * HOUR_MS) for name in names}
        self.history.db.write_sync(lambda conn: conn.execute(update(archive_segment).values(values)))


@asynccontextmanager
async def kept(
    history: History, root: Path | str, *, policy: Mapping[str, Any] | None = None, storage: Storage | None = None, **config: Any
) -> AsyncIterator[Kept]:
    """An archive in a directory (or where `storage` says), with the usual policy."""
    codec = Codec()
    settings = ArchiveConfig(**{"url": str(root), "least_jobs": 1, "segment_jobs": 100, **config})
    async with Archive(history.db, settings, codec, storage) as archive:
        works = [lambda: fold_work(codec), *archive.works()]
        parts = RetentionParts(works=works, restore_archived=archive.restore)
        async with RetentionEngine(history.db, config=QUICK, boot_clock=Boot(), parts=parts) as engine:
            await engine.set_policy(dict(policy or POLICY), by="tester")
            yield Kept(history, archive, engine, SqlHistory(history.db, codec, archive))


def several(history: History, count: int, *, ended_h: float = 8, **facts: Any) -> list[int]:
    """Jobs that are to be archived."""
    return [history.add("SUCCEEDED", ended_h=ended_h + number / 100, **facts) for number in range(count)]
