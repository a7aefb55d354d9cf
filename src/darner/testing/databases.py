"""Real MariaDB and PostgreSQL servers for tests: Debian's programs, on a free loopback port, in a directory of their own.

A server is made without fsync (a test may lose its data in a power cut) but writes every commit to the system, so that `kill -9`
of the server loses nothing that was answered. It ends with the process that started it, however that ends. Root starts it as the
system's user of the package, because PostgreSQL refuses root.

`server.create()` gives the URL of a fresh, empty database; its user is as the documentation advises: owner of that database, no
administrator.
"""

import itertools
import os
import pwd
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from sqlalchemy import MetaData, create_engine, exc, text

from darner.db import Database
from darner.testing.ports import free_port
from darner.testing.programs import Child, ProgramError, run

USER, PASSWORD = "darner", "not-a-secret"
_START_TIMEOUT_S = 60.0
_SBIN = "/usr/sbin:/sbin:/usr/local/sbin"


class Server:
    """A database server with an empty data directory. `start` and `stop` may be repeated; a context does both and cleans up."""

    kind: ClassVar[str]
    package: ClassVar[str]
    _system_user: ClassVar[str]
    _driver: ClassVar[str]
    _admin: ClassVar[str]
    _stop_signal: ClassVar[signal.Signals]
    _home: ClassVar[str]

    def __init__(self, *settings: str) -> None:
        """`settings`: more of the server's, `name=value` each. Nothing runs until the context is entered, or `start`."""
        self.port = free_port()
        self.settings = list(settings)
        self.directory = Path()
        self._numbers = itertools.count(1)
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, *settings: str) -> None:
        """Start it and wait until it answers; the first time its data directory is made. `settings` hold for this start."""
        if self.directory == Path():
            self._make()
        command = [*self._command(), *self._options([*self.settings, *settings])]
        self._child = Child(self._as_user(command), self.directory / "server.log")
        self._child.wait_for_port(self.port, timeout_s=_START_TIMEOUT_S)
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Let it end in order; connections are cut."""
        if self._child is not None:
            self._child.stop(by=self._stop_signal)
            self._child = None

    def kill(self) -> None:
        """`kill -9`, and wait until nothing of it listens."""
        if self._child is None:
            return
        _kill_tree(self._child.process.pid)
        self._child.process.wait()
        self._child = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.process.poll() is None

    def create(self) -> str:
        """The URL of a new, empty database."""
        name = f"darner_{next(self._numbers)}"
        self.administer(*self._create(name))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database that `create` made."""
        self.administer(self._drop(url.rpartition("/")[2]))

    def url(self, name: str) -> str:
        """The URL of a database as Darner takes it."""
        return f"{self.kind}://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def administer(self, *statements: str, database: str = "") -> None:
        """Run statements as administrator, each committed by itself."""
        address = f"{self._driver}://{self._admin}:{PASSWORD}@127.0.0.1:{self.port}/{database or self._home}"
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as conn:
                for statement in statements:
                    conn.execute(text(statement))
        finally:
            engine.dispose()

    def log_tail(self) -> str:
        """The end of its log."""
        return (self.directory / "server.log").read_text(errors="replace")[-3000:]

    def _make(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="darner-db-"))
        if os.geteuid() == 0:
            shutil.chown(self.directory, self._system_user)
        run(self._as_user(self._initialise()))

    def _as_user(self, command: Sequence[str | Path]) -> list[str | Path]:
        """Under the package's user where we are root; and so that it ends when we do (or when the thread ends that starts it)."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            return list(command)
        is_main = threading.current_thread() is threading.main_thread()
        how = [setpriv, *(["--pdeathsig", self._stop_signal.name.removeprefix("SIG")] if is_main else [])]
        if os.geteuid() == 0:
            user = pwd.getpwnam(self._system_user)
            how += ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups"]
        return [*how, "--", *command]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.administer("SELECT 1")
            except exc.OperationalError as error:
                if time.monotonic() > deadline:
                    raise ProgramError(f"{self.kind} does not answer: {error}\n{self.log_tail()}") from error
                time.sleep(0.05)
            else:
                return

    def _initialise(self) -> list[str | Path]:
        raise NotImplementedError

    def _command(self) -> list[str | Path]:
        raise NotImplementedError

    def _options(self, settings: Sequence[str]) -> list[str]:
        raise NotImplementedError

    def _create(self, name: str) -> list[str]:
        raise NotImplementedError

    def _drop(self, name: str) -> str:
        raise NotImplementedError


class MariaDb(Server):
    """Debian's MariaDB; with a binary log by rows, as a server with replicas has."""

    kind = "mariadb"
    package = "mariadb-server"
    _system_user = "mysql"
    _driver = "mysql+pymysql"
    _admin = "administrator"
    _stop_signal = signal.SIGTERM
    _home = ""

    def _initialise(self) -> list[str | Path]:
        install = _program("mariadb-install-db")
        (self.directory / "init.sql").write_text(
            f"CREATE OR REPLACE USER {self._admin}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {self._admin}@'127.0.0.1' WITH GRANT OPTION;\n"
            f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
        )
        quick = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        return [install, "--no-defaults", f"--datadir={self.directory / 'data'}", *quick]

    def _command(self) -> list[str | Path]:
        return [_program("mariadbd"), "--no-defaults", f"--init-file={self.directory / 'init.sql'}"]

    def _options(self, settings: Sequence[str]) -> list[str]:
        return [
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--server-id=1",
            "--log-bin=binlog",
            "--binlog-format=ROW",
            "--sync-binlog=0",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--innodb-log-file-size=32M",
            "--innodb-buffer-pool-size=64M",
            "--performance-schema=OFF",
            "--max-connections=200",
            *(f"--{setting}" for setting in settings),
        ]

    def _create(self, name: str) -> list[str]:
        return [f"CREATE DATABASE {name} CHARACTER SET utf8mb4", f"GRANT ALL ON {name}.* TO {USER}@'127.0.0.1'"]

    def _drop(self, name: str) -> str:
        return f"DROP DATABASE {name}"


