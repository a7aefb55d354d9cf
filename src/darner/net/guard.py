"""The address guard: which addresses may be dialled. Every dial of Darner passes here, those of redirects included.

Safe against DNS rebinding: a name is resolved once, the addresses are checked, and exactly a checked address is connected to.
IPv6 addresses that carry an IPv4 address (mapped, compatible, 6to4, NAT64, Teredo) are judged by both.
"""

import socket
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from darner.core.errors import ForbiddenAddressError
from darner.net.errors import net_error

IPAddress = IPv4Address | IPv6Address
SockAddr = tuple[str, int] | tuple[str, int, int, int]

METADATA_ADDRESSES = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, GCP, Azure, OpenStack, DigitalOcean …
        "169.254.170.2",  # AWS ECS credentials
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure wire server
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # GCP
        "fd00:c1::a9fe:a9fe",  # Oracle Cloud
        "fd00:42::42",  # Scaleway
    )
)
METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"})

_NEVER_V4 = (IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4"))
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_LOOPBACK_V6 = IPv6Address("::1")
_LEAST_ATTEMPT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Which addresses the operator allows besides global ones. The defaults are upstream's (manager.md §6.6)."""

    allow_loopback: bool = False
    allow_private: bool = True

    def check(self, address: str | IPAddress, *, host: str = "") -> None:
        """Raise ForbiddenAddressError if `address` must not be dialled; `host` is the name it was found under."""
        ip = _parse(address)
        for candidate in (ip, *_embedded(ip)):
            reason = self._objection(candidate)
            if reason:
                name = f"{host} ({ip})" if host and host != str(ip) else str(ip)
                raise ForbiddenAddressError(f"{name} is {reason}")

    def _objection(self, ip: IPAddress) -> str | None:
        if ip in METADATA_ADDRESSES:
            return "a cloud metadata address, which is never dialled"
        if ip.is_unspecified:
            return "the unspecified address, which is never dialled"
        if ip.is_loopback:
            return None if self.allow_loopback else "a loopback address, which this configuration does not allow"
        if ip.is_link_local:
            return "a link-local address, which is never dialled"
        if ip.is_multicast:
            return "a multicast address, which is never dialled"
        if isinstance(ip, IPv4Address) and any(ip in network for network in _NEVER_V4):
            return "a reserved address, which is never dialled"
        if not self.allow_private and not ip.is_global:
            return "a private address, which this configuration does not allow"
        return None


TRUSTING = AddressPolicy(allow_loopback=True, allow_private=True)
"""For addresses that the operator configured: a proxy. Link-local, multicast and metadata addresses stay refused."""


def _parse(address: str | IPAddress) -> IPAddress:
    return ip_address(address.partition("%")[0]) if isinstance(address, str) else address


def _embedded(ip: IPAddress) -> tuple[IPv4Address, ...]:
    """IPv4 addresses that an IPv6 address leads to."""
    if isinstance(ip, IPv4Address) or ip == _LOOPBACK_V6 or ip.is_unspecified:
        return ()
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64 or ip in _COMPATIBLE:
        found.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    return tuple(each for each in found if each is not None)


def literal_address(host: str) -> IPAddress | None:
    """The address if `host` is one (brackets allowed), else None."""
    try:
        return _parse(host.strip("[]"))
    except ValueError:
        return None


def is_loopback_host(host: str) -> bool:
    """Whether the host is this machine by its name alone: localhost or a loopback address."""
    name = host.lower().rstrip(".")
    literal = literal_address(host)
    return name == "localhost" or name.endswith(".localhost") or (literal is not None and literal.is_loopback)


def check_name(host: str, policy: AddressPolicy) -> None:
    """What can be judged without resolving: literal addresses and names of metadata services. For hosts behind a proxy."""
    literal = literal_address(host)
    if literal is not None:
        policy.check(literal)
    if host.lower().rstrip(".") in METADATA_NAMES:
        raise ForbiddenAddressError(f"{host} is a cloud metadata service, which is never dialled")
    if not policy.allow_loopback and is_loopback_host(host):
        raise ForbiddenAddressError(f"{host} is this machine, which this configuration does not allow")


def permitted(found: list[SockAddr], host: str, policy: AddressPolicy) -> list[SockAddr]:
    """Those of the resolved addresses that may be dialled. Raises ForbiddenAddressError if none may."""
    good, refusal = [], None
    for sockaddr in found:
        try:
            policy.check(sockaddr[0], host=host)
            good.append(sockaddr)
        except ForbiddenAddressError as error:
            refusal = refusal or error
    if not good:
        raise refusal or ForbiddenAddressError(f"{host} has no address")
    return good


def resolve(host: str, port: int, policy: AddressPolicy) -> list[SockAddr]:
    """Resolve once and keep what the policy permits (blocking). Raises ForbiddenAddressError if nothing is left, NetError."""
    name = host.strip("[]")
    try:
        answers = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise net_error(error, f"{host}:{port}") from error
    unique: dict[SockAddr, None] = dict.fromkeys(answer[4] for answer in answers)  # type: ignore[misc]
    return permitted(list(unique), name, policy)


def family_of(sockaddr: SockAddr) -> socket.AddressFamily:
    """AF_INET6 or AF_INET, by the address."""
    return socket.AF_INET6 if ":" in sockaddr[0] else socket.AF_INET


def dial(host: str, port: int, policy: AddressPolicy, *, timeout_s: float) -> socket.socket:
    """A connected TCP socket to a checked address of the host. Raises ForbiddenAddressError, NetError."""
    addresses = resolve(host, port, policy)
    deadline = time.monotonic() + timeout_s
    failure: OSError | None = None
    for index, sockaddr in enumerate(addresses):
        left = deadline - time.monotonic()
        if index and left <= 0:
            break
        sock = socket.socket(family_of(sockaddr), socket.SOCK_STREAM)
        try:
            sock.settimeout(max(left / (len(addresses) - index), min(_LEAST_ATTEMPT_S, timeout_s)))
            sock.connect(sockaddr)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise net_error(failure or TimeoutError(), f"{host}:{port}") from failure
