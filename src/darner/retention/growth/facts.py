"""Figures for Prometheus that only the database knows: what is due, who holds leases, what waits. Bounded reads along indexes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, and_, func, select

from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.archive import archive_segment
from darner.db.tables.export import export_outbox, export_sink
from darner.db.tables.jobs import job
from darner.db.tables.retention import lease
from darner.retention import records
from darner.retention.export.outbox import waiting_where
from darner.retention.rules import Move, Order, moves
from darner.retention.sql import holds, marks, runs
from darner.retention.sql.classes import class_ids
from darner.retention.sql.due import job_class
from darner.retention.sql.step import action_of

# No count goes further: more is not worth reading for, every few minutes.
COUNTED = 250_000
_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """`rows` (COUNTED: or more), the oldest of which waits for `seconds`."""

    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`due` by action, `export` by sink, `holders` by lease, `segments` by state. `skew_s`: how far the database's clock is ahead.

    `future`: ended jobs that have an end (or creation) to come, by the database's clock.
    """

    due: Mapping[str, Waiting] = field(default_factory=dict)
    export: Mapping[str, Waiting] = field(default_factory=dict)
    holders: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, int] = field(default_factory=dict)
    segment_errors: int = 0
    held_back: bool = False
    paused: bool = False
    skew_s: float = 0.0
    future: int = 0


def facts_of(conn: Connection, *, wall_ms: Callable[[], int]) -> Facts:
    """All of them; `wall_ms` is this machine's clock."""
    before = wall_ms()
    now_ms = db_now_ms(conn)
    skew_ms = now_ms - (before + wall_ms()) / 2
    states = conn.execute(select(archive_segment.c.state, func.count()).group_by(archive_segment.c.state)).all()
    errors = select(func.count()).select_from(archive_segment).where(archive_segment.c.error != "")
    live = select(lease.c.name, lease.c.holder).where(lease.c.until > now_ms, lease.c.holder != "")
    return Facts(
        due=_due(conn, now_ms),
        export=_export(conn, now_ms),
        holders={str(name): str(holder) for name, holder in conn.execute(live)},
        segments={str(state): int(count) for state, count in states},
        segment_errors=int(conn.execute(errors).scalar_one()),
        held_back=bool(runs.held_since(conn)),
        paused=bool(marks.mark(conn, "paused").get("paused")),
        skew_s=skew_ms / 1000,
        future=_future(conn, now_ms),
    )


def _due(conn: Connection, now_ms: int) -> dict[str, Waiting]:
    """By the index alone: that of a few jobs the floor of one hour is not over does not matter here."""
    found = records.policy_in_force(conn)
    if found is None:
        return {}
    order = Order(policy=found.policy, selectors=holds.selectors(conn))
    ids = class_ids(conn, order)
    waiting: dict[str, Waiting] = {}
    for rule in found.policy.rules:
        for move in moves(rule):
            action = action_of(move)
            more = _due_of(conn, move, ids[rule.name], now_ms) if rule.name in ids else Waiting()
            sum_ = waiting.get(action, Waiting())
            waiting[action] = Waiting(rows=sum_.rows + more.rows, seconds=max(sum_.seconds, more.seconds))
    return waiting


def _due_of(conn: Connection, move: Move, class_id: int, now_ms: int) -> Waiting:
    ripe = now_ms - move.age.ms
    here = and_(job_class == class_id, job.c.tier == int(move.start), job.c.base_at > 0, job.c.base_at <= ripe)
    if move.before is not None:
        here = and_(here, job.c.base_at > now_ms - move.before.ms)
    oldest = conn.execute(select(func.min(job.c.base_at)).where(here)).scalar()
    if oldest is None:
        return Waiting()
    return Waiting(rows=_at_most(conn, job.c.id, here), seconds=max(0, ripe - oldest) / 1000)


def _export(conn: Connection, now_ms: int) -> dict[str, Waiting]:
    found = {}
    for name in conn.execute(select(export_sink.c.name)).scalars():
        here = waiting_where(name)
        oldest = conn.execute(select(func.min(export_outbox.c.created_at)).where(here)).scalar()
        rows = _at_most(conn, export_outbox.c.id, here) if oldest is not None else 0
        found[str(name)] = Waiting(rows=rows, seconds=max(0, now_ms - (oldest or now_ms)) / 1000)
    return found


def _future(conn: Connection, now_ms: int) -> int:
    """Goes from class to class by the index."""
    count, last = 0, conn.execute(select(func.min(job_class))).scalar()
    while last is not None:
        for tier in (Tier.HOT, Tier.WARM):
            here = and_(job_class == last, job.c.tier == int(tier), job.c.base_at > now_ms + _MINUTE_MS)
            count += _at_most(conn, job.c.id, here)
        last = conn.execute(select(func.min(job_class)).where(job_class > last)).scalar()
    return count


def _at_most(conn: Connection, key: ColumnElement[int], here: ColumnElement[bool]) -> int:
    some = select(key).where(here).limit(COUNTED).subquery()
    return int(conn.execute(select(func.count()).select_from(some)).scalar_one())
