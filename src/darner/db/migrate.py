"""Bring a database's tables to this version of Darner. Migrations are package data; no alembic.ini is needed.

Two managers may start at the same time: one migrates, the other waits and finds nothing to do.
"""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from darner.core.errors import ConflictError, UnavailableError
from darner.db.database import Database
from darner.db.tables import metadata

_DIRECTORY = Path(__file__).parent / "migrations"
_LOCK_WAIT_S = 60
_POSTGRES_LOCK = 0x6461726E6572  # "darner"


def migrate(db: Database) -> str:
    """Migrate to the newest schema this code knows, in one transaction where the database can; its revision.

    ConflictError if the schema is newer than the code: running on would read and write it wrongly.
    """
    return db.write_sync(lambda conn: _migrate(conn, db.name))


def _migrate(conn: Connection, name: str) -> str:
    _lock(conn)
    try:
        script = ScriptDirectory(str(_DIRECTORY))
        head = script.get_current_head()
        if head is None:
            raise ConflictError("The migrations branch: there is more than one newest schema.")
        _refuse_newer(conn, script, head, name)

        def steps(revision: tuple[str, ...], _context: MigrationContext) -> list[RevisionStep]:
            return list(script._upgrade_revs("head", revision))  # type: ignore[arg-type]  # noqa: SLF001  (as alembic.command.upgrade does)

        with EnvironmentContext(Config(), script, fn=steps) as environment:
            environment.configure(connection=conn, target_metadata=metadata)
            environment.run_migrations()
        return head
    finally:
        _unlock(conn)


def _refuse_newer(conn: Connection, script: ScriptDirectory, head: str, name: str) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = [revision for revision in MigrationContext.configure(conn).get_current_heads() if revision not in known]
    if unknown:
        raise ConflictError(
            f"The database {name} has schema {', '.join(unknown)}, which is newer than this Darner (it knows up to {head}). "
            "Start the Darner that made it, or a newer one; nothing was changed."
        )


def _lock(conn: Connection) -> None:
    """SQLite holds the write lock already (BEGIN IMMEDIATE)."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})")
    elif conn.dialect.name == "mysql":
        got = conn.exec_driver_sql(f"SELECT GET_LOCK('darner_migrate', {_LOCK_WAIT_S})").scalar()
        if got != 1:
            raise UnavailableError("Another manager has been migrating the database for a minute; try again.")


def _unlock(conn: Connection) -> None:
    if conn.dialect.name == "mysql":
        conn.exec_driver_sql("SELECT RELEASE_LOCK('darner_migrate')")
