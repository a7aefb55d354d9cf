"""What is known of tasks and pieces, in SQLite: survives kill -9 at any instruction (docs/adr/0002-piece-metadata-engine.md).

One connection for all threads under the store's lock: a row costs some ten microseconds and no fsync. The write-ahead log is folded
back by a thread with a connection of its own, so that its fsync never holds up a download.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from darner.core.digest import Digest
from darner.core.errors import ConflictError, DarnerError, StorageFullError
from darner.core.piece import TrafficType
from darner.core.task import Headers
from darner.kit.log import get_logger
from darner.store.records import PieceRecord, TaskRecord

SCHEMA_VERSION = 1
CHECKPOINT_EVERY = 2000
_SCHEMA = """
CREATE TABLE task (
  id TEXT PRIMARY KEY, url TEXT NOT NULL, content_length INTEGER NOT NULL, piece_length INTEGER NOT NULL,
  response_header TEXT NOT NULL, digest TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL, used_at REAL NOT NULL,
  prefetched_at REAL, failed_at REAL, finished_at REAL) WITHOUT ROWID;
CREATE TABLE piece (
  task_id TEXT NOT NULL, number INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, crc32 INTEGER NOT NULL,
  blake3 BLOB NOT NULL, parent_id TEXT NOT NULL, traffic_type INTEGER NOT NULL, cost_s REAL NOT NULL, created_at REAL NOT NULL,
  PRIMARY KEY (task_id, number)) WITHOUT ROWID;
CREATE TABLE leftover (path TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_TASK_FACTS = "id, url, content_length, piece_length, response_header, digest"
_TASK_TIMES = "created_at, updated_at, used_at, prefetched_at, failed_at, finished_at"
_TASK_COLUMNS = f"{_TASK_FACTS}, {_TASK_TIMES}"
_PUT_TASK = f"INSERT OR REPLACE INTO task ({_TASK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608  (constants)
_PUT_PIECE = "INSERT OR REPLACE INTO piece VALUES (?,?,?,?,?,?,?,?,?,?)"
_log = get_logger("store")


class Metadata:
    """Rows of tasks and pieces. Not thread-safe by itself: the store calls it under its lock."""

    def __init__(self, path: Path) -> None:
        """Open or create the database. Raises ConflictError for one written by a newer version."""
        self._path = path
        self._connection = self._open_or_replace()
        self._since_checkpoint = 0
        self._checkpoint_due = threading.Event()
        self._closing = False
        self._checkpointer = threading.Thread(target=self._checkpoint_loop, name="store-checkpoint", daemon=True)
        self._checkpointer.start()

    def close(self) -> None:
        """Fold the log back and close."""
        self._closing = True
        self._checkpoint_due.set()
        self._checkpointer.join()
        self._connection.close()

    def tasks(self) -> list[TaskRecord]:
        """Every task, without its counters."""
        return [_task_from_row(row) for row in self._connection.execute(f"SELECT {_TASK_COLUMNS} FROM task")]  # noqa: S608

    def pieces(self, task_id: str) -> dict[int, PieceRecord]:
        """The pieces of one task by number."""
        rows = self._connection.execute("SELECT * FROM piece WHERE task_id = ? ORDER BY number", (task_id,))
        return {row[1]: _piece_from_row(row) for row in rows}

    def put_task(self, task: TaskRecord, pieces: Iterable[PieceRecord] = ()) -> None:
        """Write a task, and pieces of it, in one transaction."""
        with self._transaction() as connection:
            connection.execute(_PUT_TASK, _row_of_task(task))
            connection.executemany(_PUT_PIECE, [_row_of_piece(task.id, piece) for piece in pieces])

    def put_piece(self, task_id: str, piece: PieceRecord) -> None:
        """Write one piece: one statement is one transaction."""
        with self._mapped_errors():
            self._connection.execute(_PUT_PIECE, _row_of_piece(task_id, piece))
        self._count_write()

    def drop_piece(self, task: TaskRecord, number: int) -> None:
        """Forget one piece and write the task it belongs to."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM piece WHERE task_id = ? AND number = ?", (task.id, number))
            connection.execute(_PUT_TASK, _row_of_task(task))

    def delete_task(self, task_id: str) -> None:
        """Forget a task and its pieces."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM piece WHERE task_id = ?", (task_id,))
            connection.execute("DELETE FROM task WHERE id = ?", (task_id,))

    def touch(self, used_at: dict[str, float]) -> None:
        """Write times of last use."""
        with self._transaction() as connection:
            connection.executemany("UPDATE task SET used_at = ? WHERE id = ?", [(at, task_id) for task_id, at in used_at.items()])

    def leftovers(self) -> list[Path]:
        """Temporary files outside our directory that were being written."""
        return [Path(row[0]) for row in self._connection.execute("SELECT path FROM leftover")]

    def add_leftover(self, path: Path) -> None:
        """Note a temporary file before it is made, so that it can be removed after a crash."""
        with self._mapped_errors():
            self._connection.execute("INSERT OR REPLACE INTO leftover VALUES (?)", (str(path),))

    def remove_leftover(self, path: Path) -> None:
        """The temporary file is gone."""
        with self._mapped_errors():
            self._connection.execute("DELETE FROM leftover WHERE path = ?", (str(path),))

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise DarnerError(f"cannot open {self._path}: {error}; check the directory's owner and free space") from error
            # It only describes a cache: pieces without a row are fetched again, so a fresh start loses nothing but time.
            _log.error("piece metadata is damaged; starting with an empty store", path=str(self._path), error=str(error))
            for suffix in ("", "-wal", "-shm"):
                damaged = self._path.with_name(self._path.name + suffix)
                if damaged.exists():
                    damaged.replace(self._path.with_name(f"damaged-{damaged.name}"))
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise ConflictError(
                    f"{self._path} was written by a newer Darner (schema {version}); use that version or another directory"
                )
            if version < SCHEMA_VERSION:
                connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
            connection.execute("SELECT count(*) FROM task").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mapped_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._count_write()

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            # A write that the file system refuses (full, over a limit) comes as FULL or as one of the IOERR family.
            if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
                raise StorageFullError(
                    f"piece metadata could not be written to {self._path}: {error}; free space on that disk"
                ) from error
            raise DarnerError(f"piece metadata could not be written to {self._path}: {error}") from error

    def _count_write(self) -> None:
        self._since_checkpoint += 1
        if self._since_checkpoint >= CHECKPOINT_EVERY:
            self._since_checkpoint = 0
            self._checkpoint_due.set()

    def _checkpoint_loop(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30.0)
        try:
            while not self._closing:
                self._checkpoint_due.wait()
                self._checkpoint_due.clear()
                try:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                except sqlite3.Error as error:
                    _log.warning("the log of the piece metadata could not be folded back", path=str(self._path), error=str(error))
        finally:
            connection.close()


