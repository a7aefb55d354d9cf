"""Which of several conditions some job meets, in one statement: a sweep begins no work that has nothing to do."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, exists, select

from darner.db.tables.jobs import job

_AT_ONCE = 50


def which(conn: Connection, conditions: Sequence[ColumnElement[bool]]) -> list[bool]:
    """For each condition whether there is a job; each must be a range of an index."""
    found: list[bool] = []
    for start in range(0, len(conditions), _AT_ONCE):
        asked = [exists(select(job.c.id).where(one)).label(f"c{n}") for n, one in enumerate(conditions[start : start + _AT_ONCE])]
        found += [bool(answer) for answer in conn.execute(select(*asked)).one()]
    return found
