"""SQLite on a disk that is full: said, nothing half stored, and all well again when there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from darner.core.errors import StorageFullError
from darner.db import Database, bounded_delete, migrate
from darner.db.checks import Level, check
from darner.db.tables.retention import retention_mark

SIZE_MIB = 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    where = tmp_path / "disk"
    where.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "none", where], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a file system can be mounted by root only: {made.stderr.decode().strip()}")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


def put(conn: Connection, name: str, size: int) -> None:
    conn.execute(insert(retention_mark).values(name=name, body="x" * size, changed_at=7))


def count(conn: Connection) -> int:
    return int(conn.execute(select(func.count()).select_from(retention_mark)).scalar_one())


def remove_some(conn: Connection) -> int:
    return bounded_delete(conn, retention_mark, retention_mark.c.name != "", limit=4, order_by=[retention_mark.c.name])


async def fill_up(db: Database) -> int:
    """Write until nothing fits, moving the log into the file on the way; how many rows there are."""
    written = 0
    for size in (200_000, 1_000):
        try:
            for _ in range(10_000):
                db.write_sync(lambda conn, name=f"m{written}", size=size: put(conn, name, size))  # type: ignore[misc]
                written += 1
                await db.checkpoint()
        except StorageFullError as error:
            assert "nothing was stored" in error.message  # noqa: PT017  (the loop is what is tried)
        else:
            pytest.fail("the disk is never full")
    return written


async def test_a_full_disk_is_told_and_keeps_what_was_answered(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(3 * 1024**2))
    db = Database.open(f"sqlite:///{small_disk / 'darner.db'}", patience_s=1)
    migrate(db)
    written = await fill_up(db)
    assert db.read_sync(count) == written
    await db.checkpoint()  # as far as there is room: nobody is told of it
    assert {one.name: one.level for one in check(db)}["disk"] == Level.WARN
    with pytest.raises(StorageFullError):
        db.write_sync(lambda conn: put(conn, "one more", 300_000))
    ballast.unlink()
    await db.checkpoint()
    while db.write_sync(remove_some):  # as sweeps do it: a few at a time, the log moved into the file between
        await db.checkpoint()
    db.write_sync(lambda conn: put(conn, "after", 500_000))
    assert db.read_sync(count) == 1
    assert {one.name: one.level for one in check(db)}["integrity"] == Level.OK
    db.close()


async def test_a_database_on_a_full_disk_can_be_opened_and_read(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'darner.db'}"
    db = Database.open(url, patience_s=1)
    migrate(db)
    written = await fill_up(db)
    db.close()
    (small_disk / "rest").write_bytes(b"")
    again = Database.open(url, patience_s=1)
    assert again.read_sync(count) == written
    again.close()
