"""The room's own rows: policy versions, runs, marks. Functions that are one step of a transaction each."""

import json
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from darner.db import bounded_delete, db_now_ms
from darner.db.tables.jobs import job
from darner.db.tables.retention import lease, retention_batch, retention_mark, retention_policy, retention_run
from darner.retention.parse import policy_from_text, policy_to_json
from darner.retention.policy import Policy
from darner.retention.values import PolicyVersion, Run, RunState

_ERROR_LIMIT = 1024
_PRUNED_AT_ONCE = 500


def policy_in_force(conn: Connection) -> PolicyVersion | None:
    """The newest version; None if there is none, in which case nothing is ever removed."""
    row = conn.execute(select(retention_policy).order_by(retention_policy.c.version.desc()).limit(1)).one_or_none()
    return _policy(row) if row is not None else None


def version_in_force(conn: Connection) -> int:
    """The newest version's number; 0 if there is none."""
    return int(conn.execute(select(func.max(retention_policy.c.version))).scalar() or 0)


def policy_history(conn: Connection, limit: int) -> list[PolicyVersion]:
    """Versions, newest first."""
    return [_policy(row) for row in conn.execute(select(retention_policy).order_by(retention_policy.c.version.desc()).limit(limit))]


def add_policy(conn: Connection, policy: Policy, *, origin: str, by: str, reason: str) -> PolicyVersion:
    """A new version, in force from now on."""
    values = {"body": json.dumps(policy_to_json(policy)), "origin": origin, "created_by": by, "reason": reason}
    conn.execute(insert(retention_policy).values(**values, created_at=db_now_ms(conn)))
    row = conn.execute(select(retention_policy).order_by(retention_policy.c.version.desc()).limit(1)).one()
    return _policy(row)


def seed_policy(conn: Connection, policy: Policy, origin: str) -> bool:
    """The policy of a fresh installation. A database that has jobs but no policy is not fresh: it is left without."""
    if conn.execute(select(retention_policy.c.version).limit(1)).first() or conn.execute(select(job.c.id).limit(1)).first():
        return False
    add_policy(conn, policy, origin=origin, by="system", reason="made at the first start")
    return True


def begin_run(conn: Connection, *, policy_version: int, trigger: str, holder: str, epoch: int, dry_run: bool = False) -> int:
    """A new run; those that an ended holder left behind are told to have failed."""
    now = db_now_ms(conn)
    left = and_(retention_run.c.state == RunState.RUNNING, retention_run.c.epoch < epoch, retention_run.c.dry_run.is_(False))
    if not dry_run:
        told = {
            "state": RunState.FAILED,
            "finished_at": now,
            "error": "It was interrupted; what it had removed by then stays removed.",
        }
        conn.execute(update(retention_run).where(left).values(**told))
    values = {"policy_version": policy_version, "trigger": trigger, "holder": holder, "epoch": epoch, "dry_run": dry_run}
    made = conn.execute(insert(retention_run).values(**values, state=RunState.RUNNING, started_at=now)).inserted_primary_key
    return int((made or [0])[0])


def count_run(conn: Connection, run_id: int, *, classified: int = 0, examined: int = 0, removed: int = 0) -> None:
    """Add to a run's counters, in the transaction that did the work."""
    conn.execute(
        update(retention_run)
        .where(retention_run.c.id == run_id)
        .values(
            classified=retention_run.c.classified + classified,
            examined=retention_run.c.examined + examined,
            removed=retention_run.c.removed + removed,
        )
    )


def end_run(conn: Connection, run_id: int, state: RunState, *, error: str = "", report: dict[str, Any] | None = None) -> None:
    """A run's end. One that was already told to have failed stays so."""
    values = {
        "state": state,
        "finished_at": db_now_ms(conn),
        "error": error[:_ERROR_LIMIT],
        "report": None if report is None else json.dumps(report),
    }
    this = and_(retention_run.c.id == run_id, retention_run.c.state == RunState.RUNNING)
    conn.execute(update(retention_run).where(this).values(**values))


def run(conn: Connection, run_id: int) -> Run | None:
    """One run."""
    row = conn.execute(select(retention_run).where(retention_run.c.id == run_id)).one_or_none()
    return _run(row) if row is not None else None


def runs(conn: Connection, *, before: int | None, limit: int) -> list[Run]:
    """Runs with smaller ids than `before`, newest first."""
    statement = select(retention_run).order_by(retention_run.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(retention_run.c.id < before)
    return [_run(row) for row in conn.execute(statement)]


def forget_runs(conn: Connection, *, keep_ms: int) -> int:
    """Drop a few of the runs and audit rows that are older than that; how many runs."""
    limit = db_now_ms(conn) - keep_ms
    newest = select(func.max(retention_run.c.id)).where(retention_run.c.started_at < limit, retention_run.c.id < _recent(conn))
    last = conn.execute(newest).scalar()
    if last is None:
        return 0
    old = retention_batch.c.run_id <= last
    bounded_delete(conn, retention_batch, old, limit=_PRUNED_AT_ONCE, order_by=[retention_batch.c.id])
    if conn.execute(select(retention_batch.c.id).where(old).limit(1)).first():
        return 0
    return bounded_delete(conn, retention_run, retention_run.c.id <= last, limit=_PRUNED_AT_ONCE, order_by=[retention_run.c.id])


def _recent(conn: Connection) -> int:
    """Only the oldest stretch of the history is looked at, so that an empty prune costs nothing."""
    first = conn.execute(select(func.min(retention_run.c.id))).scalar() or 0
    return int(first) + _PRUNED_AT_ONCE


def mark(conn: Connection, name: str) -> dict[str, Any]:
    """A switch or mark; empty if it was never set."""
    body = conn.execute(select(retention_mark.c.body).where(retention_mark.c.name == name)).scalar()
    found: dict[str, Any] = json.loads(body) if body else {}
    return found


def set_mark(conn: Connection, name: str, body: dict[str, Any], *, by: str) -> None:
    """Set a switch or mark."""
    values = {"body": json.dumps(body), "changed_at": db_now_ms(conn), "changed_by": by}
    if not conn.execute(update(retention_mark).where(retention_mark.c.name == name).values(**values)).rowcount:
        conn.execute(insert(retention_mark).values(name=name, **values))


def lease_holder(conn: Connection, name: str) -> dict[str, Any] | None:
    """Who sweeps now, if anybody does."""
    row = conn.execute(
        select(lease).where(lease.c.name == name, lease.c.until > db_now_ms(conn), lease.c.holder != "")
    ).one_or_none()
    return None if row is None else {"holder": row.holder, "epoch": row.epoch, "until": row.until}


def _policy(row: Row[Any]) -> PolicyVersion:
    return PolicyVersion(
        version=row.version,
        policy=policy_from_text(row.body),
        origin=row.origin,
        created_at=row.created_at,
        created_by=row.created_by,
        reason=row.reason,
        confirmed_at=row.confirmed_at,
        confirmed_by=row.confirmed_by,
    )


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
