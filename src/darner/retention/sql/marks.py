"""Switches and marks that are not policy, each a small JSON object with a name."""

import json
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from darner.db import db_now_ms
from darner.db.tables.retention import retention_mark


def mark(conn: Connection, name: str) -> dict[str, Any]:
    """A switch or mark; empty if it was never set."""
    body = conn.execute(select(retention_mark.c.body).where(retention_mark.c.name == name)).scalar()
    found: dict[str, Any] = json.loads(body) if body else {}
    return found


def all_marks(conn: Connection) -> dict[str, dict[str, Any]]:
    """All of them by name: they are few."""
    return {str(name): json.loads(body) for name, body in conn.execute(select(retention_mark.c.name, retention_mark.c.body))}


def set_mark(conn: Connection, name: str, body: dict[str, Any], *, by: str) -> None:
    """Set a switch or mark."""
    values = {"body": json.dumps(body), "changed_at": db_now_ms(conn), "changed_by": by}
    change = update(retention_mark).where(retention_mark.c.name == name).values(**values)
    if conn.execute(change).rowcount:
        return
    try:
        with conn.begin_nested():
            conn.execute(insert(retention_mark).values(name=name, **values))
    except IntegrityError:  # another manager made it at the same moment
        conn.execute(change)


def drop_mark(conn: Connection, name: str) -> None:
    """As if it had never been set."""
    conn.execute(delete(retention_mark).where(retention_mark.c.name == name))
