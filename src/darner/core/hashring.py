"""The two consistent hashes of the field: task → scheduler, and task → seed.

Scheduler ring: SipHash-2-4 with zero keys, one point per scheduler, over Rust's derived `Hash` of a socket address; the key is
the first five characters of the task id and 0xff (hashring 0.3.6; rs:grpc/scheduler.rs:569). Seed ring: stathat.com/c/consistent,
20 replicas, CRC-32 (go:scheduler/resource/standard/seed_peer.go).
"""

import ipaddress
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from darner.core.host import split_address

ROUTING_PREFIX = 5
SEED_REPLICAS = 20
_MASK = (1 << 64) - 1


def _rotl(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = _rotl(v1, 13) ^ v0
    v0 = _rotl(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _rotl(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _rotl(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _rotl(v1, 17) ^ v2
    return v0, v1, _rotl(v2, 32), v3


def siphash24(data: bytes) -> int:
    """SipHash-2-4 of `data` with key (0, 0), 64 bit."""
    v = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    whole = len(data) // 8 * 8
    tail = data[whole:].ljust(7, b"\0") + bytes([len(data) & 0xFF])
    for word in (int.from_bytes(block, "little") for block in (*(data[i : i + 8] for i in range(0, whole, 8)), tail)):
        v = (v[0], v[1], v[2], v[3] ^ word)
        v = _sip_round(*_sip_round(*v))
        v = (v[0] ^ word, v[1], v[2], v[3])
    v = (v[0], v[1], v[2] ^ 0xFF, v[3])
    for _ in range(4):
        v = _sip_round(*v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def scheduler_point_input(address: str) -> bytes:
    """The bytes hashed for a scheduler `ip:port`."""
    name, port = split_address(address)
    ip = ipaddress.ip_address(name)
    port_bytes = port.to_bytes(2, "little")
    if ip.version == 4:  # noqa: PLR2004
        return bytes(8) + ip.packed + port_bytes
    return (1).to_bytes(8, "little") + ip.packed + port_bytes + bytes(8)


def scheduler_key_input(task_id: str) -> bytes:
    """The bytes hashed for a task: Rust hashes a str as its bytes and 0xff."""
    return task_id[:ROUTING_PREFIX].encode() + b"\xff"


def pick_scheduler(task_id: str, addresses: Iterable[str]) -> str | None:
    """The scheduler (`ip:port`) of a task: first point at or after the key, else the smallest. None if there are none."""
    ranked = schedulers_in_order(task_id, addresses)
    return ranked[0] if ranked else None


def schedulers_in_order(task_id: str, addresses: Iterable[str]) -> list[str]:
    """All schedulers from the task's own one around the ring: the first is upstream's choice, the rest are fail-over."""
    points = sorted((siphash24(scheduler_point_input(address)), address) for address in set(addresses))
    key = siphash24(scheduler_key_input(task_id))
    start = bisect_left([point for point, _ in points], key)
    return [address for _, address in (*points[start:], *points[:start])]


class SeedRing:
    """The ring of healthy seeds, built once per change of members (`ip:port`)."""

    def __init__(self, members: Iterable[str]) -> None:
        """Place 20 points per member; on equal points the first member keeps it, as in the library."""
        points: dict[int, str] = {}
        for member in sorted(set(members)):
            for replica in range(SEED_REPLICAS):
                points[seed_point(member, replica)] = member
        self._members = points
        self._points = sorted(points)

    def pick(self, task_id: str) -> str | None:
        """The seed of a task: first point strictly after CRC-32 of the full id, else the smallest. None for an empty ring."""
        if not self._points:
            return None
        index = bisect_right(self._points, zlib.crc32(task_id.encode()))
        return self._members[self._points[index % len(self._points)]]


def seed_point(member: str, replica: int) -> int:
    """CRC-32 of the decimal replica index followed by the member."""
    return zlib.crc32(f"{replica}{member}".encode())
