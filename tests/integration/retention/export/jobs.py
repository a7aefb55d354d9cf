"""Ended jobs on their way to sinks, and exporters whose sinks are twins."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from darner.db import Database, db_now_ms, migrate
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job, job_event, job_part, job_payload
from darner.history.codec import Codec
from darner.history.fold import fold_jobs
from darner.retention.export import outbox
from darner.retention.export.config import SinkConfig
from darner.retention.export.exporter import Exporter
from darner.retention.export.runner import ExportPace
from darner.retention.export.sinks.memory import MemorySink
from darner.retention.export.values import SinkBacklog
from darner.retention.sql.marks import set_mark

# Real time, but short: what is away is asked again within milliseconds.
QUICK = ExportPace(poll_s=0.02, retry_first_s=0.01, retry_cap_s=0.05, lease_ttl_s=3.0, mend_s=0.05, grace_s=5.0)
HOUR_MS = 3_600_000


def config(name: str = "log", **more: Any) -> SinkConfig:
    """A sink that passes the check of the configuration; tests put twins in its place."""
    return SinkConfig(**{"name": name, "kind": "ndjson", "dir": Path("/nowhere"), **more})


@dataclass
class Jobs:
    """A database and the jobs put into it."""

    db: Database
    made: int = 0

    def add(self, count: int = 1, *, sink: str | None = "log", parts: int = 1, text: str = "", **facts: Any) -> list[int]:
        """Jobs that ended two hours ago, put on their way to a sink."""

        def put(conn: Connection) -> list[int]:
            now = db_now_ms(conn)
            ids = [self._add(conn, now - 2 * HOUR_MS, parts, text, facts) for _ in range(count)]
            if sink:
                outbox.enqueue(conn, ids, sink, now)
            return ids

        return self.db.write_sync(put, durable=False)

    def _add(self, conn: Connection, ended: int, parts: int, text: str, facts: dict[str, Any]) -> int:
        self.made += 1
        times = {"created_at": ended - 1000, "finished_at": ended, "base_at": ended, "deadline_at": ended, "updated_at": ended}
        values = {"uuid": f"{self.made:08d}-u", "type": "preheat", "state": "SUCCEEDED", "part_count": parts, **times, **facts}
        made = conn.execute(insert(job).values(**values)).inserted_primary_key
        assert made is not None
        key = int(made[0])
        conn.execute(insert(job_payload).values(job_id=key, args=f'{{"text": "{text}"}}', result='{"ok": true}'))
        rows = [
            {
                "job_id": key, "cluster_id": 1, "ordinal": number, "url": "http://x/y", "state": "SUCCEEDED", "hosts": b"[]",
                "created_at": ended, "updated_at": ended,
            }
            for number in range(parts)
        ]  # fmt: skip
        if rows:
            conn.execute(insert(job_part), rows)
        conn.execute(insert(job_event).values(job_id=key, at=ended, kind="ended", message="done"))
        return key

    def fold(self, ids: Sequence[int]) -> None:
        """Make jobs warm."""
        self.db.write_sync(lambda conn: fold_jobs(conn, ids, Codec()))

    def remove(self, key: int) -> None:
        """Take a job's row away, as somebody who does not know of the outbox would."""
        self.db.write_sync(lambda conn: conn.execute(delete(job).where(job.c.id == key)))

    def acknowledged(self, sink: str = "log") -> list[int]:
        """Jobs that the sink has, says the outbox."""
        row = export_outbox.c
        rows = select(row.job_id).where(row.sink == sink, row.acked_at.is_not(None)).order_by(row.job_id)
        return self.db.read_sync(lambda conn: [int(key) for key in conn.execute(rows).scalars()])

    def set_outbox(self, **values: Any) -> None:
        """Change all rows of the outbox behind the exporter's back."""
        self.db.write_sync(lambda conn: conn.execute(update(export_outbox).values(**values)))

    def exporter(self, *sinks: SinkConfig, pace: ExportPace = QUICK, **more: Any) -> Exporter:
        """An exporter of this database."""
        return Exporter(self.db, Codec(), sinks or (config(),), pace=pace, **more)

    def twin(self, sink: MemorySink, *sinks: SinkConfig, **more: Any) -> Exporter:
        """An exporter whose sinks are all this twin."""
        return self.exporter(*sinks, make=lambda _: sink, **more)


def open_jobs(url: str) -> Jobs:
    """A new database."""
    db = Database.open(url)
    migrate(db)
    return prepared(db)


def prepared(db: Database) -> Jobs:
    """A migrated database with an instance of its own."""
    db.write_sync(lambda conn: set_mark(conn, "instance", {"id": "here"}, by="test"))
    return Jobs(db)


async def until(true: Callable[[], bool]) -> None:
    """Wait for what other tasks and threads do; the tests' own time limit ends it."""
    while not true():  # noqa: ASYNC110  (what it waits for has no event)
        await asyncio.sleep(0.005)


async def one_backlog(exporter: Exporter, sink: str = "log") -> SinkBacklog:
    """How things stand with one sink."""
    return next(one for one in await exporter.backlog() if one.name == sink)
