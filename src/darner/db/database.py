"""One database, used from asyncio through a small pool of threads (docs/adr/0005).

In: plain functions that take a connection. Out: what they return. Each call is one transaction. A write is tried again when the
database was busy or away and certainly kept nothing; so the function may run more than once and must do no more than SQL.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url

from darner.core.errors import InvalidInputError, StorageFullError, UnavailableError
from darner.db import failures, servers, sqlite
from darner.kit.retry import backoff

T = TypeVar("T")
_DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
_READERS = 4


class Database:
    """The engine, its threads, and the writer lock that SQLite needs.

    `patience_s`: how long a call tries again while the database is busy or away, before UnavailableError.
    """

    def __init__(self, engine: Engine, *, patience_s: float) -> None:
        """Use `Database.open`."""
        self.engine = engine
        self.dialect: str = engine.dialect.name
        self.name = engine.url.render_as_string(hide_password=True)
        self._patience_s = patience_s
        self._away = False
        self._commits = 0
        embedded = self.dialect == "sqlite"
        self._writer: contextlib.AbstractContextManager[Any] = threading.Lock() if embedded else contextlib.nullcontext()
        self._read_threads = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")
        self._write_threads = ThreadPoolExecutor(1 if embedded else _READERS, thread_name_prefix="db-write")

    @classmethod
    def open(cls, url: str, *, patience_s: float = 15.0, lock_wait_s: float = 10.0) -> Self:
        """`sqlite:///PATH`, `mysql://…`, `mariadb://…` or `postgresql://…`. A missing SQLite file is created, empty.

        `lock_wait_s`: how long a statement waits for another's locks on a server. InvalidInputError for a URL that cannot be used.
        Servers are not dialled yet.
        """
        parsed = _parse(url)
        if parsed.get_backend_name() == "sqlite":
            sqlite.create_file(Path(str(parsed.database)))
        return cls(_engine(parsed, lock_wait_s), patience_s=patience_s)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a transaction that may only read."""
        return await asyncio.get_running_loop().run_in_executor(self._read_threads, self.read_sync, fn)

    async def write(
        self, fn: Callable[[Connection], T], *, durable: bool = True, committed: Callable[[], object] | None = None
    ) -> T:
        """Run `fn` in a transaction and commit it.

        After it returns, the change survives the death of the process; with `durable` also a power cut. Progress that may be
        repeated says `durable=False` and spares SQLite the fsync. `committed` is called in the thread, as soon as it is.
        """

        def carry_out() -> T:
            result = self.write_sync(fn, durable=durable)
            if committed is not None:
                committed()
            return result

        return await asyncio.get_running_loop().run_in_executor(self._write_threads, carry_out)

    def read_sync(self, fn: Callable[[Connection], T]) -> T:
        """`read` for threads."""
        return self._persist(lambda: self._attempt(fn, {"darner_mode": "read"}))

    def write_sync(self, fn: Callable[[Connection], T], *, durable: bool = True) -> T:
        """`write` for threads."""
        options = {"darner_mode": "write", "darner_durable": durable}

        def attempt() -> T:
            with self._writer:
                return self._attempt(fn, options)

        result = self._persist(attempt)
        self._commits += 1
        if self.dialect == "sqlite" and self._commits % sqlite.CHECKPOINT_COMMITS == 0:
            with contextlib.suppress(RuntimeError):  # it is being closed
                self._read_threads.submit(self._on_driver, sqlite.checkpoint)
        return result

    def close(self) -> None:
        """Wait for running calls and close all connections."""
        self._write_threads.shutdown()
        self._read_threads.shutdown()
        self.engine.dispose()

    async def checkpoint(self) -> None:
        """SQLite: move the write-ahead log into the file as far as possible, so that it stays small. Else nothing."""
        if self.dialect == "sqlite":
            await asyncio.get_running_loop().run_in_executor(self._read_threads, self._on_driver, sqlite.checkpoint)

    async def return_space(self, *, pages: int = 500, least: int = 1_000) -> int:
        """SQLite: give up to `pages` free pages back to the file system, if `least` are free; how many are left to give. Else 0."""
        if self.dialect != "sqlite":
            return 0

        def step() -> int:
            with self._writer:
                return self._on_driver(lambda connection: sqlite.return_space(connection, pages=pages, least=least))

        return await asyncio.get_running_loop().run_in_executor(self._write_threads, step)

    def _on_driver(self, fn: Callable[[Any], T]) -> T:
        raw = self.engine.raw_connection()
        try:
            return fn(raw.driver_connection)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in sqlite.FULL:
                raise StorageFullError(f"The database {self.name} has no room left: {error}. Nothing was changed.") from error
            raise UnavailableError(f"The database {self.name} is busy: {error}. Nothing was changed.") from error
        finally:
            raw.close()

    def _persist(self, attempt: Callable[[], T]) -> T:
        """Try again for a while. Once a server stayed away for that long, all calls fail at once until one finds it there.

        Or the few threads would be waiting one after the other, and every caller for minutes.
        """
        began = time.monotonic()
        for wait_s in backoff(first_s=0.02, cap_s=1.0):
            try:
                result = attempt()
            except exc.DBAPIError as error:
                is_away = failures.is_away(error)
                moved = failures.is_read_only(error)
                if moved:  # after a failover the address may lead to the new primary, but only new connections do
                    self.engine.dispose()
                again = moved or failures.was_rolled_back(error) or (is_away and not self._away)
                if not again or time.monotonic() + wait_s > began + self._patience_s:
                    self._away = is_away
                    raise failures.translate(error, self.name) from error
            else:
                self._away = False
                return result
            time.sleep(wait_s)
        raise AssertionError  # backoff never ends

    def _attempt(self, fn: Callable[[Connection], T], options: dict[str, Any]) -> T:
        with self.engine.connect() as plain:
            conn = plain.execution_options(**options)
            try:
                with conn.begin() as transaction:
                    result = fn(conn)
                    try:
                        transaction.commit()
                    except exc.DBAPIError as error:
                        if failures.is_away(error):
                            raise failures.unknown_outcome(self.name) from error
                        raise
            finally:
                servers.forget_lean(conn)
            return result


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError as error:
        raise InvalidInputError("The database URL is not valid; write sqlite:///PATH or postgresql://user@host/name.") from error
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise InvalidInputError("An SQLite database needs a file: sqlite:///PATH.", field="database")
        return parsed
    if backend not in _DRIVERS:
        raise InvalidInputError(f"{backend} is not a known database; use sqlite, mysql, mariadb or postgresql.", field="database")
    return servers.checked(parsed.set(drivername=_DRIVERS[backend]) if "+" not in parsed.drivername else parsed)


