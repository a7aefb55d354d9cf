"""SQLite as Darner uses it: settings that cannot be changed later, other processes on the same file, and kill -9."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Insert, insert, select

from darner.core.errors import InvalidInputError, StorageFullError, UnavailableError
from darner.db import Database, db_now_ms, migrate
from darner.db.tables.retention import retention_mark


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "darner.db"


@pytest.fixture
def db(file: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{file}", patience_s=1)
    migrate(opened)
    yield opened
    opened.close()


def mark(name: str, body: str = "{}") -> Insert:
    return insert(retention_mark).values(name=name, body=body, changed_at=7)


def marks(conn: Connection) -> list[str]:
    return list(conn.execute(select(retention_mark.c.name).order_by(retention_mark.c.name)).scalars())


def setting(db: Database, name: str) -> object:
    return db.write_sync(lambda conn: conn.exec_driver_sql(f"PRAGMA {name}").scalar())


def test_the_file_is_made_with_what_cannot_be_changed_later(db: Database, file: Path) -> None:
    wanted = {"page_size": 16384, "auto_vacuum": 2, "journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}
    wanted |= {"busy_timeout": 5000, "journal_size_limit": 64 * 1024 * 1024}
    assert {name: setting(db, name) for name in wanted} == wanted
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_durable_write_asks_for_the_disk_and_progress_does_not(db: Database) -> None:
    def level(conn: Connection) -> object:
        return conn.exec_driver_sql("PRAGMA synchronous").scalar()

    assert db.write_sync(level) == 2
    assert db.write_sync(level, durable=False) == 1
    assert db.write_sync(level) == 2


def test_a_read_cannot_write(db: Database) -> None:
    with pytest.raises(Exception, match="readonly"):
        db.read_sync(lambda conn: conn.execute(mark("sly")))
    assert db.read_sync(marks) == []


def test_space_of_removed_rows_goes_back_to_the_file_system(db: Database, file: Path) -> None:
    for index in range(200):
        db.write_sync(lambda conn, index=index: conn.execute(mark(f"m{index}", "x" * 100_000)), durable=False)  # type: ignore[misc]
    db.write_sync(lambda conn: conn.exec_driver_sql("DELETE FROM retention_mark"))
    full = file.stat().st_size

    async def shrink() -> None:
        while await db.return_space(pages=300, least=10) > 0:
            pass
        await db.checkpoint()

    import asyncio

    asyncio.run(shrink())
    assert file.stat().st_size < full / 4


async def test_few_free_pages_stay_for_new_rows(db: Database) -> None:
    db.write_sync(lambda conn: conn.execute(mark("big", "x" * 1_000_000)))
    db.write_sync(lambda conn: conn.exec_driver_sql("DELETE FROM retention_mark"))
    free = setting(db, "freelist_count")
    assert await db.return_space() == 0
    assert setting(db, "freelist_count") == free != 0


def test_a_database_held_by_another_process_is_unavailable_and_comes_back(db: Database, file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="busy"):
        db.write_sync(lambda conn: conn.execute(mark("late")))
    assert db.read_sync(marks) == []
    other.execute("COMMIT")
    other.close()
    db.write_sync(lambda conn: conn.execute(mark("now")))
    assert db.read_sync(marks) == ["now"]


def test_a_busy_database_is_waited_for(file: Path) -> None:
    db = Database.open(f"sqlite:///{file}", patience_s=20)
    migrate(db)
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    db.write_sync(lambda conn: conn.execute(mark("patient")))
    assert db.read_sync(marks) == ["patient"]
    other.close()
    db.close()


def test_two_processes_may_create_the_file_at_once(file: Path) -> None:
    program = (
        "import sys; from darner.db import Database, migrate; db = Database.open('sqlite:///' + sys.argv[1], patience_s=60);"
        "print(migrate(db)); db.close()"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=90)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1


KILLED = """
import sys
from sqlalchemy import insert
from darner.db import Database
from darner.db.tables.retention import retention_mark
db = Database.open("sqlite:///" + sys.argv[1])
for index in range(100_000):
    db.write_sync(lambda conn: conn.execute(insert(retention_mark).values(name=f"{index:06}", body="x" * 3000, changed_at=7)),
                  durable=sys.argv[2] == "durable")
    print(f"{index:06}", flush=True)
"""


@pytest.mark.parametrize("how", ["durable", "quick"])
def test_what_was_answered_survives_kill_9(db: Database, file: Path, how: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(file), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.read().split()
    process.wait()
    process.stdout.close()
    kept = db.read_sync(marks)
    assert set(told) <= set(kept)
    assert len(kept) - len(told) <= 1
    assert db.read_sync(lambda conn: conn.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"


def test_a_full_disk_is_said_and_nothing_is_half_stored(db: Database) -> None:
    def fill(conn: Connection) -> None:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        conn.execute(mark("small"))
        conn.execute(mark("big", "x" * 1_000_000))

    with pytest.raises(StorageFullError, match="nothing was stored"):
        db.write_sync(fill)
    db.engine.dispose()
    assert db.read_sync(marks) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url", "not valid"),
        ("oracle://x/y", "oracle is not a known database"),
        ("sqlite://", "needs a file"),
        ("sqlite:////proc/none/darner.db", "cannot be opened"),
    ],
)
def test_an_unusable_url_is_told_in_a_sentence(url: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Database.open(url)


def test_a_file_that_is_no_database_is_refused_and_left_alone(file: Path) -> None:
    file.write_bytes(b"a letter to my mother" * 1000)
    with pytest.raises(InvalidInputError, match="not an SQLite database"):
        Database.open(f"sqlite:///{file}")
    assert file.read_bytes().startswith(b"a letter")


def test_the_clock_runs_forward(db: Database) -> None:
    first = db.read_sync(db_now_ms)
    time.sleep(0.02)
    assert db.read_sync(db_now_ms) > first