class PostgreSql(Server):
    """Debian's PostgreSQL, the newest that is installed. Databases may be copied from a template."""

    kind = "postgresql"
    package = "postgresql"
    _system_user = "postgres"
    _driver = "postgresql+psycopg"
    _admin = "postgres"
    _stop_signal = signal.SIGINT  # "fast": connections are cut
    _home = "postgres"

    def start(self, *settings: str) -> None:
        """See `Server.start`."""
        fresh = self.directory == Path()
        super().start(*settings)
        if fresh:
            self.administer(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def create(self, *, template: str = "template0") -> str:
        """The URL of a new database, empty or a copy of another one (its name) that nobody is connected to."""
        name = f"darner_{next(self._numbers)}"
        self.administer(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def _initialise(self) -> list[str | Path]:
        how = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        return [_postgres_program("initdb"), "--pgdata", self.directory / "data", *how]

    def _command(self) -> list[str | Path]:
        return [_postgres_program("postgres"), "-D", self.directory / "data"]

    def _options(self, settings: Sequence[str]) -> list[str]:
        own = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.directory}",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=64MB",
            "max_connections=200",
        ]
        return [part for setting in (*own, *settings) for part in ("-c", setting)]

    def _drop(self, name: str) -> str:
        return f"DROP DATABASE {name} WITH (FORCE)"


def empty(url: str) -> None:
    """Drop all tables of a database."""
    db = Database.open(url)
    try:
        found = MetaData()
        found.reflect(db.engine)
        db.write_sync(found.drop_all)
    finally:
        db.close()


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if found is None:
        raise ProgramError(f"{name} is not installed")
    return found


def _postgres_program(name: str) -> Path:
    """Debian keeps one directory of programs per version."""
    found = [path for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}") if path.parts[-3].isdigit()]
    if not found:
        raise ProgramError(f"PostgreSQL's {name} is not installed")
    return max(found, key=lambda path: int(path.parts[-3]))


def _kill_tree(pid: int) -> None:
    """PostgreSQL's processes live on for a moment without their parent: all are killed at once, as a power cut would."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    for one in (pid, *children):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
