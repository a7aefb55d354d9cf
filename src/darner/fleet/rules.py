"""Which cluster suits a client best, and what a registration must look like. Plain functions.

The score is upstream's (spec/manager.md, 11); ties, which upstream leaves to chance, go to the smaller id.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from darner.core.errors import InvalidInputError
from darner.core.fleet import SchedulerInfo, SchedulerQuery

FEATURES = ("schedule", "preheat")
ACTIVE, INACTIVE = "active", "inactive"
SEED_CLUSTER = {
    "name": "cluster-1",
    "config": {"candidate_parent_limit": 3, "filter_parent_limit": 15, "job_rate_limit": 10},
    "client_config": {"load_limit": 200},
    "seed_client_config": {"load_limit": 2000},
    "scopes": {},
}
_WEIGHTS = {"cidr": 0.30, "hostname": 0.30, "idc": 0.25, "location": 0.14, "default": 0.01}
_LOCATION_DEPTH = 5
_TEXT_LIMIT = 1024
_NAME_LIMIT = 253
_FIRST_PORT, _END_PORT = 1024, 65535
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\.?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterScopes:
    """For whom a cluster is meant. An empty scope scores nothing; it is no wildcard."""

    idc: str = ""
    location: str = ""
    cidrs: tuple[str, ...] = field(default=())
    hostnames: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A cluster that may be chosen."""

    id: int
    is_default: bool
    scopes: ClusterScopes


def scopes_of(text: bytes | str) -> ClusterScopes:
    """Read scopes from JSON; what cannot be read scores nothing."""
    try:
        data: Any = json.loads(text or "{}")
    except ValueError:
        data = {}
    if not isinstance(data, dict):
        data = {}
    return ClusterScopes(
        idc=_text(data.get("idc")),
        location=_text(data.get("location")),
        cidrs=_texts(data.get("cidrs")),
        hostnames=_texts(data.get("hostnames")),
    )


def ranked(candidates: Iterable[Candidate], query: SchedulerQuery) -> list[int]:
    """Ids of clusters, best first."""
    return [one.id for one in sorted(candidates, key=lambda one: (-score(one, query), one.id))]


def score(candidate: Candidate, query: SchedulerQuery) -> float:
    """0 to 1: how well a cluster fits a client."""
    scopes = candidate.scopes
    return (
        _WEIGHTS["cidr"] * _in_cidrs(query.ip, scopes.cidrs)
        + _WEIGHTS["hostname"] * _matches(query.hostname, scopes.hostnames)
        + _WEIGHTS["idc"] * _idc(query.idc, scopes.idc)
        + _WEIGHTS["location"] * _location(query.location, scopes.location)
        + _WEIGHTS["default"] * candidate.is_default
    )


def check_scheduler(scheduler: SchedulerInfo, config: bytes) -> None:
    """InvalidInputError, naming the field, for a registration that upstream's validation refuses as well."""
    check_hostname(scheduler.hostname)
    check_ip(scheduler.ip)
    if not _FIRST_PORT <= scheduler.port < _END_PORT:
        raise InvalidInputError(f"{scheduler.port} is not a port from {_FIRST_PORT} to {_END_PORT - 1}.", field="port")
    for name, value in (("idc", scheduler.idc), ("location", scheduler.location)):
        if len(value) > _TEXT_LIMIT:
            raise InvalidInputError(f"At most {_TEXT_LIMIT} characters are allowed.", field=name)
    unknown = [one for one in scheduler.features if one not in FEATURES]
    if unknown:
        raise InvalidInputError(f"{unknown[0]!r} is not a feature; choose from {', '.join(FEATURES)}.", field="features")
    try:
        json.loads(config or b"{}")
    except ValueError as error:
        raise InvalidInputError("The config is not JSON.", field="config") from error


def check_hostname(hostname: str) -> None:
    """An RFC 1123 host name."""
    if len(hostname) > _NAME_LIMIT or not _HOSTNAME.fullmatch(hostname):
        raise InvalidInputError(f"{hostname[:80]!r} is not a host name.", field="hostname")


def check_ip(ip: str) -> None:
    """An IPv4 or IPv6 address."""
    try:
        ip_address(ip)
    except ValueError as error:
        raise InvalidInputError(f"{ip[:80]!r} is not an IP address.", field="ip") from error


def _in_cidrs(ip: str, cidrs: tuple[str, ...]) -> bool:
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    for cidr in cidrs:
        try:
            if address in ip_network(cidr, strict=False):
                return True
        except ValueError:
            continue
    return False


def _matches(hostname: str, patterns: tuple[str, ...]) -> bool:
    for pattern in patterns:
        try:
            if re.search(pattern, hostname):
                return True
        except re.error:
            continue
    return False


def _idc(mine: str, theirs: str) -> bool:
    if not mine or not theirs:
        return False
    return mine.lower() == theirs.lower() or mine.lower() in theirs.lower().split("|")


def _location(mine: str, theirs: str) -> float:
    if not mine or not theirs:
        return 0.0
    if mine.lower() == theirs.lower():
        return 1.0
    equal = 0
    for one, other in zip(mine.lower().split("|")[:_LOCATION_DEPTH], theirs.lower().split("|"), strict=False):
        if one != other:
            break
        equal += 1
    return equal / _LOCATION_DEPTH


def _text(value: Any) -> str:  # noqa: ANN401  (JSON)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401  (JSON)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
