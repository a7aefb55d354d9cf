"""Retention classes: numbers in the job's row for the rule that decides about it."""

from collections.abc import Mapping

from sqlalchemy import Connection, Integer, String, func, insert, select

from darner.db import Statement, given
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_class
from darner.retention.rules import HELD, UNCLASSIFIED, Order, class_names, scheme_of

_CLASS = job.c["class"]
_FIRST = Statement(lambda _: select(func.min(_CLASS)))
_NEXT = Statement(lambda _: select(func.min(_CLASS)).where(given("last", Integer) < _CLASS))
_OF_SCHEME = Statement(
    lambda _: select(retention_class.c.rule, retention_class.c.id).where(retention_class.c.scheme == given("scheme", String))
)


def class_ids(conn: Connection, order: Order) -> dict[str, int]:
    """The number of each class of the order's scheme that has one already; classes never made have no jobs."""
    return {str(rule): int(number) for rule, number in _OF_SCHEME.run(conn, scheme=scheme_of(order))}


def make_classes(conn: Connection, order: Order) -> dict[str, int]:
    """`class_ids`, after making those that are missing."""
    found = class_ids(conn, order)
    missing = [name for name in class_names(order.policy) if name not in found]
    if missing:
        scheme = scheme_of(order)
        conn.execute(insert(retention_class), [{"scheme": scheme, "rule": name} for name in missing])
        found = class_ids(conn, order)
    return found


def classes_to_sort(conn: Connection, current: Mapping[str, int]) -> list[int]:
    """The classes whose jobs must be sorted before anything moves. Steps from class to class by the index.

    Not that of jobs held by themselves: releasing one takes its class back.
    """
    found: list[int] = []
    last: int | None = _FIRST.run(conn).scalar()
    while last is not None:
        found.append(last)
        last = _NEXT.run(conn, last=last).scalar()
    fixed = {HELD, UNCLASSIFIED}
    return [UNCLASSIFIED, *sorted(set(found) - set(current.values()) - fixed)]
