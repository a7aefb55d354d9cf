"""The work that sorts ended jobs into the classes of an order."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from darner.core.job import Tier
from darner.db import Database, Lease, db_now_ms
from darner.retention.ports import RetentionParts
from darner.retention.rules import UNCLASSIFIED, Order
from darner.retention.sql.classes import classes_to_sort
from darner.retention.sql.classify import Sorting, classify_batch, ended_statement
from darner.retention.sql.facts import JobRow
from darner.retention.sql.probe import Place, oldest
from darner.retention.sweep.careful import Careful
from darner.retention.sweep.hold import Hold
from darner.retention.sweep.work import Done, SweepContext
from darner.retention.values import Batch, Cursor

_TIERS = (Tier.HOT, Tier.WARM, Tier.DELETED)


class ClassifyWork:
    """Sorts the jobs of one class and tier."""

    removes = False

    def __init__(self, stale: int, tier: Tier, parts: RetentionParts) -> None:
        """`stale`: a class that is not of the order in force, or that of what has just ended."""
        self.name = f"classify:{stale}:{tier.word}"
        self._stale = stale
        self._tier = tier
        self._parts = parts
        self._cursor = Cursor()
        self._careful = Careful("sorted")

    async def batch(self, sweep: SweepContext, limit: int) -> Done:
        """Sort at most `limit` jobs in one transaction."""
        return await self._careful.attempt(limit, lambda at_once: self._sort_some(sweep, at_once), lambda: self._skip(sweep))

    async def _skip(self, sweep: SweepContext) -> int | None:
        """Pass over the next job."""
        following = ended_statement(self._stale, self._tier, after=self._cursor, limit=1)
        row = await sweep.db.read(lambda conn: conn.execute(following).first())
        if row is None:
            return None
        self._cursor = Cursor(base_at=row.base_at, id=row.id)
        return int(row.id)

    async def _sort_some(self, sweep: SweepContext, limit: int) -> Done:
        hold = Hold()
        sorting = Sorting(
            order=sweep.order,
            ids=sweep.classes,
            stale=self._stale,
            tier=self._tier,
            enqueue=self._parts.enqueue,
            read_args=self._parts.read_args,
        )

        def step(conn: Connection) -> Batch:
            hold.begins()
            now_ms = sweep.fence(conn)
            done = classify_batch(conn, sorting, after=self._cursor, limit=limit, now_ms=now_ms)
            sweep.count(conn, classified=done.changed, examined=done.examined)
            return done

        done = await sweep.db.write(step, durable=False, committed=hold.ends)
        if done.cursor is None:
            return Done(held_s=hold.held_s)
        self._cursor = done.cursor
        return Done(examined=done.examined, changed=done.changed, more=True, held_s=hold.held_s, waited_s=hold.waited_s)


def classify_works(stale: Sequence[int], there: Mapping[Place, int], parts: RetentionParts) -> list[ClassifyWork]:
    """The works for these classes, where `there` are jobs."""
    return [ClassifyWork(one, tier, parts) for one in stale for tier in _TIERS if (one, int(tier)) in there]


async def look(db: Database, classes: Mapping[str, int]) -> tuple[list[int], Mapping[Place, int]]:
    """The classes that must be sorted before anything moves, and where there are jobs; `classes`: those of the order."""

    def ask(conn: Connection) -> tuple[list[int], Mapping[Place, int]]:
        stale = classes_to_sort(conn, classes)
        return stale, oldest(conn, [*stale, *classes.values()])

    return await db.read(ask)


def new_jobs_work(parts: RetentionParts) -> ClassifyWork:
    """The work for what has ended since it was last asked."""
    return ClassifyWork(UNCLASSIFIED, Tier.HOT, parts)


class Loose:
    """A `SweepContext` without a lease, for sorting alone: that loses nothing, and whoever moves a job asks the rules again."""

    run_id = 0
    policy_version = 0
    lease = Lease(name="", holder="", epoch=0, until_ms=0)

    def __init__(self, db: Database, order: Order, classes: Mapping[str, int]) -> None:
        """Sort by this order; `classes`: the numbers of its classes."""
        self.db = db
        self.order = order
        self.classes = classes

    def fence(self, conn: Connection) -> int:
        """The database's time."""
        return db_now_ms(conn)

    def tell(self, conn: Connection, action: str, rule: str, rows: Sequence[JobRow], *, bytes_freed: int, now_ms: int) -> None:
        """Nobody is told."""

    def count(self, conn: Connection, **more: int) -> None:
        """Nobody counts."""
