"""The guard of a sweep: counts what a change of policy or clock makes due, and remembers what it found."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from darner.core.job import Tier
from darner.db.tables.export import export_outbox
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_policy, retention_run
from darner.retention import guard
from darner.retention.clock import BootReading, marked, ran_evenly
from darner.retention.guard import Change, Finding
from darner.retention.parse import policy_from_text
from darner.retention.policy import Policy
from darner.retention.rules import KEPT_PREFIX, Move, Order, deciding, moves, scheme_of, verdict
from darner.retention.sql.due import ORDER_BY, beyond, job_class, ripe_where
from darner.retention.sql.facts import FACTS, facts_of
from darner.retention.sql.marks import drop_mark, mark, set_mark
from darner.retention.sweep.context import Sweep
from darner.retention.sweep.work import Guarded, Work
from darner.retention.values import Cursor, RunState

_AT_ONCE = 2_000
_SETTLED_EVERY_MS = 1_800_000
SETTLED, HELD_BACK = "settled", "held-back"


async def held_back(sweep: Sweep, works: Sequence[Work], *, sorted_all: bool = True) -> Finding | None:
    """Why this sweep may not remove; None: it may, and what is in force is settled from now on. Free where nothing changed.

    Nothing is settled unless all jobs could be sorted: those that could not were not counted.
    """
    db, settled, found = sweep.db, sweep.marks.get(SETTLED, {}), sweep.marks.get(HELD_BACK, {})
    version = int(settled["version"])
    change, then_ms = _change(sweep, settled, version)
    now_ms = sweep.now_ms()
    if works and change.counts and not sweep.confirmed:
        finding = _remembered(found, sweep, version, now_ms) or await _counted(sweep, works, change, version, then_ms)
        if finding is not None:
            await db.write(lambda conn: set_mark(conn, HELD_BACK, _mark(found, finding, sweep, version), by="system"))
            return finding
    kept = await db.read(lambda conn: kept_rows(conn, sweep))
    fresh = settled.get("version") == sweep.policy.version and now_ms - settled.get("database_ms", 0) < _SETTLED_EVERY_MS
    fresh = fresh and abs(kept - settled.get("kept", 0)) < guard.LEAST_ROWS // 2
    if sorted_all and (found or not fresh or change.counts):
        await db.write(lambda conn: _settle(conn, sweep, settled, found, kept), durable=False)
    return None


def pinned(conn: Connection, marks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What removals are compared with.

    Where nobody wrote it down yet (or what is written is no version), it is now, before a sweep that holds back looks like one that
    was content.
    """
    settled = dict(marks.get(SETTLED, {}))
    if not isinstance(settled.get("version"), int):
        settled = {"version": _last_swept(conn)}
        set_mark(conn, SETTLED, settled, by="system")
    return settled


def confirm(conn: Connection, version: int, *, by: str, now_ms: int) -> None:
    """A person wants what a version removes."""
    row = retention_policy.c
    unconfirmed = (row.version == version, row.confirmed_at.is_(None))
    conn.execute(update(retention_policy).where(*unconfirmed).values(confirmed_at=now_ms, confirmed_by=by))


def _change(sweep: Sweep, settled: Mapping[str, Any], version: int) -> tuple[Change, int]:
    """What changed since the last removal, and the moment by the clock that was expected."""
    now_ms, policy = sweep.now_ms(), sweep.policy
    then_ms, unknown, believed_at = _expected(sweep, settled, now_ms)
    change = Change(
        policy=policy.version != version,
        changed_at=policy.created_at,
        confirmed=policy.confirmed_at is not None,
        clock_ms=now_ms - then_ms,
        unknown_clock=unknown,
        believed_at=believed_at,
    )
    return change, min(then_ms, now_ms)


