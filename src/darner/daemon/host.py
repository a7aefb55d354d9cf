"""What this machine tells of itself: who it is, and its network and disk at the moment (read from /proc and /sys, Linux).

Bandwidths in bits per second (daemon.md, section 4): the counters of all interfaces but loopback between two readings.
"""

import os
import platform
import shutil
import socket
import time
from pathlib import Path

import darner
from darner.core.host import Host, HostType
from darner.core.ids import host_id
from darner.daemon.config import DaemonConfig

NET = Path("/proc/net/dev")
SPEEDS = Path("/sys/class/net")
MIN_WINDOW_S = 0.5
MEGABIT = 1_000_000
BITS = 8
DEFAULT_BITS = 10_000_000_000


def local_ip() -> str:
    """The address of the default route; loopback if there is none. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def network_bytes(text: str) -> tuple[int, int]:
    """(received, sent) bytes of all interfaces but loopback in /proc/net/dev."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        if name.strip() != "lo" and len(fields) > BITS:
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


class HostProbe:
    """Makes the Host value with present numbers. Cheap; network rates are refreshed at most every MIN_WINDOW_S seconds."""

    def __init__(self, config: DaemonConfig) -> None:
        """Read once what does not change."""
        self._config = config
        self._hostname = config.host.hostname or socket.gethostname()
        self._ip = config.host.ip or local_ip()
        self._seed = config.seed_peer.enable
        self._read_at = time.monotonic()
        self._bytes = self._read()
        self._rates = (0, 0)
        self._speed = self._nic_bits()

    @property
    def id(self) -> str:
        """The host's id."""
        return host_id(self._ip, self._hostname, seed=self._seed)

    def host(self) -> Host:
        """The host as it is now."""
        config = self._config
        self._measure()
        disk = shutil.disk_usage(config.storage.dir if config.storage.dir.exists() else Path("/"))
        limit = config.upload.bandwidth_limit * BITS
        pod = os.environ.get("POD_NAME")
        return Host(
            id=host_id(self._ip, self._hostname, seed=self._seed),
            ip=self._ip,
            hostname=self._hostname,
            port=config.upload.server.port,
            download_port=config.upload.server.port,
            type=HostType.SUPER_SEED if self._seed else HostType.NORMAL,
            proxy_port=config.proxy.server.port if config.proxy.enable else 0,
            name=f"{os.environ.get('POD_NAMESPACE', 'default')}-{pod}" if pod else self._hostname,
            os=platform.system().lower(),
            platform=platform.machine(),
            kernel_version=platform.release(),
            idc=config.host.idc,
            location=config.host.location,
            max_rx_bandwidth=self._speed,
            rx_bandwidth=self._rates[0],
            max_tx_bandwidth=min(self._speed, limit) if limit else self._speed,
            tx_bandwidth=self._rates[1],
            disk_total=disk.total,
            disk_free=disk.free,
            scheduler_cluster_id=config.host.schedulerClusterID,
            disable_shared=config.upload.disable_shared,
            build_version=f"darner {darner.__version__}",
        )

    def _measure(self) -> None:
        window = time.monotonic() - self._read_at
        if window < MIN_WINDOW_S:
            return
        now = self._read()
        received, sent = (max(new - old, 0) for new, old in zip(now, self._bytes, strict=True))
        self._rates = (int(received * BITS / window), int(sent * BITS / window))
        self._bytes, self._read_at = now, time.monotonic()

    @staticmethod
    def _read() -> tuple[int, int]:
        try:
            return network_bytes(NET.read_text())
        except (OSError, ValueError, IndexError):
            return (0, 0)

    @staticmethod
    def _nic_bits() -> int:
        """The fastest interface's speed; a default where none says (virtual ones do not)."""
        speeds = [0]
        for path in SPEEDS.glob("*/speed"):
            try:
                speeds.append(int(path.read_text()))
            except (OSError, ValueError):
                continue
        return max(speeds) * MEGABIT or DEFAULT_BITS
