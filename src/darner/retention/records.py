"""The versions of the policy. Functions that are one step of a transaction each."""

import json
from typing import Any

from sqlalchemy import Connection, Row, exc, func, insert, select

from darner.core.errors import ConflictError, NotFoundError
from darner.db import db_now_ms
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_policy
from darner.kit.units import format_duration
from darner.retention.parse import policy_from_text, policy_to_json
from darner.retention.policy import Policy
from darner.retention.values import PolicyVersion

_columns = retention_policy.c


def policy_in_force(conn: Connection) -> PolicyVersion | None:
    """The newest version; None if there is none, in which case nothing is ever removed."""
    row = conn.execute(select(retention_policy).order_by(_columns.version.desc()).limit(1)).one_or_none()
    return _policy(row) if row is not None else None


def version_in_force(conn: Connection) -> int:
    """The newest version's number; 0 if there is none."""
    return int(conn.execute(select(func.max(_columns.version))).scalar() or 0)


def policy_version(conn: Connection, version: int) -> PolicyVersion:
    """One version; NotFoundError."""
    row = conn.execute(select(retention_policy).where(_columns.version == version)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no version {version} of the retention policy.")
    return _policy(row)


def policy_history(conn: Connection, limit: int, *, before: int | None = None) -> list[PolicyVersion]:
    """Versions, newest first, those before a number."""
    statement = select(retention_policy).order_by(_columns.version.desc()).limit(limit)
    if before is not None:
        statement = statement.where(_columns.version < before)
    return [_policy(row) for row in conn.execute(statement)]


def add_policy(
    conn: Connection,
    policy: Policy,
    *,
    origin: str,
    by: str,
    reason: str,
    base_version: int | None = None,
    confirmed: bool = False,
) -> PolicyVersion:
    """A new version, in force from now on. `confirmed`: whoever made it has seen what it removes.

    ConflictError when `base_version` is not in force, or another change came at the same moment.
    """
    now_ms, latest = db_now_ms(conn), version_in_force(conn)
    if base_version is not None and base_version != latest:
        raise _outdated(conn, base_version, latest, now_ms)
    values = {
        "version": latest + 1,
        "body": json.dumps(policy_to_json(policy)),
        "origin": origin,
        "created_at": now_ms,
        "created_by": by,
        "reason": reason,
        "confirmed_at": now_ms if confirmed else None,
        "confirmed_by": by if confirmed else "",
    }
    try:
        conn.execute(insert(retention_policy).values(**values))
    except exc.IntegrityError as error:
        raise ConflictError("Somebody else changed the policy at the same moment; look at it and try again.") from error
    return policy_version(conn, latest + 1)


def seed_policy(conn: Connection, policy: Policy, origin: str) -> bool:
    """The policy of a fresh installation. A database that has jobs but no policy is not fresh: it is left without.

    ConflictError when another manager does so at the same moment.
    """
    if conn.execute(select(_columns.version).limit(1)).first() or conn.execute(select(job.c.id).limit(1)).first():
        return False
    add_policy(conn, policy, origin=origin, by="system", reason="made at the first start", base_version=0)
    return True


def _outdated(conn: Connection, base_version: int, latest: int, now_ms: int) -> ConflictError:
    if not latest:
        return ConflictError(f"There is no retention policy, so version {base_version} is not in force.", field="base_version")
    found = policy_version(conn, latest)
    ago = format_duration(max(1, (now_ms - found.created_at) // 1000))
    why = f" ({found.reason})" if found.reason else ""
    return ConflictError(
        f"Version {latest} is in force, made by {found.created_by or 'nobody named'} {ago} ago{why}; yours was made from version "
        f"{base_version}. Look at what changed and try again.",
        field="base_version",
    )


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
