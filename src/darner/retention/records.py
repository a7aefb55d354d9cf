"""The versions of the policy. Functions that are one step of a transaction each."""

import json
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from darner.db import db_now_ms
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_policy
from darner.retention.parse import policy_from_text, policy_to_json
from darner.retention.policy import Policy
from darner.retention.values import PolicyVersion


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
