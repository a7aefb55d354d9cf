"""The history of sweeps and of their batches. Functions that are one step of a transaction each."""

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Insert, Row, Select, Update, and_, case, delete, func, insert, literal, select, update

from darner.db import Statement, bounded_delete, db_now_ms, given
from darner.db.tables.retention import lease, retention_batch, retention_run
from darner.retention.sql.fence import LEASE
from darner.retention.sql.marks import mark
from darner.retention.values import Audit, Run, RunState

_ERROR_LIMIT = 1024
_STRETCH = 500
_INTERRUPTED = "It was interrupted; what it had moved by then stays moved."
_COUNTERS = ("classified", "examined", "folded", "archived", "hidden", "removed")
_COUNTED = (*_COUNTERS, "bytes")
# Who asked for a sweep by the clock.
SCHEDULE = "schedule"


def begin_run(conn: Connection, *, policy_version: int, trigger: str, holder: str, epoch: int, dry_run: bool = False) -> int:
    """A new run; those that an ended holder left behind are told to have failed."""
    now = db_now_ms(conn)
    if not dry_run:
        fail_interrupted(conn, epoch=epoch, now_ms=now)
    values = {"policy_version": policy_version, "trigger": trigger[:32], "holder": holder, "epoch": epoch, "dry_run": dry_run}
    made = conn.execute(insert(retention_run).values(**values, state=RunState.RUNNING, started_at=now)).inserted_primary_key
    return int((made or [0])[0])


def fail_interrupted(conn: Connection, *, epoch: int, now_ms: int) -> int:
    """Tell the runs of earlier epochs, which nobody carries out any more, to have failed; how many there were."""
    return _FAIL.run(conn, before=epoch, now_ms=now_ms).rowcount


def _fail(_dialect: str) -> Update:
    left = and_(
        retention_run.c.state == RunState.RUNNING, retention_run.c.epoch < given("before"), retention_run.c.dry_run.is_(False)
    )
    told = {"state": RunState.FAILED, "finished_at": given("now_ms"), "error": _INTERRUPTED}
    return update(retention_run).where(left).values(**told)


def count_run(conn: Connection, run_id: int, **more: int) -> None:
    """Add to a run's counters (`classified`, `examined`, `folded`, …), in the transaction that did the work."""
    if run_id and any(more.values()):
        _COUNT.run(conn, run_id=run_id, **{f"more_{name}": more.get(name, 0) for name in _COUNTED})


def audit(conn: Connection, values: dict[str, Any]) -> None:
    """The row of one batch: all columns but its id."""
    _AUDIT.run(conn, **{f"of_{name}": value for name, value in values.items()})


def _count(_dialect: str) -> Update:
    values = {name: retention_run.c[name] + given(f"more_{name}") for name in _COUNTED}
    return update(retention_run).where(retention_run.c.id == given("run_id")).values(**values)


def _audit_row(_dialect: str) -> Insert:
    columns = [column for column in retention_batch.columns if column.name != "id"]
    # `of_` before the name: a parameter with the name of a column would be taken for that column.
    return insert(retention_batch).inline().values({column.name: given(f"of_{column.name}", column.type) for column in columns})


def end_run(conn: Connection, run_id: int, state: RunState, *, error: str = "", report: dict[str, Any] | None = None) -> None:
    """A run's end. One that was already told to have failed stays so."""
    told = None if report is None else json.dumps(report)
    _END.run(conn, run_id=run_id, ended=state.value, now_ms=db_now_ms(conn), told_error=error[:_ERROR_LIMIT], told=told)


def _end(_dialect: str) -> Update:
    kinds = {name: retention_run.c[name].type for name in ("state", "error", "report")}
    values = {
        "state": given("ended", kinds["state"]),
        "finished_at": given("now_ms"),
        "error": given("told_error", kinds["error"]),
        "report": given("told", kinds["report"]),
    }
    this = and_(retention_run.c.id == given("run_id"), retention_run.c.state == RunState.RUNNING)
    return update(retention_run).where(this).values(**values)


