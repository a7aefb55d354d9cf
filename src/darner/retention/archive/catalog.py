"""The catalogue: which segments there are, what state they are in, and which of their jobs are not to be found there.

Functions are one step of a transaction each. States, in order: PLANNED (a name is taken), WRITTEN (a file was read back and put
into the store), SEALED (readers see it; its jobs leave the database), LIVE (they all have left), EXPIRED (its time is over; hidden,
can be brought back), DROPPING (nobody can any more; its file is about to go), DROPPED (it is gone). REPLACED: its jobs are in
another, and its file stays for a day for those who read it just now.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, or_, select, update

from darner.core.errors import ConflictError
from darner.db.tables.archive import archive_absent, archive_segment
from darner.retention.archive.segment import FORMAT, Facts

_ERROR_LIMIT = 1024


class SegmentState(StrEnum):
    """How far a segment is."""

    PLANNED = "PLANNED"
    WRITTEN = "WRITTEN"
    SEALED = "SEALED"
    LIVE = "LIVE"
    EXPIRED = "EXPIRED"
    REPLACED = "REPLACED"
    DROPPING = "DROPPING"
    DROPPED = "DROPPED"


READABLE = (SegmentState.SEALED, SegmentState.LIVE)
ERASED = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A row of the catalogue. Times in unix ms."""

    id: int
    state: SegmentState
    rule: str
    policy_version: int
    epoch: int
    location: str
    row_count: int
    deleted: int
    skipped: int
    bytes: int
    sha256: str
    rows_digest: str
    min_id: int
    max_id: int
    min_created_at: int
    max_created_at: int
    max_base_at: int
    facets: Mapping[str, Sequence[Any]]
    error: str
    created_at: int
    sealed_at: int | None
    expired_at: int | None

    @property
    def settled(self) -> int:
        """How many of its jobs, in its order, have left the database or will stay there."""
        return self.deleted + self.skipped


def plan(conn: Connection, *, rule: str, policy_version: int, epoch: int, location: str, now_ms: int) -> int:
    """Take a name for a segment to come; its id."""
    values = {"rule": rule, "policy_version": policy_version, "epoch": epoch, "location": location, "created_at": now_ms}
    made = conn.execute(insert(archive_segment).values(**values, state=SegmentState.PLANNED, format=FORMAT)).inserted_primary_key
    return int((made or [0])[0])


def written(conn: Connection, segment_id: int, facts: Facts) -> None:
    """A file was read back and is in the store. ConflictError if it was thrown away meanwhile."""
    values = {
        "row_count": facts.rows, "bytes": facts.bytes, "sha256": facts.sha256, "rows_digest": facts.digest, "min_id": facts.min_id,
        "max_id": facts.max_id, "min_created_at": facts.min_created_at, "max_created_at": facts.max_created_at,
        "max_base_at": facts.max_base_at, "facets": json.dumps(facts.facets),
    }  # fmt: skip
    _must(conn, _this(segment_id, SegmentState.PLANNED).values(**values, state=SegmentState.WRITTEN))


def seal(conn: Connection, segment_id: int, now_ms: int) -> None:
    """From now on readers see it. ConflictError if it was thrown away meanwhile."""
    _must(conn, _this(segment_id, SegmentState.WRITTEN).values(state=SegmentState.SEALED, sealed_at=now_ms))


def count_left(conn: Connection, segment_id: int, *, deleted: int, skipped: Iterable[int]) -> None:
    """So many jobs left the database; those that stay are not to be found in the segment."""
    more = list(skipped)
    mark_absent(conn, segment_id, more, "stayed")
    counted = {"deleted": archive_segment.c.deleted + deleted, "skipped": archive_segment.c.skipped + len(more)}
    conn.execute(update(archive_segment).where(archive_segment.c.id == segment_id).values(**counted))


def live(conn: Connection, segment_id: int) -> None:
    """All its jobs have left."""
    conn.execute(_this(segment_id, SegmentState.SEALED).values(state=SegmentState.LIVE))


def forget(conn: Connection, segment_id: int) -> None:
    """Give up one that nobody has seen."""
    unseen = and_(archive_segment.c.id == segment_id, archive_segment.c.state.in_([SegmentState.PLANNED, SegmentState.WRITTEN]))
    conn.execute(delete(archive_segment).where(unseen))


