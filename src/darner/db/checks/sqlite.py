"""What matters of an SQLite file."""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from darner.db.checks.finding import Finding, Level, judged
from darner.db.sqlite import JOURNAL_LIMIT_BYTES, PAGE_SIZE_BYTES

_REBUILD = "It is set when the file is made; to change it, stop the manager and copy: sqlite3 FILE '{}VACUUM'."
_MANY_FREE = 0.25
_LEAST_FREE_BYTES = 1024**3
_INCREMENTAL = 2


def findings(conn: Connection, *, fast: bool) -> Iterator[Finding]:
    """Settings, integrity (unless `fast`: it reads the whole file), and the room around the file."""

    def pragma(name: str) -> Any:  # noqa: ANN401  (SQLite's)
        return conn.exec_driver_sql(f"PRAGMA {name}").scalar()

    yield Finding(name="version", value=f"SQLite {conn.exec_driver_sql('SELECT sqlite_version()').scalar()}")
    size = pragma("page_size")
    hint = _REBUILD.format(f"PRAGMA journal_mode=DELETE; PRAGMA page_size={PAGE_SIZE_BYTES}; ")
    yield judged("page_size", size, good=size >= PAGE_SIZE_BYTES, otherwise=Level.WARN, hint=hint)
    mode = pragma("auto_vacuum")
    words = {0: "none", 1: "full", 2: "incremental"}
    hint = "The file will not shrink. " + _REBUILD.format("PRAGMA auto_vacuum=INCREMENTAL; ")
    yield judged("auto_vacuum", words.get(mode, mode), good=mode == _INCREMENTAL, otherwise=Level.WARN, hint=hint)
    journal = pragma("journal_mode")
    hint = "Readers and writers wait for each other; network file systems cannot do WAL: use a local disk."
    yield judged("journal_mode", journal, good=journal == "wal", otherwise=Level.FAIL, hint=hint)
    pages, free = pragma("page_count"), pragma("freelist_count")
    share = free / pages if pages else 0.0
    hint = "Sweeps give space back in steps; if it stays, look at auto_vacuum."
    yield judged("free_pages", f"{free} of {pages} ({share:.0%})", good=share < _MANY_FREE, otherwise=Level.WARN, hint=hint)
    if not fast:
        wrong = [str(row[0]) for row in conn.exec_driver_sql("PRAGMA quick_check(3)")]
        hint = "Stop the manager, keep the file, restore a backup or try `sqlite3 FILE .recover`; look at the disk."
        yield judged("integrity", "; ".join(wrong), good=wrong == ["ok"], otherwise=Level.FAIL, hint=hint)
    yield from _file(Path(str(conn.engine.url.database)))


def _file(path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    hint = f"Job arguments are in it: chmod 600 {path}."
    yield judged("mode", f"{mode:04o}", good=not mode & 0o077, otherwise=Level.WARN, hint=hint)
    log = path.with_name(f"{path.name}-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    hint = "A reader that never ends keeps it from being moved into the file."
    yield judged("wal", f"{log_bytes} bytes", good=log_bytes <= 2 * JOURNAL_LIMIT_BYTES, otherwise=Level.WARN, hint=hint)
    left = shutil.disk_usage(path.parent).free
    hint = "Deleting needs room, too: free some, or move the file."
    yield judged("disk", f"{left} bytes free", good=left > _LEAST_FREE_BYTES, otherwise=Level.WARN, hint=hint)