def is_running(conn: Connection) -> bool:
    """Whether a run is carried out, or was not told yet that it is not any more."""
    running = (retention_run.c.state == RunState.RUNNING, retention_run.c.dry_run.is_(False))
    return conn.execute(select(retention_run.c.id).where(*running).limit(1)).first() is not None


def ask_to_cancel(conn: Connection, run_id: int) -> bool:
    """Let a running run end after its batch; whether it was running."""
    running = (retention_run.c.id == run_id, retention_run.c.state == RunState.RUNNING)
    return conn.execute(update(retention_run).where(*running).values(cancel_asked=True)).rowcount == 1


def run(conn: Connection, run_id: int) -> Run | None:
    """One run."""
    row = conn.execute(select(retention_run).where(retention_run.c.id == run_id)).one_or_none()
    return _told(conn, [_run(row)])[0] if row is not None else None


def runs(conn: Connection, *, before: int | None, limit: int) -> list[Run]:
    """Runs with smaller ids than `before`, newest first."""
    statement = select(retention_run).order_by(retention_run.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(retention_run.c.id < before)
    return _told(conn, [_run(row) for row in conn.execute(statement)])


def _told(conn: Connection, found: list[Run]) -> list[Run]:
    """A run that nobody carries out any more has failed, also before the next sweep writes that down."""
    if all(one.state != RunState.RUNNING for one in found):
        return found
    holder = conn.execute(select(lease.c.epoch, lease.c.until).where(lease.c.name == LEASE)).one_or_none()
    alive = holder.epoch if holder is not None and holder.until > db_now_ms(conn) else None
    lost = {one.id for one in found if one.state == RunState.RUNNING and one.epoch != alive}
    return [replace(one, state=RunState.FAILED, error=_INTERRUPTED) if one.id in lost else one for one in found]


def batches(conn: Connection, run_id: int, *, after: int, limit: int) -> list[Audit]:
    """The batches of a run with greater ids than `after`, in the order in which they happened."""
    of_run = (retention_batch.c.run_id == run_id, retention_batch.c.id > after)
    statement = select(retention_batch).where(*of_run).order_by(retention_batch.c.id).limit(limit)
    return [_told_batch(row) for row in conn.execute(statement)]


def moved_by_rule(conn: Connection, run_id: int) -> list[dict[str, Any]]:
    """Rows and bytes of a run by rule and action."""
    of = (retention_batch.c.rule, retention_batch.c.action)
    sums = (func.sum(retention_batch.c.removed), func.sum(retention_batch.c.bytes), func.count())
    statement = select(*of, *sums).where(retention_batch.c.run_id == run_id).group_by(*of).order_by(*of)
    return [
        {"rule": rule, "action": action, "rows": int(rows), "bytes": int(freed), "batches": count}
        for rule, action, rows, freed, count in conn.execute(statement)
    ]


def drop_empty_before(conn: Connection, run_id: int) -> None:
    """If a sweep by the clock moved nothing, and neither did the one before, the history keeps only the later of them."""
    latest = _LATEST_TWO.run(conn, run_id=run_id).all()
    if len(latest) > 1 and all(is_empty for _, is_empty in latest):
        conn.execute(delete(retention_run).where(retention_run.c.id == latest[1][0]))


def _latest_two(_dialect: str) -> Select[Any]:
    """The ids of a run and the one before, each with whether it was by the clock and did nothing."""
    moved = sum((retention_run.c[name] for name in _COUNTERS), literal(0))
    empty = and_(
        retention_run.c.trigger == SCHEDULE,
        retention_run.c.state == RunState.DONE,
        retention_run.c.error == "",
        retention_run.c.report.is_(None),
        moved == 0,
    )
    two = select(retention_run.c.id, case((empty, 1), else_=0).label("is_empty"))
    return two.where(retention_run.c.id <= given("run_id")).order_by(retention_run.c.id.desc()).limit(2)


def tell_failure(conn: Connection, *, holder: str, error: str) -> None:
    """A sweep by the clock that could not even begin. Told once, not each time that it happens again."""
    told = error[:_ERROR_LIMIT]
    last = select(retention_run.c.trigger, retention_run.c.error).order_by(retention_run.c.id.desc()).limit(1)
    if conn.execute(last).one_or_none() == (SCHEDULE, told):
        return
    now = db_now_ms(conn)
    values = {"trigger": SCHEDULE, "holder": holder, "epoch": 0, "state": RunState.FAILED, "error": told}
    conn.execute(insert(retention_run).values(**values, started_at=now, finished_at=now))


def drop_repeated(conn: Connection, run_id: int) -> bool:
    """If a sweep by the clock is held for the reason of the one before, the history keeps the earlier; whether that is so."""
    same = (retention_run.c.trigger, retention_run.c.state, retention_run.c.policy_version, retention_run.c.report)
    of = (retention_run.c.id, *same)
    latest = conn.execute(select(*of).where(retention_run.c.id <= run_id).order_by(retention_run.c.id.desc()).limit(2)).all()
    held = (SCHEDULE, RunState.HELD)
    repeated = len(latest) > 1 and tuple(latest[0][1:]) == tuple(latest[1][1:]) and tuple(latest[1][1:3]) == held
    if repeated:
        conn.execute(delete(retention_run).where(retention_run.c.id == run_id))
    return repeated


def held_since(conn: Connection) -> int:
    """The run since which the guard holds removal back; 0: it does not."""
    return int(mark(conn, "held-back").get("since_run", 0))


def forget_runs(conn: Connection, *, before_ms: int, limit: int) -> int:
    """Drop a few of the runs, and of their batches, that began before a moment; how many rows."""
    newest = select(func.max(retention_run.c.id)).where(retention_run.c.started_at < before_ms, retention_run.c.id < _recent(conn))
    last = conn.execute(newest).scalar()
    if last is None:
        return 0
    old = retention_batch.c.run_id <= last
    by = [retention_batch.c.run_id, retention_batch.c.id]
    dropped = bounded_delete(conn, retention_batch, old, limit=limit, order_by=by)
    if dropped:
        return dropped
    return bounded_delete(conn, retention_run, retention_run.c.id <= last, limit=limit, order_by=[retention_run.c.id])


def _recent(conn: Connection) -> int:
    """Only the oldest stretch of the history is looked at, so that an empty prune costs nothing."""
    first = conn.execute(select(func.min(retention_run.c.id))).scalar() or 0
    return int(first) + _STRETCH


def lease_holder(conn: Connection, name: str) -> dict[str, Any] | None:
    """Who sweeps now, if anybody does."""
    row = conn.execute(
        select(lease).where(lease.c.name == name, lease.c.until > db_now_ms(conn), lease.c.holder != "")
    ).one_or_none()
    return None if row is None else {"holder": row.holder, "epoch": row.epoch, "until": row.until}


def _told_batch(row: Row[Any]) -> Audit:
    return Audit(**row._mapping)  # noqa: SLF001  (SQLAlchemy's public name for it)


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        policy_version=row.policy_version,
        trigger=row.trigger,
        dry_run=row.dry_run,
        state=row.state,
        holder=row.holder,
        epoch=row.epoch,
        started_at=row.started_at,
        finished_at=row.finished_at,
        classified=row.classified,
        examined=row.examined,
        folded=row.folded,
        archived=row.archived,
        hidden=row.hidden,
        removed=row.removed,
        bytes=row.bytes,
        error=row.error,
        report=json.loads(row.report) if row.report else None,
    )


_COUNT, _AUDIT, _FAIL, _END, _LATEST_TWO = (Statement(make) for make in (_count, _audit_row, _fail, _end, _latest_two))
