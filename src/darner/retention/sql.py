"""The statements that classify, count and remove jobs. Each function is one step of a transaction.

`due_where` is the one predicate for dry runs and removals. Every removing statement carries the floor, the end states and
`held = 0` itself, whatever the policy says, and the lease is checked in the same transaction.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, insert, or_, select, update

from darner.core.errors import DarnerError
from darner.core.job import END_STATES
from darner.db import Lease, bounded_delete, renew_lease
from darner.db.tables.jobs import JOB_TABLES, job
from darner.db.tables.retention import retention_batch
from darner.retention.policy import FLOOR_MS, Basis, Policy, Rule
from darner.retention.rules import HELD, HOT, UNCLASSIFIED, class_name, class_of, scheme_of, stale_classes, verdict
from darner.retention.values import Batch, Cursor

_class = job.c["class"]
_FACTS = (
    job.c.id,
    job.c.type,
    job.c.state,
    job.c.owner,
    job.c.tag,
    job.c.application,
    job.c.created_at,
    job.c.finished_at,
    job.c.held,
    job.c.tier,
    job.c.part_count,
    _class.label("retention_class"),
)
_CHILDREN = tuple(table for table in JOB_TABLES if table is not job)
_ORDER = (job.c.finished_at, job.c.id)
# A job's parts and events go with it: a batch is cut where it would have more parts than this.
_PARTS_PER_BATCH = 5_000
_SAMPLES = 20


def due_where(rule: Rule, policy: Policy, now_ms: int) -> ColumnElement[bool]:
    """The jobs of a rule that may go. The rule must have an end (`hot`)."""
    if rule.hot is None:
        raise ValueError(f"rule {rule.name} keeps for ever")
    oldest = now_ms - FLOOR_MS
    terms: list[ColumnElement[bool]] = [
        _class == class_name(scheme_of(policy), rule.name),
        job.c.tier == HOT,
        job.c.state.in_(sorted(END_STATES)),
        job.c.held == 0,
    ]
    if rule.basis == Basis.FINISHED:
        terms.append(job.c.finished_at <= min(oldest, now_ms - rule.hot.ms))
    else:
        terms += [job.c.finished_at <= oldest, job.c.created_at <= now_ms - rule.hot.ms]
    return and_(*terms)


def due_statement(rule: Rule, policy: Policy, now_ms: int, *, after: Cursor, limit: int) -> Select[Any]:
    """The next jobs of a rule that may go, oldest end first; locked on servers."""
    where = and_(due_where(rule, policy, now_ms), _beyond(after))
    return select(*_FACTS).where(where).order_by(*_ORDER).limit(limit).with_for_update(skip_locked=True)


def remove_batch(
    conn: Connection, held: Lease, *, rule: Rule, policy: Policy, run_id: int, after: Cursor, limit: int, ttl_s: float
) -> Batch:
    """Remove at most `limit` due jobs with all that is theirs, and write the audit. LeaseLostError before anything is touched."""
    now_ms = renew_lease(conn, held, ttl_s=ttl_s).until_ms - int(ttl_s * 1000)
    rows = conn.execute(due_statement(rule, policy, now_ms, after=after, limit=limit)).all()
    if not rows:
        return Batch()
    taken = list(_light(rows))
    cursor = Cursor(finished_at=taken[-1].finished_at, id=taken[-1].id)
    judged = [(row, verdict(row, policy)) for row in taken]
    going = [row for row, judgement in judged if judgement.rule == rule.name and judgement.due(now_ms)]
    _declassify(conn, [row.id for row, judgement in judged if judgement.rule != rule.name])
    if going:
        _remove(conn, [row.id for row in going], now_ms)
        _audit(conn, going, run_id=run_id, rule=rule, now_ms=now_ms)
    return Batch(examined=len(taken), changed=len(going), cursor=cursor)


def classify_batch(
    conn: Connection, held: Lease | None, *, policy: Policy, stale: str, after: Cursor, limit: int, ttl_s: float
) -> Batch:
    """Sort at most `limit` ended jobs of the class `stale` into those of the policy.

    A dry run does so without a lease: it loses nothing, and whoever removes asks the rules again.
    """
    if held is not None:
        renew_lease(conn, held, ttl_s=ttl_s)
    rows = conn.execute(_ended_of(stale, after).limit(limit).with_for_update(skip_locked=True)).all()
    if not rows:
        return Batch()
    scheme = scheme_of(policy)
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(class_of(row, policy, scheme), []).append(row.id)
    changed = 0
    for name, ids in groups.items():
        if name != stale:
            changed += conn.execute(update(job).where(job.c.id.in_(ids)).values({_class: name})).rowcount
    return Batch(examined=len(rows), changed=changed, cursor=Cursor(finished_at=rows[-1].finished_at, id=rows[-1].id))


def classes_to_sort(conn: Connection, policy: Policy) -> list[str]:
    """The classes whose jobs must be classified before anything is removed. Steps from class to class by the index."""
    found: list[str] = []
    last: str | None = conn.execute(select(func.min(_class))).scalar()
    while last is not None:
        found.append(last)
        last = conn.execute(select(func.min(_class)).where(_class > last)).scalar()
    return [HELD, UNCLASSIFIED, *(name for name in stale_classes(found, policy, scheme_of(policy)) if name != UNCLASSIFIED)]


def due_report(conn: Connection, policy: Policy, now_ms: int) -> dict[str, Any]:
    """What a sweep would remove now: per rule and state the count, the oldest and newest end, and some ids."""
    rules = [_rule_report(conn, rule, policy, now_ms) for rule in policy.rules if rule.hot is not None]
    return {"now": now_ms, "total": sum(entry["count"] for entry in rules), "rules": rules}


def due_count(conn: Connection, policy: Policy, now_ms: int) -> int:
    """How many classified jobs a sweep would remove now."""
    counts = [select(func.count()).where(due_where(rule, policy, now_ms)) for rule in policy.rules if rule.hot is not None]
    return sum(int(conn.execute(count).scalar_one()) for count in counts)


def _rule_report(conn: Connection, rule: Rule, policy: Policy, now_ms: int) -> dict[str, Any]:
    where = due_where(rule, policy, now_ms)
    ends = (func.min(job.c.finished_at), func.max(job.c.finished_at))
    states = []
    for state, count, oldest, newest in conn.execute(
        select(job.c.state, func.count(), *ends).where(where).group_by(job.c.state).order_by(job.c.state)
    ).all():
        some = select(job.c.id).where(where, job.c.state == state).order_by(*_ORDER).limit(_SAMPLES)
        samples = [int(key) for key in conn.execute(some).scalars()]
        facts = {"state": state, "count": count, "oldest_finished_at": oldest, "newest_finished_at": newest, "samples": samples}
        states.append(facts)
    return {"rule": rule.name, "count": sum(int(entry["count"]) for entry in states), "states": states}


def _remove(conn: Connection, ids: Sequence[int], now_ms: int) -> None:
    for table in _CHILDREN:
        conn.execute(delete(table).where(table.c.job_id.in_(ids)))
    still = and_(job.c.id.in_(ids), job.c.state.in_(sorted(END_STATES)), job.c.held == 0, job.c.finished_at <= now_ms - FLOOR_MS)
    removed = bounded_delete(conn, job, still, limit=len(ids), order_by=[job.c.id])
    if removed != len(ids):
        raise DarnerError(f"{len(ids)} jobs were due and {removed} could be removed; nothing was changed.")


def _audit(conn: Connection, rows: Sequence[Row[Any]], *, run_id: int, rule: Rule, now_ms: int) -> None:
    ends = [row.finished_at for row in rows]
    ids = ",".join(str(row.id) for row in rows)
    conn.execute(
        insert(retention_batch).values(
            run_id=run_id,
            rule=rule.name,
            action="delete",
            at=now_ms,
            removed=len(rows),
            oldest_at=min(ends),
            newest_at=max(ends),
            ids_digest=hashlib.sha256(ids.encode()).hexdigest(),
        )
    )


def _declassify(conn: Connection, ids: Sequence[int]) -> None:
    """Jobs that changed since they were classified (retried, for instance) are sorted again by the next sweep."""
    if ids:
        conn.execute(update(job).where(job.c.id.in_(ids)).values({_class: UNCLASSIFIED}))


def _light(rows: Sequence[Row[Any]]) -> Iterator[Row[Any]]:
    """As many rows, one at least, as have a bounded number of parts together."""
    parts = 0
    for row in rows:
        if parts and parts + row.part_count > _PARTS_PER_BATCH:
            return
        parts += max(1, row.part_count)
        yield row


def _ended_of(name: str, after: Cursor) -> Select[Any]:
    ended = and_(_class == name, job.c.tier == HOT, job.c.state.in_(sorted(END_STATES)), _beyond(after))
    if name == HELD:
        ended = and_(ended, job.c.held == 0)
    return select(*_FACTS).where(ended).order_by(*_ORDER)


def _beyond(after: Cursor) -> ColumnElement[bool]:
    """A keyset: strictly after (finished_at, id). The first term lets every planner use the index."""
    later = or_(job.c.finished_at > after.finished_at, job.c.id > after.id)
    start = job.c.finished_at >= max(1, after.finished_at)
    return start & later
