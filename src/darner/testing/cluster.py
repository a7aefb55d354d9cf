"""A whole Darner on this machine through its command line: `darner up` as a child, `darner …` commands, kills, a clean stop.

It knows the public faces alone: the `ready ` line, `cluster.json`, exit codes and the data directory (design/contract: commands,
`darner up`). Used by the acceptance tests, the demo and the benchmarks.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from darner.testing.ports import free_port_base

_SHOWN_LINES = 12
_PORTS_PER_PROCESS = 10


class ClusterError(Exception):
    """`darner up` did not do what it must; the message holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """One daemon as `cluster.json` shows it; addresses are `host:port`, `mirror` and `metrics` are URLs."""

    name: str
    seed: bool
    pid: int
    socket: str
    upload: str
    mirror: str
    metrics: str
    vortex: str
    dir: Path

    @property
    def mirror_address(self) -> str:
        """`host:port` of the mirror, as image references begin."""
        return self.mirror.partition("://")[2].rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`cluster.json`."""

    token_file: Path
    manager_pid: int
    manager_http: str
    manager_grpc: str
    scheduler_pids: tuple[int, ...]
    daemons: tuple[Daemon, ...]

    @property
    def seed(self) -> Daemon:
        """The seed daemon."""
        return next(daemon for daemon in self.daemons if daemon.seed)

    @property
    def peers(self) -> tuple[Daemon, ...]:
        """The ordinary peers."""
        return tuple(daemon for daemon in self.daemons if not daemon.seed)

    @property
    def pids(self) -> set[int]:
        """Every process but `up` itself."""
        return {self.manager_pid, *self.scheduler_pids, *(daemon.pid for daemon in self.daemons)}

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Parse the file. Raises OSError, KeyError or ValueError."""
        data: dict[str, Any] = json.loads(path.read_text())
        names = Daemon.__dataclass_fields__.keys()
        return cls(
            token_file=Path(data["token_file"]),
            manager_pid=data["manager"]["pid"],
            manager_http=data["manager"]["http"],
            manager_grpc=data["manager"]["grpc"],
            scheduler_pids=tuple(scheduler["pid"] for scheduler in data["schedulers"]),
            daemons=tuple(
                Daemon(**{name: entry[name] for name in names} | {"dir": Path(entry["dir"])}) for entry in data["daemons"]
            ),
        )


def darner_command() -> list[str]:
    """How to run the command line: the installed script beside this Python, else the module."""
    script = Path(sys.executable).with_name("darner")
    return [str(script)] if script.exists() else [sys.executable, "-m", "darner"]