def _engine(url: URL, lock_wait_s: float) -> Engine:
    backend = url.get_backend_name()
    embedded = backend == "sqlite"
    embedding: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
    arguments = embedding if embedded else servers.connect_arguments(backend, url.drivername)
    try:
        engine = create_engine(url, pool_size=_READERS * 2, max_overflow=4, pool_pre_ping=not embedded, connect_args=arguments)
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"The driver for {backend} is missing: install {error.name}.", field="database") from error
    event.listen(engine, "connect", _on_connect_sqlite if embedded else servers.on_connect(engine.dialect.name, lock_wait_s))
    if embedded:
        event.listen(engine, "begin", _on_begin_sqlite)
    return engine


def _on_connect_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401  (the driver's)
    sqlite.prepare_connection(connection)


def _on_begin_sqlite(conn: Connection) -> None:
    """Writers take the write lock at once, so that no transaction fails half way; readers cannot write."""
    options = conn.get_execution_options()
    writing = options.get("darner_mode") == "write"
    _set(conn, f"PRAGMA query_only = {'OFF' if writing else 'ON'}")
    if not writing:
        conn.exec_driver_sql("BEGIN")
        return
    durable = bool(options.get("darner_durable", True))
    _set(conn, f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    _set(conn, f"PRAGMA wal_autocheckpoint = {sqlite.CHECKPOINT_PAGES[durable]}")
    # By the engine at last, for the engine's errors.
    sqlite.begin_immediate(_raw(conn), begin=lambda: conn.exec_driver_sql("BEGIN IMMEDIATE"))


def _set(conn: Connection, setting: str) -> None:
    """Straight to the driver, which takes a tenth of the time; once more by the engine if it fails, for the engine's errors."""
    try:
        _raw(conn).execute(setting).close()
    except sqlite3.Error:
        conn.exec_driver_sql(setting)


def _raw(conn: Connection) -> Any:  # noqa: ANN401  (the driver's)
    return conn.connection.driver_connection
