"""The fence: whether a sweep may still change anything, asked inside every transaction that does.

It locks the lease's row. Whoever changes the policy or the holds locks it too (`hold_sweeps`), so such a change comes before a
batch or after it, and a batch that comes after it sees it.
"""

import json
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from darner.db import Lease, LeaseLostError
from darner.db.clock import now_ms
from darner.db.tables.retention import lease, retention_mark, retention_policy, retention_run

LEASE = "retention-sweep"
_RENEWED_BELOW = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a sweep depends on. `holds`: a counter that grows with every change of a selector; `now_ms`: the database's clock."""

    now_ms: int
    policy_version: int
    holds: int
    paused: bool
    cancelled: bool


def hold_sweeps(conn: Connection) -> None:
    """Let no batch of a sweep happen at the same time as this transaction."""
    conn.execute(select(lease.c.epoch).where(lease.c.name == LEASE).with_for_update()).first()


def pass_fence(conn: Connection, held: Lease, run_id: int, *, ttl_ms: int) -> Seen:
    """What the database says now, the lease renewed if a third of it is over. LeaseLostError if it is not ours any more."""
    ours = (lease.c.name == held.name) & (lease.c.holder == held.holder) & (lease.c.epoch == held.epoch)
    until = conn.execute(select(lease.c.until).where(ours).with_for_update()).scalar_one_or_none()
    seen = look(conn, run_id)
    if until is None or until <= seen.now_ms:
        raise LeaseLostError
    if until - seen.now_ms < ttl_ms * _RENEWED_BELOW:
        conn.execute(update(lease).where(ours).values(until=seen.now_ms + ttl_ms))
    return seen


def look(conn: Connection, run_id: int = 0) -> Seen:
    """What a sweep depends on, in one statement."""
    marks = {name: select(retention_mark.c.body).where(retention_mark.c.name == name) for name in ("holds", "paused")}
    row = conn.execute(
        select(
            now_ms(conn.dialect.name).label("now_ms"),
            select(func.max(retention_policy.c.version)).scalar_subquery().label("version"),
            marks["holds"].scalar_subquery().label("holds"),
            marks["paused"].scalar_subquery().label("paused"),
            select(retention_run.c.cancel_asked).where(retention_run.c.id == run_id).scalar_subquery().label("cancelled"),
        )
    ).one()
    return Seen(
        now_ms=int(row.now_ms),
        policy_version=int(row.version or 0),
        holds=int(json.loads(row.holds)["revision"]) if row.holds else 0,
        paused=bool(json.loads(row.paused).get("paused")) if row.paused else False,
        cancelled=bool(row.cancelled),
    )