def _row_of_task(task: TaskRecord) -> tuple[object, ...]:
    return (
        task.id,
        task.url,
        task.content_length,
        task.piece_length,
        orjson.dumps(dict(task.response_header)).decode(),
        str(task.digest) if task.digest else None,
        task.created_at,
        task.updated_at,
        task.used_at,
        task.prefetched_at,
        task.failed_at,
        task.finished_at,
    )


def _task_from_row(row: tuple[Any, ...]) -> TaskRecord:
    names = [name.strip() for name in _TASK_COLUMNS.split(",")]
    fields = dict(zip(names, row, strict=True))
    fields["response_header"] = Headers(orjson.loads(str(fields["response_header"])))
    fields["digest"] = Digest.parse(str(fields["digest"])) if fields["digest"] else None
    return TaskRecord(**fields)


def _row_of_piece(task_id: str, piece: PieceRecord) -> tuple[object, ...]:
    return (
        task_id,
        piece.number,
        piece.offset,
        piece.length,
        piece.crc32,
        piece.blake3,
        piece.parent_id,
        int(piece.traffic_type),
        piece.cost_s,
        piece.created_at,
    )


def _piece_from_row(row: tuple[Any, ...]) -> PieceRecord:
    _, number, start, length, crc32, blake3, parent_id, traffic_type, cost_s, created_at = row
    return PieceRecord(
        number=number,
        offset=start,
        length=length,
        crc32=crc32,
        blake3=blake3,
        parent_id=parent_id,
        traffic_type=TrafficType(traffic_type),
        cost_s=cost_s,
        created_at=created_at,
    )
