"""The fence: whether a sweep may still change anything, asked inside every transaction that does.

It locks the lease's row. Whoever changes the policy or the holds locks it too (`hold_sweeps`), so such a change comes before a
batch or after it, and a batch that comes after it sees it.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, func, select, update

from darner.db import Lease, LeaseLostError, Statement, given
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
    this: dict[str, Any] = {"name": held.name, "holder": held.holder, "epoch": held.epoch}
    # Servers look only when they have the lock, or they could see what was before it. SQLite's writer has it from the beginning.
    if conn.dialect.name != "sqlite":
        _LOCK.run(conn, **this).all()
    row = _FENCE.run(conn, run_id=run_id, **this).one()
    seen = _seen(row)
    if row.until is None or row.until <= seen.now_ms:
        raise LeaseLostError
    if row.until - seen.now_ms < ttl_ms * _RENEWED_BELOW:
        _RENEW.run(conn, **this, renewed=seen.now_ms + ttl_ms)
    return seen


def look(conn: Connection, run_id: int = 0) -> Seen:
    """What a sweep depends on, in one statement."""
    return _seen(_LOOK.run(conn, run_id=run_id).one())


def _seen(row: Any) -> Seen:  # noqa: ANN401  (a row)
    return Seen(
        now_ms=int(row.now_ms),
        policy_version=int(row.version or 0),
        holds=int(json.loads(row.holds)["revision"]) if row.holds else 0,
        paused=bool(json.loads(row.paused).get("paused")) if row.paused else False,
        cancelled=bool(row.cancelled),
    )


def _ours() -> ColumnElement[bool]:
    is_holder = lease.c.holder == given("holder", String)
    return (lease.c.name == given("name", String)) & is_holder & (lease.c.epoch == given("epoch"))


def _looking(dialect: str) -> Select[Any]:
    marks = {name: select(retention_mark.c.body).where(retention_mark.c.name == name) for name in ("holds", "paused")}
    return select(
        now_ms(dialect).label("now_ms"),
        select(func.max(retention_policy.c.version)).scalar_subquery().label("version"),
        marks["holds"].scalar_subquery().label("holds"),
        marks["paused"].scalar_subquery().label("paused"),
        select(retention_run.c.cancel_asked).where(retention_run.c.id == given("run_id")).scalar_subquery().label("cancelled"),
    )


_LOOK = Statement(_looking)
_FENCE = Statement(
    lambda dialect: _looking(dialect).add_columns(select(lease.c.until).where(_ours()).scalar_subquery().label("until"))
)
_LOCK = Statement(lambda _: select(lease.c.epoch).where(_ours()).with_for_update())
_RENEW = Statement(lambda _: update(lease).where(_ours()).values({lease.c.until: given("renewed")}))
