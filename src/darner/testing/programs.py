"""Real programs that tests need beside Darner, as child processes on free loopback ports: docker-registry, nginx, podman, skopeo.

Each keeps all its files below a directory it is given and ends with its context. `Child` is the common part: start, wait until it
answers, show its log when it does not, stop by its own process id.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from darner.testing.image import ImageLayout
from darner.testing.ports import free_port

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0
_QUIET_S = 0.1
_SHOWN_LOG = 3000
_GORILLA = re.compile(r'\S+ \S+ \S+ \[[^\]]+\] "(?P<method>\S+) (?P<path>\S+) [^"]*" (?P<status>\d+) (?P<bytes>\d+)')


class ProgramError(Exception):
    """A program did not start, or did not do what it was told; the message holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One line of a server's access log."""

    method: str
    path: str
    status: int
    body_bytes: int
    range: str = ""


class Child:
    """A process with its output in a file."""

    def __init__(self, command: Sequence[str | Path], log_file: Path, *, env: Mapping[str, str] | None = None) -> None:
        """Start it; `env` replaces the environment."""
        self.log_file = log_file
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env
            )

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self.log_file.read_text(errors="replace")[-_SHOWN_LOG:]

    def wait_for_port(self, port: int, *, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Return once it accepts connections on that port. Raises ProgramError if it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        message = f"{self.process.args!r} does not listen on {port} (exit code {self.process.poll()}):\n{self.log_tail()}"
        raise ProgramError(message)

    def stop(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """End it, by force if it does not listen; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        try:
            return self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class DockerRegistry:
    """Debian's docker-registry with an empty store below `directory`, its access log read back as `Hit`s."""

    def __init__(self, directory: Path) -> None:
        """Nothing runs until the context is entered."""
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.base_url = f"http://{self.address}"
        self._directory = directory
        self._log_file = directory / "registry.log"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        config = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self._directory / "store")}},
            "http": {"addr": self.address, "secret": "one process needs no shared secret"},
        }
        path = self._directory / "config.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        self._child = Child(["docker-registry", "serve", path], self._log_file)
        self._child.wait_for_port(self.port)
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._child is not None:
            self._child.stop()

    def push(self, layout: ImageLayout, repository: str, tag: str) -> None:
        """Write an image into it with skopeo, digests unchanged."""
        target = f"docker://{self.address}/{repository}:{tag}"
        command = [
            "skopeo",
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{layout.path}:latest",
            target,
        ]
        run(command)

    def manifest_url(self, repository: str, reference: str) -> str:
        """What `darner preheat --type image` takes."""
        return f"{self.base_url}/v2/{repository}/manifests/{reference}"

    def hits(self) -> list[Hit]:
        """The access log so far."""
        found = (_GORILLA.match(line) for line in _settled(self._log_file).splitlines())
        return [
            Hit(method=m["method"], path=m["path"].partition("?")[0], status=int(m["status"]), body_bytes=int(m["bytes"]))
            for m in found
            if m
        ]

    def blob_bytes(self) -> dict[str, int]:
        """Digest → body bytes of all successful GETs of that blob."""
        found: dict[str, int] = {}
        for hit in self.hits():
            _, is_blob, digest = hit.path.partition("/blobs/sha256:")
            if is_blob and hit.method == "GET" and hit.status in (200, 206):
                found[f"sha256:{digest}"] = found.get(f"sha256:{digest}", 0) + hit.body_bytes
        return found

    def forget_counts(self) -> None:
        """Empty the access log, so that counts begin at 0 (the program appends)."""
        with self._log_file.open("r+") as file:
            file.truncate(0)


class NginxFiles:
    """nginx serving `directory`/files, its access log read back as `Hit`s."""

    def __init__(self, directory: Path) -> None:
        """Nothing runs until the context is entered."""
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.files = directory / "files"
        self._directory = directory
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.files.mkdir(parents=True)
        config = self._directory / "nginx.conf"
        config.write_text(_NGINX.format(directory=self._directory, port=self.port, user=_nginx_user()))
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"  # sbin is not on everybody's path
        self._child = Child(
            [nginx, "-p", self._directory, "-c", config, "-e", self._directory / "error.log"], self._directory / "out.log"
        )
        self._child.wait_for_port(self.port)
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._child is not None:
            self._child.stop(by=signal.SIGQUIT)

    def url(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.base_url}/{name}"

    def hits(self) -> list[Hit]:
        """The access log so far."""
        return [Hit(**json.loads(line)) for line in _settled(self._directory / "access.log").splitlines()]

    def body_bytes(self) -> int:
        """Body bytes sent in all, also by exchanges that were broken off."""
        return sum(hit.body_bytes for hit in self.hits())


def _nginx_user() -> str:
    """Started by root, its workers would become another user, who may not read a test's directory."""
    return "user root;" if os.geteuid() == 0 else ""


_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 512; }}
http {{
  log_format bytes escape=json '{{"method": "$request_method", "path": "$uri", "status": $status,'
                               ' "body_bytes": $body_bytes_sent, "range": "$http_range"}}';
  access_log {directory}/access.log bytes;
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
  uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  sendfile on;
  server {{ listen 127.0.0.1:{port}; root {directory}/files; }}
}}
"""


class Podman:
    """podman with a storage of its own that is removed with the context. The path is short: podman refuses long run roots."""

    def __init__(self) -> None:
        """Nothing is made until the context is entered."""
        self._directory = Path()

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="dn-", dir="/tmp"))
        return self

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def __call__(self, *args: str, timeout_s: float = 300.0, text_in: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one podman command; never raises for its exit code."""
        storage = ["--root", f"{self._directory}/r", "--runroot", f"{self._directory}/n", "--storage-driver", "vfs"]
        command = ["podman", *storage, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, input=text_in)


def _settled(path: Path) -> str:
    """A log once it has stopped growing: servers write a line only after the client has its last byte."""
    text, before = "", None
    while text != before:
        before = text
        time.sleep(_QUIET_S)
        text = path.read_text(errors="replace") if path.exists() else ""
    return text


def run(command: Sequence[str | Path], *, timeout_s: float = 300.0) -> str:
    """Run a program to its end; what it printed on stdout. Raises ProgramError with what it said if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        message = f"{' '.join(map(str, command))} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-_SHOWN_LOG:]}"
        raise ProgramError(message)
    return done.stdout