def expire(conn: Connection, segment_id: int, now_ms: int) -> int:
    """Hide a segment whose time is over; the number of its jobs."""
    found = find(conn, segment_id)
    hide = update(archive_segment).where(archive_segment.c.id == segment_id, archive_segment.c.state == SegmentState.LIVE)
    if found is None or not conn.execute(hide.values(state=SegmentState.EXPIRED, expired_at=now_ms)).rowcount:
        return 0
    return found.row_count - len(absent_from(conn, segment_id))


def replace(conn: Connection, old: Sequence[Segment], new: int, missing: Mapping[int, set[int]], now_ms: int) -> bool:
    """Readers see a written segment instead of others, from this transaction on; False if they are not as they were any more.

    `missing`: by segment, the jobs that were not to be found there and so were not carried over; what came to that since is not to
    be found in the new one either. `new` 0: nothing was left to carry over.
    """
    found = {one.id: one.state for one in locked(conn, [one.id for one in old])}
    if found != {one.id: one.state for one in old}:
        return False
    for one in old:
        for key, reason in absent_from(conn, one.id).items():
            if new and key not in missing[one.id]:
                mark_absent(conn, new, [key], reason)
    values = {"state": SegmentState.REPLACED, "replaced_by": new or None, "expired_at": now_ms}
    conn.execute(update(archive_segment).where(archive_segment.c.id.in_(list(found))).values(**values))
    if new:
        state = {"state": old[0].state, "sealed_at": now_ms, "expired_at": old[0].expired_at}
        _must(conn, _this(new, SegmentState.WRITTEN).values(**state))
    return True


def dropping(conn: Connection, segment_id: int) -> None:
    """From now on nobody reads it or brings its jobs back, so its file can go."""
    conn.execute(update(archive_segment).where(archive_segment.c.id == segment_id).values(state=SegmentState.DROPPING))


def dropped(conn: Connection, segment_id: int) -> None:
    """Its file is gone."""
    conn.execute(delete(archive_absent).where(archive_absent.c.segment_id == segment_id))
    conn.execute(_this(segment_id, SegmentState.DROPPING).values(state=SegmentState.DROPPED))


def told_error(conn: Connection, segment_id: int, error: str) -> None:
    """What went wrong with it last; empty: nothing any more."""
    conn.execute(update(archive_segment).where(archive_segment.c.id == segment_id).values(error=error[:_ERROR_LIMIT]))


def mark_absent(conn: Connection, segment_id: int, ids: Sequence[int], reason: str, *, anew: bool = False) -> None:
    """Jobs that are not to be found in a segment: stayed, restored, erased. `anew`: this reason takes the place of an earlier."""
    if anew and ids:
        conn.execute(delete(archive_absent).where(archive_absent.c.segment_id == segment_id, archive_absent.c.job_id.in_(ids)))
    known = select(archive_absent.c.job_id).where(archive_absent.c.segment_id == segment_id, archive_absent.c.job_id.in_(ids))
    have = set(conn.execute(known).scalars()) if ids else set()
    rows = [{"segment_id": segment_id, "job_id": key, "reason": reason} for key in ids if key not in have]
    if rows:
        conn.execute(insert(archive_absent), rows)


