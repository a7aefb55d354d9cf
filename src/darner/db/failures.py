"""What a database's complaint means for us: try again, or which of our errors. The one place that knows drivers' codes."""

from sqlalchemy import exc

from darner.core.errors import ConflictError, DarnerError, StorageFullError, TimedOutError, UnavailableError
from darner.db import sqlite

_SQLITE_BUSY = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED (primary result codes)
_SQLITE_READ_ONLY = 8
# Lock wait time-out, deadlock, no lock without waiting, changed since read, a Galera node that is not ready
_MYSQL_ROLLED_BACK = frozenset({1205, 1213, 3572, 1020, 1047})
# Refused, gone, lost, shutting down, killed, too many connections, network errors of the server, idle for too long
_MYSQL_AWAY = frozenset({2002, 2003, 2006, 2013, 2055, 1040, 1053, 1158, 1159, 1160, 1161, 1203, 1927, 4031})
# Serialization failure, deadlock, lock not available
_POSTGRES_ROLLED_BACK = frozenset({"40001", "40P01", "55P03"})
# Shutting down, crash, starting up, idle for too long, too many connections
_POSTGRES_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "53300"})
# --read-only, --super-read-only, a transaction that may only read; PostgreSQL: standby, or default_transaction_read_only
_READ_ONLY = frozenset({"25006", 1290, 1836, 1792})
_DISK_FULL = frozenset({"53100", 1021, 1114})
_OS_NO_SPACE = ("Got error 28 ", "Errcode: 28 ", "No space left on device")
_TOOK_TOO_LONG = frozenset({"57014", 1969, 3024, 1317})
_LOGIN = frozenset({1044, 1045, 1049, 1698, "28000", "28P01", "3D000"})
# psycopg tells of a refused login in words alone.
_LOGIN_WORDS = (
    "authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "permission denied",
)


def was_rolled_back(error: exc.DBAPIError) -> bool:
    """The database refused and kept nothing: busy, deadlock, lock wait. Trying the whole transaction again is safe."""
    code = _code(error)
    if _is_sqlite(error):
        return isinstance(code, int) and code & 0xFF in _SQLITE_BUSY
    return code in _MYSQL_ROLLED_BACK or code in _POSTGRES_ROLLED_BACK


def is_read_only(error: exc.DBAPIError) -> bool:
    """A server that may not be written to: a replica, perhaps one that was the primary until now. It kept nothing."""
    if _is_sqlite(error) or _code(error) not in _READ_ONLY:
        return False
    return _code(error) != 1290 or "read" in str(error.orig)  # noqa: PLR2004  (1290 is any option that forbids something)


def is_away(error: exc.DBAPIError) -> bool:
    """The server could not be reached, or went away in the middle."""
    if _is_sqlite(error) or is_refused(error):
        return False
    code = _code(error)
    lost = error.connection_invalidated or code in _MYSQL_AWAY or code in _POSTGRES_AWAY
    return lost or (isinstance(code, str) and code.startswith("08")) or (code is None and isinstance(error, exc.OperationalError))


def is_refused(error: exc.DBAPIError) -> bool:
    """The server is there and does not want us: wrong user, password or database. Waiting does not help."""
    if _is_sqlite(error):
        return False
    code = _code(error)
    if code is not None:
        return code in _LOGIN
    said = str(error.orig)
    return "FATAL" in said and any(words in said for words in _LOGIN_WORDS)


def translate(error: exc.DBAPIError, name: str) -> DarnerError:
    """Our error for a driver's, without SQL or values in the text; `name` is the database without its password."""
    reason, code = _reason(error), _code(error)
    if isinstance(error, exc.IntegrityError):
        return ConflictError(f"The database refused the change, because it contradicts another row: {reason}.")
    if code in _DISK_FULL or (_is_sqlite(error) and code in sqlite.FULL) or any(words in reason for words in _OS_NO_SPACE):
        return StorageFullError(f"The database {name} has no room left: {reason}. Free space; nothing was stored.")
    if was_rolled_back(error):
        return UnavailableError(f"The database {name} is busy: {reason}. Nothing was stored; try again.")
    if is_read_only(error) or (_is_sqlite(error) and code == _SQLITE_READ_ONLY):
        return UnavailableError(f"The database {name} is read-only: {reason}. Nothing was stored; write to the primary server.")
    if is_refused(error):
        return UnavailableError(
            f"The database {name} refuses the login: {reason}. Check the user, the password and the name in the URL."
        )
    if is_away(error):
        return UnavailableError(f"The database {name} does not answer: {reason}. Nothing was stored; try again later.")
    if code in _TOOK_TOO_LONG:
        return TimedOutError(f"The database {name} gave up after its own time limit: {reason}. Nothing was stored.")
    return DarnerError(f"The database {name} failed: {reason}.")


def unknown_outcome(name: str) -> UnavailableError:
    """The connection broke during COMMIT: repeating could do the work twice, so the asker is told."""
    return UnavailableError(
        f"The connection to {name} broke while committing; look whether the change is there before trying again."
    )


def _reason(error: exc.DBAPIError) -> str:
    lines = [line.strip() for line in str(error.orig).strip().splitlines() if line.strip()]
    told = next((line for line in lines if "FATAL" in line), lines[0] if lines else type(error.orig).__name__)
    return told.removesuffix(".")


def _is_sqlite(error: exc.DBAPIError) -> bool:
    return type(error.orig).__module__.startswith("sqlite3")


def _code(error: exc.DBAPIError) -> int | str | None:
    original = error.orig
    if _is_sqlite(error):
        return getattr(original, "sqlite_errorcode", None)
    first = original.args[0] if original is not None and original.args else None
    if isinstance(first, int):  # MySQL's number says more than its SQLSTATE
        return first
    sqlstate = getattr(original, "sqlstate", None)
    return str(sqlstate) if sqlstate else None
