"""All checks of a database, those of every dialect first."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from sqlalchemy import Connection

from darner.core.errors import DarnerError
from darner.db.checks import mysql, postgresql, sqlite
from darner.db.checks.finding import Finding, Level, judged
from darner.db.clock import db_now_ms
from darner.db.database import Database
from darner.db.migrate import schema_of


class _Special(Protocol):
    def __call__(self, conn: Connection, *, fast: bool) -> Iterator[Finding]: ...


_SPECIAL: dict[str, _Special] = {
    "sqlite": sqlite.findings,
    "mysql": mysql.findings,
    "postgresql": postgresql.findings,
}
_FAR_MS = 1_000
_SLOW_MS = 20
_PROBES = 5


def check(db: Database, *, fast: bool = False) -> list[Finding]:
    """Everything about a database; `fast` leaves out what reads all of it. A server that does not answer is one finding."""
    try:
        latency_ms = db.read_sync(_latency_ms)
    except DarnerError as error:
        return [Finding(name="connection", value=error.message, level=Level.FAIL, hint="Start the server, or correct the URL.")]
    hint = "Each write takes several round trips; run the manager nearer to the database."
    found = [judged("connection", f"answers in {latency_ms:.1f} ms", good=latency_ms < _SLOW_MS, otherwise=Level.WARN, hint=hint)]
    found += _tried("schema", lambda: [_schema(db)])
    found += _tried("clock", lambda: [_clock(db)])
    return found + _tried("settings", lambda: db.read_sync(lambda conn: list(_SPECIAL[db.dialect](conn, fast=fast))))


def _tried(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What was found, or, of a database that is damaged or forbids to look, why nothing could be."""
    try:
        return look()
    except DarnerError as error:
        return [Finding(name=name, value=error.message, level=Level.FAIL, hint="It could not be looked at.")]


def _latency_ms(conn: Connection) -> float:
    took = []
    for _ in range(_PROBES):
        began = time.monotonic()
        conn.exec_driver_sql("SELECT 1").scalar()
        took.append(time.monotonic() - began)
    return min(took) * 1000


def _schema(db: Database) -> Finding:
    found = schema_of(db)
    if found.unknown:
        hint = "Start the Darner that made it, or a newer one; this one refuses it."
        return Finding(name="schema", value=f"{found.present}, newer than {found.newest}", level=Level.FAIL, hint=hint)
    if not found.present:
        return Finding(
            name="schema", value="empty", level=Level.WARN, hint="The first manager makes the tables, or `darner db upgrade`."
        )
    if found.pending:
        hint = f"Back up, then `darner db upgrade`, or start a manager; pending: {', '.join(found.pending)}."
        return Finding(name="schema", value=f"{found.present}, older than {found.newest}", level=Level.WARN, hint=hint)
    return Finding(name="schema", value=found.present)


def _clock(db: Database) -> Finding:
    """Cut-offs use the database's clock alone; a difference still confuses people who compare logs with lists."""
    before = time.time()
    told_ms = db.read_sync(db_now_ms)
    off_ms = told_ms - (before + time.time()) / 2 * 1000
    hint = "Set both clocks by NTP; Darner goes by the database's clock alone."
    return judged(
        "clock", f"{off_ms / 1000:+.3f} s from this machine's", good=abs(off_ms) < _FAR_MS, otherwise=Level.WARN, hint=hint
    )
