"""Jobs hidden for a time, brought back, and gone for good. Each repeats the conditions that nothing may pass."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Integer,
    Select,
    Table,
    Update,
    and_,
    delete,
    func,
    literal,
    literal_column,
    select,
    update,
)

from darner.core.errors import DarnerError
from darner.core.job import END_STATES, Tier
from darner.db import Keys, Statement, among_keys, delete_among, given, lean_binlog
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import JOB_TABLES, job, job_event, job_fold, job_part, job_payload
from darner.retention.policy import FLOOR_MS

# A warm job has no rows in these.
_HOT_ONLY = (job_payload, job_part)
# What goes with every job. A row of the outbox that a sink has not acknowledged never gets here (`sql.due`).
_CHILDREN = (*(table for table in JOB_TABLES if table not in {job, job_fold, *_HOT_ONLY}), export_outbox)
# What a row takes beside its texts: fixed columns, index entries, and the page's share (spec/retention.md, fact 7).
_ROW_BYTES = {job.name: 500, job_payload.name: 40, job_part.name: 360, job_event.name: 150, job_fold.name: 40}
_TEXTS = {job_payload.name: (job_payload.c.args, job_payload.c.result), job_fold.name: (job_fold.c.body,)}


def erase_jobs(conn: Connection, ids: Sequence[int], now_ms: int) -> int:
    """Delete jobs with all that is theirs; about how many bytes they took."""
    lean_binlog(conn)
    keys = Keys(ids)
    freed = _erase_at_once(conn, keys) if conn.dialect.name == "postgresql" else _erase_in_turn(conn, keys)
    _all_or_nothing(len(keys), _GONE.run(conn, keys, floor=now_ms - FLOOR_MS).rowcount)
    return freed + len(keys) * _ROW_BYTES[job.name]


def hide_jobs(conn: Connection, ids: Sequence[int], now_ms: int) -> int:
    """Soft-delete jobs: lists stop showing them, and from now on counts the time in which they can be restored."""
    keys = Keys(ids)
    _all_or_nothing(len(keys), _HIDDEN.run(conn, keys, floor=now_ms - FLOOR_MS, now_ms=now_ms).rowcount)
    return 0


def _erase_in_turn(conn: Connection, keys: Keys) -> int:
    """What hangs on the jobs, table by table; its bytes."""
    texts, bodies = _BYTES.run(conn, keys).one()
    folds = delete_among(conn, job_fold, job_fold.c.job_id, keys)
    freed = int(texts) + int(bodies) + folds * _ROW_BYTES[job_fold.name]
    for table in (*_CHILDREN, *(_HOT_ONLY if folds < len(keys) else ())):
        freed += delete_among(conn, table, table.c.job_id, keys) * _ROW_BYTES.get(table.name, 60)
    return freed


def _erase_at_once(conn: Connection, keys: Keys) -> int:
    """The same where one statement can do it: nine ways to a server and back would take longer than the work."""
    return sum(int(one) for one in _ALL.run(conn, keys).one())


def _bytes(dialect: str) -> Select[*tuple[Any, ...]]:
    """The long texts of jobs; by far the most of what they take."""
    return select(*(_sum(dialect, table) for table in (job_payload, job_fold)))


def _sum(dialect: str, table: Table) -> ColumnElement[int]:
    length = sum((func.coalesce(func.length(text), 0) for text in _TEXTS[table.name]), literal_column("0", Integer))
    return select(func.coalesce(func.sum(length), 0)).where(among_keys(dialect, table.c.job_id)).scalar_subquery()


def _all(dialect: str) -> Select[*tuple[Any, ...]]:
    """One row with the bytes of each table's rows, which are gone then. `octet_length` does not have to read long texts."""
    sums = []
    for table in (job_fold, *_CHILDREN, *_HOT_ONLY):
        texts = (func.coalesce(func.octet_length(text), 0) for text in _TEXTS.get(table.name, ()))
        taken = sum(texts, literal(_ROW_BYTES.get(table.name, 60)))
        gone = delete(table).where(among_keys(dialect, table.c.job_id)).returning(taken.label("bytes")).cte(f"gone_{table.name}")
        sums.append(select(func.coalesce(func.sum(gone.c.bytes), 0)).scalar_subquery().label(table.name))
    return select(*sums)


def _gone(dialect: str) -> Delete:
    return delete(job).where(_may_go(dialect))


def _hidden(dialect: str) -> Update:
    return update(job).where(_may_go(dialect)).values({job.c.tier: int(Tier.DELETED), job.c.base_at: given("now_ms")})


def _may_go(dialect: str) -> ColumnElement[bool]:
    """Whatever chose the jobs: they ended an hour ago, and nobody holds them."""
    # `coalesce`, or SQLite walks all jobs of these states.
    ended = func.coalesce(job.c.state, "").in_(sorted(END_STATES))
    return and_(among_keys(dialect, job.c.id), ended, job.c.held == 0, job.c.finished_at <= given("floor"))


def _all_or_nothing(wanted: int, done: int) -> None:
    if done != wanted:
        raise DarnerError(f"{wanted} jobs were due and {done} could be removed; nothing was changed.")


_BYTES, _ALL, _GONE, _HIDDEN = Statement(_bytes), Statement(_all), Statement(_gone), Statement(_hidden)
