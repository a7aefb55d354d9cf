"""What a sweep would do now, counted with the predicate that it acts by."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, literal, select

from darner.db.tables.jobs import job
from darner.retention.rules import Move, Order, deciding, moves
from darner.retention.sql.due import ORDER_BY, due_where, job_class
from darner.retention.sql.step import action_of

_SAMPLES = 20


def due_report(conn: Connection, order: Order, ids: Mapping[str, int], now_ms: int) -> dict[str, Any]:
    """Per move and state the count, the oldest and newest end, and some ids; `total` counts those that would be removed."""
    rules = [
        _move_report(conn, move, ids[rule.name], now_ms)
        for rule in deciding(order.policy)
        if rule.name in ids
        for move in moves(rule)
    ]
    found = [entry for entry in rules if entry["count"]]
    return {"now": now_ms, "total": sum(entry["count"] for entry in found if entry["action"] in {"hide", "delete"}), "rules": found}


def due_count(conn: Connection, order: Order, ids: Mapping[str, int], now_ms: int, *, at_most: int) -> int:
    """How many classified jobs a sweep would remove now; `at_most`: there may be more, but counting them would take long."""
    found = 0
    for rule in deciding(order.policy):
        for move in moves(rule) if rule.name in ids else ():
            if move.removes and found < at_most:
                due = select(literal(1)).where(due_where(move, job_class == ids[rule.name], now_ms)).limit(at_most - found)
                found += int(conn.execute(select(func.count()).select_from(due.subquery("due"))).scalar_one())
    return found


def _move_report(conn: Connection, move: Move, class_id: int, now_ms: int) -> dict[str, Any]:
    where = due_where(move, job_class == class_id, now_ms)
    ends = (func.min(job.c.finished_at), func.max(job.c.finished_at))
    states = []
    for state, count, oldest, newest in conn.execute(
        select(job.c.state, func.count(), *ends).where(where).group_by(job.c.state).order_by(job.c.state)
    ).all():
        some = select(job.c.id).where(where, job.c.state == state).order_by(*ORDER_BY).limit(_SAMPLES)
        samples = [int(key) for key in conn.execute(some).scalars()]
        facts = {"state": state, "count": count, "oldest_finished_at": oldest, "newest_finished_at": newest, "samples": samples}
        states.append(facts)
    count = sum(int(entry["count"]) for entry in states)
    return {"rule": move.rule.name, "action": action_of(move), "tier": move.start.word, "count": count, "states": states}
