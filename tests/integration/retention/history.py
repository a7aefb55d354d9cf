"""Builds job histories of which every row differs where two could be confused."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, func, insert, select

from darner.core.job import Tier
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.jobs import JOB_TABLES, job, job_cluster, job_event, job_part, job_payload, job_secret
from darner.retention.policy import HOUR_MS

ENDED = ("SUCCEEDED", "FAILED", "PARTIAL", "TIMED_OUT", "CANCELLED")


@dataclass
class History:
    """A database and the jobs put into it."""

    db: Database
    ids: list[int] = field(default_factory=list)

    def add(
        self,
        state: str,
        *,
        ended_h: float | None,
        created_h: float | None = None,
        held: int = 0,
        parts: int = 2,
        url: str = "http://x",
        **facts: object,
    ) -> int:
        """A job that ended so many hours ago (None: it has not), with payload, parts and events; `facts`: more columns."""

        def put(conn: Connection) -> int:
            now = db_now_ms(conn)
            finished = None if ended_h is None else now - int(ended_h * HOUR_MS)
            created = now - int((created_h if created_h is not None else (ended_h or 0) + 0.25) * HOUR_MS)
            number = len(self.ids) + 1
            values = {"uuid": f"u-{number}", "type": "preheat", "state": state, "owner": f"o{number % 3}", "part_count": parts}
            times = {"created_at": created, "finished_at": finished, "base_at": finished, "deadline_at": created + 99}
            times["updated_at"] = finished or created
            made = conn.execute(insert(job).values(**{**values, **times, "held": held, **facts})).inserted_primary_key
            assert made is not None
            _children(conn, int(made[0]), parts, created, url)
            return int(made[0])

        key = self.db.write_sync(put, durable=False)
        self.ids.append(key)
        return key

    def left(self) -> list[int]:
        """The ids that are still there."""
        return self.db.read_sync(lambda conn: [int(key) for key in conn.execute(select(job.c.id).order_by(job.c.id)).scalars()])

    def tiers(self) -> dict[int, int]:
        """The tier of each job that is there."""
        rows = select(job.c.id, job.c.tier).order_by(job.c.id)
        return self.db.read_sync(lambda conn: {int(key): int(tier) for key, tier in conn.execute(rows)})

    def seen(self) -> list[int]:
        """The ids that lists show."""
        return [key for key, tier in self.tiers().items() if tier != Tier.DELETED]

    def orphans(self) -> int:
        """Rows of jobs that are gone."""

        def count(conn: Connection) -> int:
            gone = 0
            for table in JOB_TABLES:
                if table is not job:
                    lost = select(func.count()).select_from(table).where(table.c.job_id.not_in(select(job.c.id)))
                    gone += conn.execute(lost).scalar_one()
            return gone

        return self.db.read_sync(count)

    def children_of(self, key: int) -> int:
        """How many rows beside the job itself a job has."""

        def count(conn: Connection) -> int:
            tables = [table for table in JOB_TABLES if table is not job]
            return sum(conn.execute(select(func.count()).select_from(t).where(t.c.job_id == key)).scalar_one() for t in tables)

        return self.db.read_sync(count)


def _children(conn: Connection, key: int, parts: int, at: int, url: str) -> None:
    conn.execute(insert(job_payload).values(job_id=key, args=json.dumps({"url": url})))
    conn.execute(insert(job_secret).values(job_id=key, sealed=b"s"))
    conn.execute(insert(job_cluster).values(job_id=key, cluster_id=1))
    for ordinal in range(parts):
        facts = {"job_id": key, "cluster_id": 1, "ordinal": ordinal, "url": f"http://x/{ordinal}", "state": "SUCCEEDED"}
        conn.execute(insert(job_part).values(**facts, hosts=b"[]", created_at=at, updated_at=at + 1, not_before=0))
    conn.execute(insert(job_event).values(job_id=key, at=at, kind="created", message="made"))


def open_history(file: Path) -> History:
    """A migrated database in that file."""
    db = Database.open(f"sqlite:///{file}", patience_s=20)
    migrate(db)
    return History(db)
