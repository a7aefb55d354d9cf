"""A host that takes part in the swarm (common.v2.Host)."""

from dataclasses import dataclass, field
from enum import IntEnum

from darner.core.ids import HostId


class HostType(IntEnum):
    """0 normal, 1 super seed; upstream accepts up to 3 and treats all above 0 as seeds."""

    NORMAL = 0
    SUPER_SEED = 1
    STRONG_SEED = 2
    WEAK_SEED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One daemon's machine. Bandwidths in bits per second, 0 = unknown. `carried` keeps the message as it was announced."""

    id: HostId
    ip: str
    hostname: str
    port: int
    type: HostType = HostType.NORMAL
    download_port: int = 0
    proxy_port: int = 0
    name: str = ""
    os: str = ""
    platform: str = ""
    kernel_version: str = ""
    idc: str = ""
    location: str = ""
    max_tx_bandwidth: int = 0
    tx_bandwidth: int = 0
    max_rx_bandwidth: int = 0
    rx_bandwidth: int = 0
    disk_total: int = 0
    disk_free: int = 0
    scheduler_cluster_id: int = 0
    disable_shared: bool = False
    build_version: str = ""
    carried: bytes = field(default=b"", repr=False, compare=False)

    @property
    def is_seed(self) -> bool:
        """Whether the host may be triggered to fetch from the origin first."""
        return self.type != HostType.NORMAL

    @property
    def address(self) -> str:
        """`ip:port` of the upload gRPC server; IPv6 in brackets."""
        return join_address(self.ip, self.port)


def join_address(ip: str, port: int) -> str:
    """`ip:port`, IPv6 in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """(ip or name, port) of `host:port`; ValueError if it has no port."""
    name, _, port = address.rpartition(":")
    return name.strip("[]"), int(port)