class UpCluster:
    """One `darner up`. `start`, then `run` commands, then `stop`; or a context that stops it cleanly and says if that failed."""

    def __init__(
        self,
        data_dir: Path,
        *,
        peers: int = 2,
        port_base: int | None = None,
        env: Mapping[str, str] | None = None,
        database: str | None = None,
    ) -> None:
        """`env` is added to this process's environment, for `up` and for every command. `database`: a URL, else SQLite."""
        self.data_dir = data_dir
        self.database = database
        self.peers = peers
        self.port_base = port_base or free_port_base((peers + 3) * _PORTS_PER_PROCESS)
        self.env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(env or {})}
        self.out_file = data_dir.with_name(f"{data_dir.name}.out")
        self.err_file = data_dir.with_name(f"{data_dir.name}.err")
        self._seen_pids: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_exc: object) -> None:
        try:
            code = self.stop()
        finally:
            self.kill_leftovers()
        if kind is None and code != 0:
            message = f"darner up ended with {code} on SIGINT:\n{self.log_tail()}"
            raise ClusterError(message)

    @property
    def cluster_file(self) -> Path:
        """Where `up` says what it has started."""
        return self.data_dir / "cluster.json"

    @property
    def facts(self) -> Facts:
        """`cluster.json` as it is now (pids change when a process is restarted)."""
        facts = Facts.read(self.cluster_file)
        self._seen_pids |= facts.pids
        return facts

    @property
    def pid(self) -> int:
        """The process id of `up`."""
        assert self._process is not None, "start it first"
        return self._process.pid

    def command(self) -> list[str]:
        """The command that starts it."""
        options = ["--data-dir", str(self.data_dir), "--peers", str(self.peers), "--port-base", str(self.port_base)]
        return [*darner_command(), "up", *options, *(["--database", self.database] if self.database else [])]

    def start(self, *, timeout_s: float = 90.0) -> Facts:
        """Start it and wait for its `ready ` line. Raises ClusterError with its log if it ends or takes too long."""
        self.out_file.write_bytes(b"")
        with self.out_file.open("ab") as out, self.err_file.open("ab") as err:
            self._process = subprocess.Popen(
                self.command(), stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=self.env, start_new_session=True
            )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.ready_line():
                return self.facts
            time.sleep(0.05)
        code = self._process.poll()
        state = f"is not ready after {timeout_s:.0f} s" if code is None else f"ended with {code} before it was ready"
        message = f"{' '.join(self.command())} {state}:\n{self.log_tail()}"
        self.kill_everything()
        raise ClusterError(message)

    def ready_line(self) -> str:
        """The line that begins with `ready `, or an empty text."""
        lines = self.out_file.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.startswith("ready ")), "")

    def run(
        self,
        *args: str | Path,
        timeout_s: float = 180.0,
        text_in: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `darner ARGS` against this cluster; never raises for its exit code."""
        command = [*darner_command(), "--data-dir", str(self.data_dir), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=self.env, input=text_in, check=False)

    def popen(self, *args: str | Path) -> subprocess.Popen[str]:
        """Start `darner ARGS` against this cluster and do not wait for it."""
        command = [*darner_command(), "--data-dir", str(self.data_dir), *map(str, args)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env)

    def documents(self, *args: str | Path) -> list[Any]:
        """What `darner ARGS --json` printed: one document per line, or one over many lines. Raises ClusterError if it failed."""
        done = self.run(*args, "--json")
        if done.returncode:
            message = f"darner {' '.join(map(str, args))} --json ended with {done.returncode}: {done.stderr}"
            raise ClusterError(message)
        return parse_documents(done.stdout)

    def wait_for_restart(self, old_pid: int, *, timeout_s: float = 60.0) -> Facts:
        """Wait until `cluster.json` no longer names a process that was killed, and every named one lives."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            facts = self.facts
            if old_pid not in facts.pids and all(_alive(pid) for pid in facts.pids):
                return facts
            time.sleep(0.1)
        message = f"process {old_pid} was not replaced within {timeout_s:.0f} s:\n{self.log_tail()}"
        raise ClusterError(message)

    def stop(self, *, timeout_s: float = 60.0) -> int:
        """Ctrl-C, and wait; the exit code, or -1 if it would not end."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._seen_pids |= self.facts.pids if self.cluster_file.exists() else set()
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return -1

    def kill(self, pid: int) -> None:
        """`kill -9` of one process that `cluster.json` names. Raises ClusterError for any other."""
        if pid not in self.facts.pids:
            message = f"{pid} is no process of this cluster"
            raise ClusterError(message)
        os.kill(pid, signal.SIGKILL)

    def kill_everything(self) -> None:
        """`kill -9` of `up` first, then of all it started, as a power cut would."""
        if self.cluster_file.exists():
            self._seen_pids |= self.facts.pids
        self.kill_leftovers()

    def kill_leftovers(self) -> set[int]:
        """`kill -9` what is still there of the processes this cluster has started, `up` first; which ones were."""
        left = set()
        if self._process is not None and self._process.poll() is None:
            left.add(self._process.pid)
            self._process.kill()
            self._process.wait()
        left |= {pid for pid in self._seen_pids if _is_darner(pid)} | self._named()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 10
        while any(_alive(pid) for pid in left) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def log_tail(self) -> str:
        """The end of what `up` and the processes below it have logged."""
        files = [self.out_file, self.err_file, *sorted(self.data_dir.rglob("*.log"))]
        tails = {path: path.read_text(errors="replace").splitlines()[-_SHOWN_LINES:] for path in files if path.exists()}
        return "\n".join(line for path, lines in tails.items() if lines for line in (f"--- {path}", *lines))

    def remove(self) -> None:
        """Delete the data directory and the logs."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.out_file.unlink(missing_ok=True)
        self.err_file.unlink(missing_ok=True)

    def _named(self) -> set[int]:
        """Live processes whose command line names this data directory: also those that `cluster.json` never named."""
        pids = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()} - {os.getpid()}
        return {pid for pid in pids if _is_darner(pid) and f"{self.data_dir}/config/".encode() in _command_line(pid)}


class UpFactory(Protocol):
    """What the fixture `darner_up` gives: starts a cluster that the fixture stops and judges at the end."""

    def __call__(
        self, *, peers: int = 2, env: Mapping[str, str] | None = None, name: str = "up", database: str | None = None
    ) -> UpCluster:
        """A running cluster in a directory of this name."""


def parse_documents(text: str) -> list[Any]:
    """JSON documents one after another, whatever the line breaks between and in them."""
    decoder, found, position = json.JSONDecoder(), [], 0
    text = text.strip()
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        found.append(value)
        while position < len(text) and text[position].isspace():
            position += 1
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, ppid, pgrp, session …; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _alive(pid: int) -> bool:
    return bool(state := _stat(pid)) and state[0] != "Z"


def _is_darner(pid: int) -> bool:
    """Whether this process is (still) ours: a process id may have been given to another program since."""
    return _alive(pid) and b"darner" in _command_line(pid)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