def _expected(sweep: Sweep, settled: Mapping[str, Any], now_ms: int) -> tuple[int, bool, int | None]:
    """The moment that it should be by what passed since the last removal; whether that is unknown, and when it will be believed."""
    readings, boot = settled.get("readings", {}), sweep.boot_clock()
    if not readings or sweep.clock_accepted:
        return now_ms, False, None
    before = readings.get(boot.boot_id)
    if before is not None:
        return before[1] + boot.ms - before[0], False, None
    last_ms, even_ms = int(settled["database_ms"]), ran_evenly(sweep.marks.get("clock", {}), boot)
    believed_at = guard.believed_at(now_ms=now_ms, last_ms=last_ms, even_ms=even_ms)
    if believed_at is not None and believed_at <= now_ms:
        return now_ms, False, None
    return last_ms, True, believed_at


def _last_swept(conn: Connection) -> int:
    """The version that a sweep last carried out, before anybody wrote down what is settled; else the first one."""
    done = (retention_run.c.state == RunState.DONE, retention_run.c.dry_run.is_(False))
    latest = select(retention_run.c.policy_version).where(*done).order_by(retention_run.c.id.desc()).limit(1)
    first = select(func.min(retention_policy.c.version))
    return int(conn.execute(latest).scalar() or conn.execute(first).scalar() or 0)


def _remembered(found: Mapping[str, Any], sweep: Sweep, version: int, now_ms: int) -> Finding | None:
    same = found.get("version") == sweep.policy.version and found.get("settled") == version
    if not same or now_ms >= found["again_at"]:
        return None
    told = {name: found[name] for name in ("reason", "rows", "share", "again_at")}
    return Finding(**told, passes=bool(found.get("passes")))


async def _counted(sweep: Sweep, works: Sequence[Work], change: Change, version: int, then_ms: int) -> Finding | None:
    before = Order(policy=await sweep.db.read(lambda conn: _policy(conn, version)), selectors=sweep.order.selectors)
    if not change.policy or change.confirmed:
        before = sweep.order
    anew = await due_anew(sweep, before, then_ms)
    if change.policy and not change.confirmed:
        anew += await sweep.db.read(lambda conn: _freed(conn, sweep))
    for work in works:
        if isinstance(work, Guarded):
            anew += await sweep.db.read(lambda conn, work=work: _beside(conn, work, sweep, before, then_ms))  # type: ignore[misc]
    if anew < guard.LEAST_ROWS:
        return None
    total = await sweep.db.read(lambda conn: int(conn.execute(select(func.count()).select_from(job)).scalar_one()))
    return guard.decide(change, due_anew=anew, table_rows=total, now_ms=sweep.now_ms())


def _beside(conn: Connection, work: Guarded, sweep: Sweep, before: Order, then_ms: int) -> int:
    return work.rows_due_anew(conn, sweep.order, sweep.now_ms(), before=before, then_ms=then_ms)


def kept_rows(conn: Connection, sweep: Sweep) -> int:
    """How many jobs are due but for being among the last of their group."""
    rules = [rule for rule in sweep.order.policy.rules if rule.keep_last is not None]
    kept = [(move, sweep.classes[f"{KEPT_PREFIX}{rule.name}"]) for rule in rules for move in moves(rule)]
    now_ms = sweep.now_ms()
    counts = [ripe_where(move, job_class == number, now_ms) for move, number in kept if move.removes and move.start != Tier.DELETED]
    return sum(int(conn.execute(select(func.count()).select_from(job).where(one)).scalar_one()) for one in counts)


def _freed(conn: Connection, sweep: Sweep) -> int:
    """How many fewer jobs are kept as the last ones of groups, among those that are due but for that.

    Nothing of a job tells that it was kept once it is sorted anew, so how many there were is part of what is settled.
    """
    return max(0, int(sweep.marks.get(SETTLED, {}).get("kept", 0)) - kept_rows(conn, sweep))


def _policy(conn: Connection, version: int) -> Policy:
    return policy_from_text(conn.execute(select(retention_policy.c.body).where(retention_policy.c.version == version)).scalar_one())


async def due_anew(sweep: Sweep, before: Order, then_ms: int) -> int:
    """How many jobs a sweep would remove now that it would not have removed under `before` at `then_ms`."""
    same = scheme_of(before) == scheme_of(sweep.order)
    anew = 0
    for rule in deciding(sweep.order.policy):
        for move in moves(rule):
            if move.removes and rule.name in sweep.classes:
                anew += await (_by_range(sweep, move, before, then_ms) if same else _by_walk(sweep, move, before, then_ms))
    return anew


