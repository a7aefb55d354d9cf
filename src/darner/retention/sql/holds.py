"""Holds: on one job, or on all that match a selector. Functions that are one step of a transaction each.

A change of selectors counts up the mark `holds`, by which a running sweep notices it (`sql.fence`); a hold on one job is in the
job's row, where every move asks for it.
"""

import json
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from darner.core.errors import NotFoundError
from darner.db import db_now_ms
from darner.db.tables.retention import retention_hold
from darner.history.holds import REASON_LIMIT, hold_job, release_job
from darner.retention.parse import match_from_json, match_to_json
from darner.retention.policy import Match
from darner.retention.rules import Selector
from darner.retention.sql.fence import hold_sweeps
from darner.retention.sql.marks import mark, set_mark
from darner.retention.values import HoldRow

_EXPIRED_AT_ONCE = 500


def selectors(conn: Connection) -> tuple[Selector, ...]:
    """What is held by selector, oldest first."""
    statement = select(retention_hold).where(retention_hold.c.selector.is_not(None)).order_by(retention_hold.c.id)
    return tuple(
        Selector(id=row.id, match=match_from_json(json.loads(row.selector), "match"), reason=row.reason)
        for row in conn.execute(statement)
    )


def holds(conn: Connection, *, after: int, limit: int) -> list[HoldRow]:
    """Holds with greater ids, oldest first."""
    statement = select(retention_hold).where(retention_hold.c.id > after).order_by(retention_hold.c.id).limit(limit)
    return [_hold(row) for row in conn.execute(statement)]


def hold(conn: Connection, hold_id: int) -> HoldRow:
    """One hold; NotFoundError."""
    row = conn.execute(select(retention_hold).where(retention_hold.c.id == hold_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no hold {hold_id}.")
    return _hold(row)


def hold_matching(conn: Connection, match: Match, *, reason: str, by: str, until: int | None, now_ms: int) -> HoldRow:
    """Hold all jobs that match, now and later; in effect when the transaction is committed, also for a running sweep."""
    hold_sweeps(conn)
    values = {"reason": reason[:REASON_LIMIT], "created_at": now_ms, "created_by": by, "until": until}
    body = json.dumps(match_to_json(match), sort_keys=True)
    made = conn.execute(insert(retention_hold).values(**values, selector=body)).inserted_primary_key
    _count_up(conn, by)
    return hold(conn, int((made or [0])[0]))


def hold_one(conn: Connection, job_id: int, *, reason: str, by: str, until: int | None, now_ms: int) -> HoldRow:
    """Hold one job; NotFoundError if it is not in the database. A second hold takes the place of the first."""
    return hold(conn, hold_job(conn, job_id, reason=reason, by=by, until=until, now_ms=now_ms))


def remove_hold(conn: Connection, hold_id: int, *, by: str) -> HoldRow:
    """End a hold; NotFoundError."""
    found = hold(conn, hold_id)
    _end(conn, found, by)
    return found


def drop_expired(conn: Connection, now_ms: int) -> int:
    """End the holds whose time is over; how many."""
    over = select(retention_hold).where(retention_hold.c.until <= now_ms).order_by(retention_hold.c.id).limit(_EXPIRED_AT_ONCE)
    found = [_hold(row) for row in conn.execute(over).all()]
    for one in found:
        _end(conn, one, "the end of its time")
    return len(found)


def hold_count(conn: Connection) -> int:
    """How many holds there are."""
    return int(conn.execute(select(func.count()).select_from(retention_hold)).scalar_one())


def _end(conn: Connection, found: HoldRow, by: str) -> None:
    if found.job_id is not None:
        release_job(conn, found.job_id, by=by, now_ms=db_now_ms(conn))
        return
    hold_sweeps(conn)
    conn.execute(delete(retention_hold).where(retention_hold.c.id == found.id))
    _count_up(conn, by)


def _count_up(conn: Connection, by: str) -> None:
    set_mark(conn, "holds", {"revision": int(mark(conn, "holds").get("revision", 0)) + 1}, by=by)


def _hold(row: Row[Any]) -> HoldRow:
    return HoldRow(
        id=row.id,
        job_id=row.job_id,
        match=json.loads(row.selector) if row.selector else None,
        reason=row.reason,
        created_at=row.created_at,
        created_by=row.created_by,
        until=row.until,
    )
