"""Bring a database's tables to this version of Darner. Migrations are package data; no alembic.ini is needed.

Two managers may start at the same time: one migrates, the other waits and finds nothing to do. What breaks off half way leaves
nothing on SQLite and PostgreSQL; on MySQL it is taken up again (`resumable`).
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from darner.core.errors import ConflictError, UnavailableError
from darner.db import resumable
from darner.db.database import Database
from darner.db.tables import metadata

_DIRECTORY = Path(__file__).parent / "migrations"
_LOCK_WAIT_S = 60
_MYSQL_LOCK = "LEFT(CONCAT('darner_migrate.', DATABASE()), 64)"  # one for the whole server, hence the database's name
_POSTGRES_LOCK = 0x6461726E6572  # "darner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The schema of a database. `present` empty: it has no tables yet; `newest`: what this code knows; `pending`: what is between.

    `unknown`: the database has revisions that this code does not know, so it is newer.
    """

    present: str
    newest: str
    pending: tuple[str, ...]
    unknown: bool


def schema_of(db: Database) -> Schema:
    """What schema a database has, and what `migrate` would do."""
    return db.read_sync(_schema)


def migrate(db: Database, *, to: str = "head") -> str:
    """Migrate to the newest schema this code knows (or to `to`), in one transaction where the database can; its revision.

    ConflictError if the schema is newer than the code: running on would read and write it wrongly.
    """
    return db.write_sync(lambda conn: _migrate(conn, db.name, to))


def refuse_unknown_schema(conn: Connection) -> None:
    """For processes that have been running since before somebody else migrated: ConflictError if they do not know the schema."""
    present = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if present is not None and present not in _order():
        raise ConflictError(f"The database was upgraded to schema {present}, which this Darner does not know; start the new one.")


@functools.cache
def _order() -> list[str]:
    """All revisions, oldest first."""
    return [revision.revision for revision in _script().walk_revisions()][::-1]


def _schema(conn: Connection) -> Schema:
    order = _order()
    present = MigrationContext.configure(conn).get_current_heads()
    unknown = [revision for revision in present if revision not in order]
    reached = max((order.index(revision) + 1 for revision in present if revision in order), default=0)
    pending = () if unknown else tuple(order[reached:])
    return Schema(present=", ".join(present), newest=order[-1], pending=pending, unknown=bool(unknown))


def _script() -> ScriptDirectory:
    return ScriptDirectory(str(_DIRECTORY))


def _migrate(conn: Connection, name: str, to: str) -> str:
    _lock(conn)
    try:
        script = _script()
        head = script.get_current_head()
        if head is None:
            raise ConflictError("The migrations branch: there is more than one newest schema.")
        _refuse_newer(conn, head, name)

        def steps(revision: tuple[str, ...], _context: MigrationContext) -> list[RevisionStep]:
            return list(script._upgrade_revs(to, revision))  # type: ignore[arg-type]  # noqa: SLF001  (as alembic.command.upgrade does)

        with EnvironmentContext(Config(), script, fn=steps) as environment:
            environment.configure(connection=conn, target_metadata=metadata)
            environment.run_migrations()
        return head if to == "head" else to
    finally:
        _unlock(conn)


def _refuse_newer(conn: Connection, head: str, name: str) -> None:
    found = _schema(conn)
    if found.unknown:
        raise ConflictError(
            f"The database {name} has schema {found.present}, which is newer than this Darner (it knows up to {head}). "
            "Start the Darner that made it, or a newer one; nothing was changed."
        )


def _lock(conn: Connection) -> None:
    """SQLite holds the write lock already (BEGIN IMMEDIATE)."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'")
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
    elif conn.dialect.name == resumable.ResumableMySql.__dialect__:
        # Others' readers hold up a change of a table, and that holds up everybody else: not for a day, as is the default.
        conn.exec_driver_sql(f"SET SESSION lock_wait_timeout = {_LOCK_WAIT_S}")
        got = conn.exec_driver_sql(f"SELECT GET_LOCK({_MYSQL_LOCK}, {_LOCK_WAIT_S})").scalar()
        if got != 1:
            raise UnavailableError("Another manager has been migrating the database for a minute; try again.")


def _unlock(conn: Connection) -> None:
    if conn.dialect.name == resumable.ResumableMySql.__dialect__:
        conn.exec_driver_sql(f"SELECT RELEASE_LOCK({_MYSQL_LOCK})")
