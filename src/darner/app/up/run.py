"""`darner up` from first check to clean stop."""

import asyncio
import errno
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darner.app.up import cluster
from darner.app.up.layout import LOOPBACK, Layout, plan
from darner.app.up.supervisor import Supervisor
from darner.core.errors import ConflictError, DarnerError, InvalidInputError

MAX_PEERS = 50
FIRST_PORT, LAST_PORT = 1024, 65535


def up(data_dir: Path, *, peers: int, port_base: int, database: str | None) -> None:
    """Run the whole system until SIGINT or SIGTERM. Raises DarnerError with one sentence when it cannot."""
    if not 0 <= peers <= MAX_PEERS:
        raise InvalidInputError(f"--peers {peers}: expected 0 to {MAX_PEERS}", field="peers")
    layout = plan(data_dir.absolute(), peers=peers, port_base=port_base, database=database)
    if port_base < FIRST_PORT or max(layout.all_ports()) >= LAST_PORT:
        raise InvalidInputError(
            f"--port-base {port_base}: expected {FIRST_PORT} to {LAST_PORT - 10 * peers - 20}", field="port-base"
        )
    try:
        layout.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DarnerError(f"cannot use {layout.data_dir} as data directory: {error.strerror}") from None
    with _held(layout.data_dir):
        cluster.remove(layout.data_dir)
        check_ports(layout)
        asyncio.run(_serve(layout))


async def _serve(layout: Layout) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    supervisor = Supervisor(layout, say)
    say(f"starting in {layout.data_dir}")
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            print(f"ready {layout.manager_http}", flush=True)  # noqa: T201  (the contract's last line)
            await stopping
    finally:
        starting.cancel()
        stopping.cancel()
        say("stopping")
        await supervisor.stop()


def say(text: str) -> None:
    """A line for the person in front of the terminal."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def _held(data_dir: Path) -> Iterator[None]:
    """Hold the directory's lock. A second holder is told who the first one is."""
    path = data_dir / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DarnerError(f"cannot write in the data directory {data_dir}: {error.strerror}") from None
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            holder = file.read().strip() or "?"
            running = cluster.read(data_dir)
            where = f" at {running['manager']['http']}" if running else ""
            message = f"{data_dir} is in use by another `darner up` (pid {holder}){where}; stop it, or choose another --data-dir"
            raise ConflictError(message) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_ports(layout: Layout) -> None:
    """Refuse to start when a port is taken, naming it and its use."""
    for port, use in layout.all_ports().items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                message = f"port {port} ({use}) is taken on {LOOPBACK}; free it, or choose another --port-base"
                raise ConflictError(message) from None
