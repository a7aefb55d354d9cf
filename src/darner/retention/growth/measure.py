"""What the database and the disk say about sizes. Cheap on purpose: headers and catalogues, never a walk through a large table."""

import contextlib
import os
from pathlib import Path

from sqlalchemy import Connection, exc, func, select

from darner.db.servers import MYSQL
from darner.db.sizes import sizes as table_sizes
from darner.db.tables.archive import archive_segment
from darner.db.tables.jobs import job
from darner.db.tables.retention import retention_batch
from darner.retention.growth.values import Disk, Seen, Sizes

_READABLE = ("SEALED", "LIVE")


def disk_of(directory: Path | None) -> Disk | None:
    """The file system of a directory; None if there is no directory, or it cannot be read."""
    if directory is None:
        return None
    with contextlib.suppress(OSError):
        found = os.statvfs(directory)
        return Disk(bytes=found.f_blocks * found.f_frsize, free=found.f_bavail * found.f_frsize)
    return None


def other_disk(directory: Path | None, beside: Path | None) -> Disk | None:
    """The file system of a directory, if it is not that of the other."""
    if directory is None:
        return None
    with contextlib.suppress(OSError):
        if beside is None or directory.stat().st_dev != beside.stat().st_dev:
            return disk_of(directory)
    return None


def database_file(conn: Connection) -> Path | None:
    """SQLite's file; None on servers."""
    if conn.dialect.name != "sqlite":
        return None
    return Path(str(conn.engine.url.database))


def sizes_of(conn: Connection) -> Sizes:
    """What the database takes. On SQLite from the file's header, on servers from the catalogue."""
    file = database_file(conn)
    if file is not None:
        page, count, free = (
            int(conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in ("page_size", "page_count", "freelist_count")
        )
        return Sizes(bytes=page * count, reclaimable=page * free, log=_file_size(Path(f"{file}-wal")))
    found = table_sizes(conn)
    whole = max(found.bytes, sum(one.bytes for one in found.tables))
    return Sizes(bytes=whole, reclaimable=min(sum(one.reclaimable for one in found.tables), whole), log=_log_bytes(conn))


def archive_of(conn: Connection) -> tuple[int, int]:
    """Bytes and rows of the archive, by its catalogue."""
    of = archive_segment.c
    sums = (func.sum(of.bytes), func.sum(of.row_count - of.skipped))
    size, rows = conn.execute(select(*sums).where(of.state.in_(_READABLE))).one()
    return int(size or 0), int(rows or 0)


def seen_of(conn: Connection) -> Seen:
    """The newest job and the newest batch that there are."""
    newest = conn.execute(select(func.max(job.c.id))).scalar() or 0
    return Seen(job_id=int(newest), batch_id=int(conn.execute(select(func.max(retention_batch.c.id))).scalar() or 0))


def moved_between(conn: Connection, before: Seen, now: Seen) -> dict[str, int]:
    """Jobs that sweeps moved between two looks, by action."""
    of = retention_batch.c
    summed = select(of.action, func.sum(of.removed)).where(of.id > before.batch_id, of.id <= now.batch_id).group_by(of.action)
    return {str(action): int(count) for action, count in conn.execute(summed)}


def _file_size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _log_bytes(conn: Connection) -> int | None:
    """The server's own log of changes, where we may ask for it."""
    asked = "SHOW BINARY LOGS" if conn.dialect.name in MYSQL else "SELECT name, size FROM pg_ls_waldir()"
    try:
        with conn.begin_nested():
            return sum(int(row[1]) for row in conn.exec_driver_sql(asked))
    except exc.DBAPIError:
        return None
