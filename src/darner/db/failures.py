"""What a database's complaint means for us: try again, or which of our errors. The one place that knows drivers' codes."""

from sqlalchemy import exc

from darner.core.errors import ConflictError, DarnerError, StorageFullError, UnavailableError

_SQLITE_BUSY = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED (primary result codes)
_SQLITE_FULL = 13
_MYSQL_ROLLED_BACK = frozenset({1205, 1213})  # lock wait time-out, deadlock
_MYSQL_AWAY = frozenset({2002, 2003, 2006, 2013, 2055, 1053, 1927, 4031})  # refused, gone, lost, shutting down, killed
_POSTGRES_ROLLED_BACK = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
_POSTGRES_AWAY = frozenset({"57P01", "57P02", "57P03", "53300"})  # shutting down, crash, starting up, too many connections
_DISK_FULL = frozenset({"53100", 1021, 1114})


def was_rolled_back(error: exc.DBAPIError) -> bool:
    """The database refused and kept nothing: busy, deadlock, lock wait. Trying the whole transaction again is safe."""
    code = _code(error)
    if _is_sqlite(error):
        return isinstance(code, int) and code & 0xFF in _SQLITE_BUSY
    return code in _MYSQL_ROLLED_BACK or code in _POSTGRES_ROLLED_BACK


def is_away(error: exc.DBAPIError) -> bool:
    """The server could not be reached, or went away in the middle."""
    if _is_sqlite(error):
        return False
    code = _code(error)
    lost = error.connection_invalidated or code in _MYSQL_AWAY or code in _POSTGRES_AWAY
    return lost or (isinstance(code, str) and code.startswith("08")) or (code is None and isinstance(error, exc.OperationalError))


def translate(error: exc.DBAPIError, name: str) -> DarnerError:
    """Our error for a driver's, without SQL or values in the text; `name` is the database without its password."""
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    if isinstance(error, exc.IntegrityError):
        return ConflictError(f"The database refused the change, because it contradicts another row: {reason}.")
    if _code(error) in _DISK_FULL or (_is_sqlite(error) and _code(error) == _SQLITE_FULL):
        return StorageFullError(f"The database {name} has no room left: {reason}. Free space; nothing was stored.")
    if was_rolled_back(error):
        return UnavailableError(f"The database {name} is busy: {reason}. Nothing was stored; try again.")
    if is_away(error):
        return UnavailableError(f"The database {name} does not answer: {reason}. Nothing was stored; try again later.")
    return DarnerError(f"The database {name} failed: {reason}.")


def unknown_outcome(name: str) -> UnavailableError:
    """The connection broke during COMMIT: repeating could do the work twice, so the asker is told."""
    return UnavailableError(
        f"The connection to {name} broke while committing; look whether the change is there before trying again."
    )


def _is_sqlite(error: exc.DBAPIError) -> bool:
    return type(error.orig).__module__.startswith("sqlite3")


def _code(error: exc.DBAPIError) -> int | str | None:
    original = error.orig
    if _is_sqlite(error):
        return getattr(original, "sqlite_errorcode", None)
    sqlstate = getattr(original, "sqlstate", None)
    if sqlstate:
        return str(sqlstate)
    first = original.args[0] if original is not None and original.args else None
    return first if isinstance(first, int) else None