async def _by_range(sweep: Sweep, move: Move, before: Order, then_ms: int) -> int:
    """Jobs are sorted the same way under both, so those due anew lie between two ages."""
    earlier = next(rule for rule in deciding(before.policy) if rule.name == move.rule.name)
    ages = [one.age.ms for one in moves(earlier) if one.removes and one.start == move.start]
    where = ripe_where(move, job_class == sweep.classes[move.rule.name], sweep.now_ms())
    if ages:
        where &= job.c.base_at > then_ms - ages[0]
    count = select(func.count()).select_from(job).where(where)
    return await sweep.db.read(lambda conn: int(conn.execute(count).scalar_one()))


async def _by_walk(sweep: Sweep, move: Move, before: Order, then_ms: int) -> int:
    """Ask the earlier rules about each job."""
    cursor, anew, now_ms = Cursor(), 0, sweep.now_ms()
    while True:
        step = await sweep.db.read(lambda conn, after=cursor: _look_at(conn, sweep, move, before, after, now_ms, then_ms))  # type: ignore[misc]
        if step is None:
            return anew
        more, cursor = step
        anew += more
        await sweep.db.write(sweep.fence, durable=False)
        await asyncio.sleep(0)


def _look_at(
    conn: Connection, sweep: Sweep, move: Move, before: Order, after: Cursor, now_ms: int, then_ms: int
) -> tuple[int, Cursor] | None:
    where = ripe_where(move, job_class == sweep.classes[move.rule.name], now_ms) & beyond(after)
    rows: Sequence[Any] = conn.execute(select(*FACTS).where(where).order_by(*ORDER_BY).limit(_AT_ONCE)).all()
    if not rows:
        return None
    anew, waiting = 0, set() if move.start == Tier.DELETED else _waiting(conn, [row.id for row in rows], move, before)
    for row in facts_of(conn, rows, before):
        told = verdict(row, before)
        leaves = told.moves_at if move.start == Tier.DELETED else told.forgotten_at
        anew += leaves is None or leaves > then_ms or (row.id, told.rule) in waiting
    return anew, Cursor(base_at=rows[-1].base_at, id=rows[-1].id)


def _waiting(conn: Connection, ids: Sequence[int], move: Move, before: Order) -> set[tuple[int, str]]:
    """The jobs, with each rule they may have been of, that waited for a sink then which they wait for no more."""
    found: set[tuple[int, str]] = set()
    for rule in before.policy.rules:
        if rule.export and rule.export != move.rule.export:
            has = select(export_outbox.c.job_id).where(export_outbox.c.sink == rule.export, export_outbox.c.acked_at.is_not(None))
            told = set(conn.execute(has.where(export_outbox.c.job_id.in_(ids))).scalars())
            found |= {(one, rule.name) for one in ids if one not in told}
    return found


def _mark(found: Mapping[str, Any], finding: Finding, sweep: Sweep, version: int) -> dict[str, Any]:
    again = found.get("version") == sweep.policy.version and found.get("settled") == version
    return {
        "since_run": found["since_run"] if again else sweep.run_id,
        "version": sweep.policy.version,
        "settled": version,
        "reason": finding.reason,
        "rows": finding.rows,
        "share": finding.share,
        "again_at": finding.again_at,
        "passes": finding.passes,
    }


def _settle(conn: Connection, sweep: Sweep, settled: Mapping[str, Any], found: Mapping[str, Any], kept: int) -> None:
    now_ms = sweep.fence(conn)
    reading: BootReading = sweep.boot_clock()
    before = {} if sweep.clock_accepted else settled
    body = {**marked(before, reading, now_ms), "version": sweep.policy.version, "kept": kept}
    set_mark(conn, SETTLED, body, by="system")
    if found:
        drop_mark(conn, HELD_BACK)


def held_since(conn: Connection) -> dict[str, Any]:
    """What the guard holds back at present; empty: nothing."""
    return mark(conn, HELD_BACK)
