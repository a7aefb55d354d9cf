"""Starts, watches and stops the processes of `darner up`.

Start order: manager, scheduler, daemons (each waits until the one before is ready). A process that dies is started again with
back-off, and `cluster.json` gets its new pid. Stop order is the reverse, so that nobody talks to a partner that is gone:
ordinary daemons, seed, scheduler, manager; SIGTERM first, SIGKILL after a grace.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from darner.app.process import READY_FD
from darner.app.up import cluster
from darner.app.up.layout import Layout, daemon_config, manager_config, scheduler_config, write_config
from darner.core.errors import DarnerError
from darner.kit.retry import backoff

READY_TIMEOUT_S = 60.0
STOP_GRACE_S = 15.0
STABLE_S = 20.0
MAX_LOG_BYTES = 64 * 1024 * 1024
LOG_TAIL_LINES = 5


class StartError(DarnerError):
    """A process of the system did not start."""

    kind = "unavailable"


@dataclass(slots=True, kw_only=True)
class Child:
    """One supervised process. `ready` is set while it answers; `log_begin`: where in its log the present process begins."""

    name: str
    command: list[str]
    log_file: Path
    process: asyncio.subprocess.Process | None = None
    started_at: float = 0.0
    log_begin: int = 0
    restarts: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """The processes of one layout. `say` shows a person what happens."""

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        """Nothing starts yet."""
        self._layout = layout
        self._say = say
        self._started_at = time.time()
        self._stopping = False
        self._watchers: list[asyncio.Task[None]] = []
        self._children = [self._child(name, arguments) for name, arguments in self._write_configs()]

    def _write_configs(self) -> list[tuple[str, list[str]]]:
        config_dir = self._layout.data_dir / "config"
        config_dir.mkdir(mode=0o700, exist_ok=True)
        write_config(config_dir / "manager.yaml", manager_config(self._layout))
        write_config(config_dir / "scheduler.yaml", scheduler_config(self._layout))
        processes = [(name, [name, "--config", str(config_dir / f"{name}.yaml")]) for name in ("manager", "scheduler")]
        for daemon in self._layout.daemons:
            daemon.directory.mkdir(mode=0o700, exist_ok=True)
            path = config_dir / f"{daemon.name}.yaml"
            write_config(path, daemon_config(self._layout, daemon))
            processes.append((daemon.name, ["daemon", "--config", str(path), *(["--seed"] if daemon.seed else [])]))
        return processes

    def _child(self, name: str, arguments: list[str]) -> Child:
        logs = self._layout.data_dir / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        return Child(name=name, command=[sys.executable, "-m", "darner", *arguments], log_file=logs / f"{name}.log")

    async def start(self) -> None:
        """Start everything in order. Raises StartError with the end of the log of the one that failed."""
        manager, scheduler, *daemons = self._children
        for group in ([manager], [scheduler], daemons):
            for child in group:
                await self._spawn(child)
            for child in group:
                await self._wait_ready(child)
        self._watchers = [asyncio.create_task(self._watch(child), name=f"watch {child.name}") for child in self._children]
        self._write_cluster()

    async def stop(self) -> None:
        """Stop everything in reverse order and take `cluster.json` away."""
        self._stopping = True
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        manager, scheduler, *daemons = self._children
        for group in ([child for child in daemons if child.name != "seed"], daemons[:1], [scheduler], [manager]):
            await asyncio.gather(*(self._end(child) for child in group))
        cluster.remove(self._layout.data_dir)

    async def _spawn(self, child: Child) -> None:
        child.ready.clear()
        read_end, write_end = os.pipe()
        try:
            with _open_log(child.log_file) as log:
                child.log_begin = os.fstat(log).st_size
                child.process = await asyncio.create_subprocess_exec(
                    *child.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                    env=os.environ | {READY_FD: str(write_end)},
                    start_new_session=True,  # Ctrl-C reaches only the supervisor, which stops the others in order
                )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        child.started_at = time.monotonic()
        await self._listen(child, read_end)

    async def _listen(self, child: Child, read_end: int) -> None:
        """Set `child.ready` when the process says so on its pipe."""
        loop = asyncio.get_running_loop()

        def on_readable() -> None:
            loop.remove_reader(read_end)
            with contextlib.suppress(OSError):
                if os.read(read_end, 16):
                    child.ready.set()
            os.close(read_end)

        loop.add_reader(read_end, on_readable)

    async def _wait_ready(self, child: Child) -> None:
        process = child.process
        if process is None:
            raise StartError(f"{child.name} was not started")
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(child.ready.wait())
        done, pending = await asyncio.wait((ended, ready), timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if ready in done and child.ready.is_set():
            return
        why = f"ended with code {process.returncode}" if ended in done else f"was not ready within {READY_TIMEOUT_S:.0f} s"
        raise StartError(f"{child.name} {why}; the end of {child.log_file}:\n{_tail(child.log_file, child.log_begin)}")

    async def _watch(self, child: Child) -> None:
        waits = backoff(first_s=0.2, cap_s=10.0)
        while not self._stopping:
            process = child.process
            code = await process.wait() if process else None
            if time.monotonic() - child.started_at > STABLE_S:
                waits = backoff(first_s=0.2, cap_s=10.0)
            wait = next(waits)
            self._say(f"{child.name} ended ({_how(code)}); starting it again in {wait:.1f} s, its log is {child.log_file}")
            await asyncio.sleep(wait)
            child.restarts += 1
            try:
                await self._spawn(child)
                self._write_cluster()
                await self._wait_ready(child)
                self._say(f"{child.name} is back (pid {child.process.pid if child.process else '?'})")
            except (StartError, OSError) as error:
                self._say(str(error))

    def _write_cluster(self) -> None:
        pids = {child.name: child.process.pid for child in self._children if child.process}
        cluster.write(self._layout, pids, self._started_at)

    async def _end(self, child: Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        except TimeoutError:
            self._say(f"{child.name} did not stop within {STOP_GRACE_S:.0f} s; it is killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[int]:
    """A handle that appends to the log; a log that has grown too large is set aside first."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _tail(path: Path, begin: int) -> str:
    try:
        written = path.read_bytes()[begin:]
    except OSError:
        written = b""
    return "\n".join(written.decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]) or "(it logged nothing)"


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"code {code}"
