"""The outbox: which jobs wait for which sink. Every function is part of the caller's transaction; times in unix ms, the database's.

A row is made when a job's rule names a sink and lives until the job is gone, because it also says that the sink has the job.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from darner.db import bounded_delete, bounded_update
from darner.db.servers import MYSQL
from darner.db.tables.export import export_outbox, export_sink
from darner.db.tables.jobs import job
from darner.retention.export.values import Failing, Refused, SinkBacklog, Waiting

ERROR_LIMIT = 512
# A refused job is tried again after a minute, then two, four …
RETRY_FIRST_MS = 60_000
RETRY_CAP_MS = 3_600_000
# No count goes further: more is not worth reading for.
COUNTED = 1_000_000
_SHOWN_REFUSED = 5
_SHOWN_ERROR = 300
_row = export_outbox.c
_IN_ORDER = (_row.not_before, _row.created_at, _row.id)


def enqueue(conn: Connection, job_ids: Sequence[int], sink: str, now_ms: int) -> int:
    """Put jobs on their way to a sink; those that are on it, or there, stay as they are. The number of new ones."""
    if not job_ids:
        return 0
    if conn.execute(select(export_sink.c.name).where(export_sink.c.name == sink)).first() is None:
        conn.execute(_unless_there(conn, export_sink), {"name": sink})
    rows = [{"job_id": key, "sink": sink, "created_at": now_ms, "not_before": now_ms} for key in job_ids]
    before = _count(conn, job_ids, sink)
    if before == len(rows):
        return 0
    conn.execute(_unless_there(conn, export_outbox), rows)
    return _count(conn, job_ids, sink) - before


def acknowledged(sink: str) -> ColumnElement[bool]:
    """For queries on `job`: whether the sink has the job."""
    row = (_row.job_id == job.c.id, _row.sink == sink, _row.acked_at.is_not(None))
    return exists(select(_row.id).where(*row))


def waiting_where(sink: str) -> ColumnElement[bool]:
    """For queries on `export_outbox`: rows that the sink has not acknowledged."""
    return and_(_row.sink == sink, _row.acked_at.is_(None))


def refused_where(sink: str) -> ColumnElement[bool]:
    """Of those, rows that the sink refused, and for which nobody has asked since then to try them with the others."""
    return and_(waiting_where(sink), _row.not_before > _row.created_at)


def due_statement(sink: str, now_ms: int, limit: int, *, refused: bool = False, dialect: str = "sqlite") -> Select[Any]:
    """The next rows to deliver, those first that have been due for longest; refused ones apart from the others."""
    lane = _row.not_before > _row.created_at if refused else _row.not_before <= _row.created_at
    due = and_(waiting_where(sink), _row.not_before <= now_ms, lane)
    # The index has it there, and it is the same for all that wait; but PostgreSQL does not see that, and MySQL sees only that.
    order = (_row.acked_at, *_IN_ORDER) if dialect == "postgresql" else _IN_ORDER
    return select(_row.id, _row.job_id, _row.attempts).where(due).order_by(*order).limit(limit)


def due(conn: Connection, sink: str, now_ms: int, limit: int, *, refused: bool = False) -> list[Waiting]:
    """`due_statement`, done."""
    found = conn.execute(due_statement(sink, now_ms, limit, refused=refused, dialect=conn.dialect.name))
    return [Waiting(id=row.id, job_id=row.job_id, attempts=row.attempts) for row in found]


def acknowledge(conn: Connection, sink: str, rows: Sequence[int], now_ms: int) -> int:
    """The sink has these rows (their ids); the number that were not acknowledged before."""
    changed = conn.execute(
        update(export_outbox).where(_row.id.in_(rows), _row.acked_at.is_(None)).values(acked_at=now_ms, error="")
    ).rowcount
    delivered = {"delivered": export_sink.c.delivered + changed, "acked_at": now_ms}
    conn.execute(update(export_sink).where(export_sink.c.name == sink).values(failures=0, failing_since=None, **delivered))
    return changed


def set_aside(conn: Connection, row: Waiting, reason: str, now_ms: int) -> None:
    """The sink does not want this very row: it goes behind the others, with the reason, and is tried again later, for ever."""
    wait_ms = min(RETRY_CAP_MS, RETRY_FIRST_MS * 2 ** min(row.attempts, 10))
    values = {"attempts": _row.attempts + 1, "not_before": now_ms + wait_ms, "error": reason[:ERROR_LIMIT]}
    conn.execute(update(export_outbox).where(_row.id == row.id, _row.acked_at.is_(None)).values(**values))


def drop_lost(conn: Connection, sink: str, rows: Sequence[int]) -> int:
    """Remove rows whose job is gone, with nothing left to deliver; they are counted."""
    gone = and_(_row.id.in_(rows), _row.acked_at.is_(None), _row.job_id.not_in(select(job.c.id)))
    lost = conn.execute(delete(export_outbox).where(gone)).rowcount
    if lost:
        conn.execute(update(export_sink).where(export_sink.c.name == sink).values(lost=export_sink.c.lost + lost))
    return lost


def note_failure(conn: Connection, sink: str, reason: str, now_ms: int) -> None:
    """A whole delivery failed."""
    known = export_sink.c
    values = {"failures": known.failures + 1, "failing_since": func.coalesce(known.failing_since, now_ms), "failed_at": now_ms}
    conn.execute(update(export_sink).where(known.name == sink).values(error=reason[:ERROR_LIMIT], **values))


def heal_times(conn: Connection, sink: str, now_ms: int, limit: int) -> int:
    """Rows whose time lies further ahead than any wait: the clock was wrong when it was written. At most `limit` are due now."""
    ahead = and_(waiting_where(sink), _row.not_before > now_ms + RETRY_CAP_MS)
    made = case((_row.created_at > now_ms, now_ms), else_=_row.created_at)
    values = {"not_before": now_ms, "created_at": made}
    return bounded_update(conn, export_outbox, ahead, values, limit=limit, order_by=_IN_ORDER)


def retry(conn: Connection, sink: str, limit: int) -> int:
    """At most `limit` refused rows are due at once, with the others; the number."""
    values = {"not_before": _row.created_at}
    return bounded_update(conn, export_outbox, refused_where(sink), values, limit=limit, order_by=_IN_ORDER)


def send_again(conn: Connection, sink: str, between: tuple[int, int], after: int, limit: int) -> tuple[int, int]:
    """What the sink acknowledged between two moments waits for it again, among the next `limit` rows after a row.

    How many, and where to go on, 0 at the end.
    """
    seen = conn.execute(select(_row.id, _row.sink, _row.acked_at).where(_row.id > after).order_by(_row.id).limit(limit)).all()
    if not seen:
        return 0, 0
    since, until = between
    lost = [row.id for row in seen if row.sink == sink and row.acked_at is not None and since <= row.acked_at <= until]
    if lost:
        values = {"acked_at": None, "not_before": _row.created_at, "attempts": 0}
        conn.execute(update(export_outbox).where(_row.id.in_(lost)).values(values))
        fewer = {"delivered": export_sink.c.delivered - len(lost)}
        conn.execute(update(export_sink).where(export_sink.c.name == sink).values(fewer))
    return len(lost), int(seen[-1].id)


def drop_sink(conn: Connection, sink: str, limit: int) -> tuple[int, bool]:
    """Forget a sink that nobody names, at most `limit` rows at once: how many of them waited, and whether it is gone."""
    order = [_row.id]
    waited = bounded_delete(conn, export_outbox, waiting_where(sink), limit=limit, order_by=order)
    if waited < limit and bounded_delete(conn, export_outbox, _row.sink == sink, limit=limit, order_by=order) < limit:
        conn.execute(delete(export_sink).where(export_sink.c.name == sink))
        return waited, True
    return waited, False


def sweep_orphans(conn: Connection, after: int, limit: int) -> int:
    """Remove rows of jobs that are gone, among the next `limit` after a row; where to go on, 0 at the end."""
    seen = conn.execute(select(_row.id, _row.job_id).where(_row.id > after).order_by(_row.id).limit(limit)).all()
    if not seen:
        return 0
    jobs = {row.job_id for row in seen}
    alive = set(conn.execute(select(job.c.id).where(job.c.id.in_(jobs))).scalars())
    gone = [row.id for row in seen if row.job_id not in alive]
    if gone:
        # A job that waits is left to `drop_lost`, which counts it.
        conn.execute(delete(export_outbox).where(_row.id.in_(gone), _row.acked_at.is_not(None)))
    return int(seen[-1].id)


def known_names(conn: Connection) -> list[str]:
    """Every sink that a job was ever on its way to."""
    return list(conn.execute(select(export_sink.c.name).order_by(export_sink.c.name)).scalars())


def backlog(conn: Connection, kinds: Mapping[str, str], now_ms: int) -> list[SinkBacklog]:
    """How things stand with every sink; `kinds` of the configured ones by name."""
    known = {row.name: row for row in conn.execute(select(export_sink))}
    return [_sink_backlog(conn, name, kinds.get(name), known.get(name), now_ms) for name in sorted({*known, *kinds})]


def _sink_backlog(conn: Connection, name: str, kind: str | None, known: Any, now_ms: int) -> SinkBacklog:  # noqa: ANN401
    some = select(_row.created_at, _row.not_before).where(waiting_where(name)).limit(COUNTED).subquery()
    refused = func.sum(case((some.c.not_before > some.c.created_at, 1), else_=0))
    counts = select(func.count(), func.min(some.c.created_at), refused).select_from(some)
    pending, oldest, set_aside_count = conn.execute(counts).one()
    failing = None
    if known is not None and known.failures:
        failing = Failing(since=known.failing_since, at=known.failed_at, times=known.failures, error=known.error)
    return SinkBacklog(
        name=name,
        kind=kind or "",
        configured=kind is not None,
        pending=int(pending),
        oldest_at=None if oldest is None else min(int(oldest), now_ms),
        refused=int(set_aside_count or 0),
        delivered=int(known.delivered) if known is not None else 0,
        lost=int(known.lost) if known is not None else 0,
        acked_at=known.acked_at if known is not None else None,
        failing=failing,
        last_error=known.error if known is not None else "",
        last_error_at=known.failed_at if known is not None else None,
        refusals=_refusals(conn, name) if set_aside_count else (),
        now=now_ms,
    )


def _refusals(conn: Connection, sink: str) -> tuple[Refused, ...]:
    rows = select(_row.job_id, _row.attempts, _row.not_before, _row.error).where(refused_where(sink))
    found = conn.execute(rows.order_by(*_IN_ORDER).limit(_SHOWN_REFUSED))
    return tuple(
        Refused(job_id=row.job_id, attempts=row.attempts, next_at=row.not_before, error=row.error[:_SHOWN_ERROR]) for row in found
    )


def _count(conn: Connection, job_ids: Collection[int], sink: str) -> int:
    there = select(func.count()).select_from(export_outbox).where(_row.job_id.in_(job_ids), _row.sink == sink)
    return int(conn.execute(there).scalar_one())


def _unless_there(conn: Connection, table: Table) -> Insert:
    """An insert that leaves rows alone whose key is there already."""
    if conn.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return insert(table).prefix_with("IGNORE" if conn.dialect.name in MYSQL else "OR IGNORE")
