"""Which processes `darner up` runs, on which ports, with which files. Pure: paths and numbers in, configuration out.

Ports from the base P: manager P (HTTP) and P+1 (gRPC), scheduler P+2; daemon i (the seed is 0) has P+10·(i+1) for upload,
+1 mirror, +2 metrics, +3 health, +5 vortex.
"""

import socket
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

LOOPBACK = "127.0.0.1"
MAX_SOCKET_PATH = 100
DAEMON_PORTS = {"upload": 0, "mirror": 1, "metrics": 2, "health": 3, "vortex": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonPlace:
    """One daemon: its name, directory, socket and ports."""

    name: str
    seed: bool
    directory: Path
    socket: Path
    ports: dict[str, int]

    @property
    def hostname(self) -> str:
        """A host name of its own: host ids must differ though all daemons share one address."""
        return f"{socket.gethostname()}-{self.name}"

    def address(self, use: str) -> str:
        """Where it listens for `upload`, `mirror`, `metrics`, `health` or `vortex`."""
        return f"{LOOPBACK}:{self.ports[use]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything `darner up` decides before it starts anything."""

    data_dir: Path
    port_base: int
    database: str
    daemons: tuple[DaemonPlace, ...]

    @property
    def manager_http(self) -> str:
        """Base URL of the manager's REST API."""
        return f"http://{LOOPBACK}:{self.port_base}"

    @property
    def manager_grpc(self) -> str:
        """Address of the manager's gRPC server."""
        return f"{LOOPBACK}:{self.port_base + 1}"

    @property
    def scheduler_grpc(self) -> str:
        """Address of the scheduler."""
        return f"{LOOPBACK}:{self.port_base + 2}"

    @property
    def token_file(self) -> Path:
        """Where the administrator's token lies (mode 0600)."""
        return self.data_dir / "token"

    def all_ports(self) -> dict[int, str]:
        """Every port and what it is for."""
        ports = {
            self.port_base: "the manager's HTTP",
            self.port_base + 1: "the manager's gRPC",
            self.port_base + 2: "the scheduler",
        }
        for daemon in self.daemons:
            ports |= {port: f"{daemon.name}'s {use}" for use, port in daemon.ports.items()}
        return ports


def plan(data_dir: Path, *, peers: int, port_base: int, database: str | None) -> Layout:
    """The layout of one seed and `peers` ordinary daemons below `data_dir` (absolute)."""
    names = ["seed", *(f"peer-{number}" for number in range(1, peers + 1))]
    daemons = tuple(
        DaemonPlace(
            name=name,
            seed=name == "seed",
            directory=data_dir / name,
            socket=_socket_path(data_dir / name),
            ports={use: port_base + 10 * (index + 1) + offset for use, offset in DAEMON_PORTS.items()},
        )
        for index, name in enumerate(names)
    )
    return Layout(
        data_dir=data_dir, port_base=port_base, database=database or f"sqlite:///{data_dir / 'darner.db'}", daemons=daemons
    )


def _socket_path(directory: Path) -> Path:
    """The daemon's socket; in the temporary directory if its own path is too long for the system (108 bytes on Linux)."""
    path = directory / "daemon.sock"
    if len(str(path).encode()) <= MAX_SOCKET_PATH:
        return path
    return Path(tempfile.gettempdir()) / f"darner-{sha256(str(directory).encode()).hexdigest()[:16]}.sock"


def manager_config(layout: Layout) -> dict[str, Any]:
    """The manager's configuration file."""
    return {
        "server": {
            "rest": {"ip": LOOPBACK, "port": layout.port_base},
            "grpc": {"ip": LOOPBACK, "port": layout.port_base + 1, "anonymous": "loopback"},
        },
        "database": {"url": layout.database},
        "security": {"keyFile": str(layout.data_dir / "secret.key")},
        "tokens": {
            "adminFile": str(layout.token_file),
            "workerFile": str(layout.data_dir / "worker.token"),
            "schedulerFile": str(layout.data_dir / "scheduler.token"),
        },
        "origin": {"allowLoopback": True, "allowPrivate": True},
    }


def scheduler_config(layout: Layout) -> dict[str, Any]:
    """The scheduler's configuration file; a worker runs beside the scheduler in the same process."""
    return {
        "server": {
            "advertiseIP": LOOPBACK,
            "advertisePort": layout.port_base + 2,
            "listenIP": LOOPBACK,
            "port": layout.port_base + 2,
            "host": f"{socket.gethostname()}-scheduler",
        },
        "manager": {"addr": layout.manager_grpc, "tokenFile": str(layout.data_dir / "scheduler.token")},
        "worker": {
            "enable": True,
            "manager": layout.manager_http,
            "tokenFile": str(layout.data_dir / "worker.token"),
            "scheduler": layout.scheduler_grpc,
        },
    }


def daemon_config(layout: Layout, daemon: DaemonPlace) -> dict[str, Any]:
    """One daemon's configuration file."""
    ports = daemon.ports
    return {
        "host": {"hostname": daemon.hostname, "ip": LOOPBACK},
        "download": {"server": {"socketPath": str(daemon.socket)}},
        "upload": {"server": {"ip": LOOPBACK, "port": ports["upload"]}},
        "manager": {"addr": layout.manager_grpc},
        "seedPeer": {"enable": daemon.seed},
        "storage": {"dir": str(daemon.directory), "server": {"ip": LOOPBACK, "tcpPort": ports["vortex"]}},
        "proxy": {"server": {"ip": LOOPBACK, "port": ports["mirror"]}},
        "metrics": {"server": {"ip": LOOPBACK, "port": ports["metrics"]}},
        "health": {"server": {"ip": LOOPBACK, "port": ports["health"]}},
        "backend": {"allowLoopback": True, "allowPrivate": True},
        # A workstation's disk may be nearly full of other things; the production default (80 %) would evict all the content then.
        "gc": {"policy": {"diskHighThresholdPercent": 95, "diskLowThresholdPercent": 90}},
    }


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Write one configuration file, readable by its owner only."""
    path.write_text("# Written by `darner up`; changes are overwritten.\n" + yaml.safe_dump(config, sort_keys=False))
    path.chmod(0o600)