def absent(conn: Connection, segment_ids: Sequence[int], job_ids: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs (segment, job) that are not to be found, of those asked for."""
    if not segment_ids or not job_ids:
        return set()
    asked = and_(archive_absent.c.segment_id.in_(segment_ids), archive_absent.c.job_id.in_(job_ids))
    return {(row.segment_id, row.job_id) for row in conn.execute(select(archive_absent).where(asked))}


def absent_from(conn: Connection, segment_id: int) -> dict[int, str]:
    """All jobs that are not to be found in a segment, and why."""
    of = select(archive_absent.c.job_id, archive_absent.c.reason).where(archive_absent.c.segment_id == segment_id)
    return {int(key): str(reason) for key, reason in conn.execute(of)}


def to_erase(conn: Connection) -> list[Segment]:
    """Segments with jobs that somebody wants erased from their files."""
    wanted = select(archive_absent.c.segment_id).where(archive_absent.c.reason == ERASED).distinct()
    return [_segment(row) for row in conn.execute(select(archive_segment).where(archive_segment.c.id.in_(wanted)))]


def locked(conn: Connection, ids: Sequence[int]) -> list[Segment]:
    """Segments that nobody changes until this transaction ends."""
    statement = select(archive_segment).where(archive_segment.c.id.in_(ids)).order_by(archive_segment.c.id).with_for_update()
    return [_segment(row) for row in conn.execute(statement)]


def find(conn: Connection, segment_id: int) -> Segment | None:
    """One segment."""
    row = conn.execute(select(archive_segment).where(archive_segment.c.id == segment_id)).one_or_none()
    return None if row is None else _segment(row)


def in_state(conn: Connection, *states: SegmentState, limit: int = 1000) -> list[Segment]:
    """Segments in these states, oldest first."""
    statement = select(archive_segment).where(archive_segment.c.state.in_(states)).order_by(archive_segment.c.id).limit(limit)
    return [_segment(row) for row in conn.execute(statement)]


def newest(conn: Connection, limit: int, *, before: int | None = None) -> list[Segment]:
    """Segments for people, newest first; `before`: those with smaller ids."""
    statement = select(archive_segment).order_by(archive_segment.c.id.desc()).limit(limit)
    return [_segment(row) for row in conn.execute(statement if before is None else statement.where(archive_segment.c.id < before))]


def still_there(conn: Connection, ids: Sequence[int]) -> set[int]:
    """Those of the segments that can be read, or brought back."""
    shown = archive_segment.c.state.in_([*READABLE, SegmentState.EXPIRED])
    return set(conn.execute(select(archive_segment.c.id).where(archive_segment.c.id.in_(ids), shown)).scalars())


def with_job(conn: Connection, job_id: int, *states: SegmentState, lock: bool = False) -> list[Segment]:
    """Segments that may hold a job. `lock`: nobody changes them until this transaction ends."""
    column = archive_segment.c
    may = and_(column.state.in_(states or READABLE), column.min_id <= job_id, column.max_id >= job_id)
    statement = select(archive_segment).where(may).order_by(column.id.desc())
    return [_segment(row) for row in conn.execute(statement.with_for_update() if lock else statement)]


def between(
    conn: Connection, *, since_ms: int | None, before_ms: int | None, after: tuple[int, int] | None, limit: int
) -> list[Segment]:
    """Readable segments with jobs created in a stretch of time, the newest first. `after`: the keyset (max_created_at, id)."""
    column = archive_segment.c
    terms: list[ColumnElement[bool]] = [column.state.in_(READABLE)]
    if since_ms is not None:
        terms.append(column.max_created_at >= since_ms)
    if before_ms is not None:
        terms.append(column.min_created_at <= before_ms)
    if after is not None:
        at, number = after
        terms.append(or_(column.max_created_at < at, and_(column.max_created_at == at, column.id < number)))
    statement = select(archive_segment).where(*terms).order_by(column.max_created_at.desc(), column.id.desc()).limit(limit)
    return [_segment(row) for row in conn.execute(statement)]


def locations(conn: Connection) -> set[str]:
    """Names of files that the catalogue knows."""
    return set(conn.execute(select(archive_segment.c.location).where(archive_segment.c.state != SegmentState.DROPPED)).scalars())


def _this(segment_id: int, state: SegmentState) -> Any:  # noqa: ANN401  (an update)
    return update(archive_segment).where(archive_segment.c.id == segment_id, archive_segment.c.state == state)


def _must(conn: Connection, change: Any) -> None:  # noqa: ANN401  (an update)
    if conn.execute(change).rowcount != 1:
        raise ConflictError("A segment of the archive is not in the state any more in which it was; it is made anew.")


def _segment(row: Row[Any]) -> Segment:
    names = Segment.__dataclass_fields__
    values = {name: value for name, value in row._mapping.items() if name in names}  # noqa: SLF001  (SQLAlchemy's public name)
    return Segment(**{**values, "state": SegmentState(row.state), "facets": json.loads(row.facets or "{}")})
