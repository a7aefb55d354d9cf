"""SQLite's settings: those that can only be made before the first table, and those of each connection (docs/adr/0005).

The file is created with mode 0600, because job arguments are in it.
"""

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from darner.core.errors import InvalidInputError, UnavailableError

PAGE_SIZE_BYTES = 16384  # 22 % smaller files than 4096 for rows of 2 KB (spec/retention.md, 4.2)
BUSY_TIMEOUT_MS = 5_000
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024
# After so many commits the log is moved into the file beside the work of the process. SQLite itself does it within a commit, which
# then takes ten times as long: commits that somebody waits for do it only if the log has grown to its limit.
CHECKPOINT_COMMITS = 64
CHECKPOINT_PAGES = {True: JOURNAL_LIMIT_BYTES // PAGE_SIZE_BYTES, False: 1_000}
# A batch of the sweeper touches some hundred pages; those that do not fit are written within its transaction, and read again.
CACHE_BYTES = 16 * 1024 * 1024
_CREATION_ATTEMPTS = 50
# How long to wait between attempts at the write lock: SQLite's own waits grow to 100 ms, several times what batches hold it.
_POLL_S = (0.0005, 0.003)
FULL = frozenset({13, 4874})  # SQLITE_FULL, SQLITE_IOERR_SHMSIZE


def create_file(path: Path) -> None:
    """Make an empty database with the settings that cannot be changed later; leaves an existing one alone.

    Two processes may do this at the same time: whoever is second finds the file made, or waits.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise InvalidInputError(f"The database file {path} cannot be opened: {error.strerror}.") from error
    for _ in range(_CREATION_ATTEMPTS):
        try:
            _prepare(path)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise UnavailableError(f"The database file {path} cannot be used: {error}.") from error
            time.sleep(0.1)
        except sqlite3.DatabaseError as error:
            raise InvalidInputError(f"{path} is not an SQLite database: {error}.") from error
        else:
            return
    raise UnavailableError(f"The database file {path} stays locked by another process.")


def _prepare(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)) as connection:
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")


def prepare_connection(connection: sqlite3.Connection) -> None:
    """The settings every connection needs."""
    for setting in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "foreign_keys = ON",
        f"journal_size_limit = {JOURNAL_LIMIT_BYTES}",
        "synchronous = FULL",
        "temp_store = MEMORY",
        f"cache_size = -{CACHE_BYTES // 1024}",
    ):
        connection.execute(f"PRAGMA {setting}")


def begin_immediate(connection: sqlite3.Connection, *, begin: Callable[[], object]) -> None:
    """Begin a transaction that holds the write lock, soon after others have let it go.

    What waits for it longer than `BUSY_TIMEOUT_MS` fails as `begin` does, which is asked at last and does not wait.
    """
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    connection.execute("PRAGMA busy_timeout = 0").close()
    try:
        while time.monotonic() < give_up:
            try:
                connection.execute("BEGIN IMMEDIATE").close()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
                time.sleep(random.uniform(*_POLL_S))  # noqa: S311  (only that two do not keep in step)
            else:
                return
        begin()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}").close()


def return_space(connection: sqlite3.Connection, *, pages: int, least: int) -> int:
    """Give up to `pages` free pages back to the file system; how many are still worth it, 0 when it is done.

    Few free pages (below `least`, or a tenth of the file) stay: new rows will use them. `executescript`, because `execute` of
    CPython 3.11.7 frees one page only (spec/retention.md, 4.3 and fact 10).
    """
    worth = max(least, int(connection.execute("PRAGMA page_count").fetchone()[0]) // 10)
    if int(connection.execute("PRAGMA freelist_count").fetchone()[0]) < worth:
        return 0
    connection.execute("PRAGMA query_only = OFF")
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")
    left = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    return left if left >= worth else 0


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move finished pages of the write-ahead log into the file, as far as no reader is in the way and the disk has room."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) not in FULL:
            raise
