"""Work orders: what a manager hands to a worker (`PartOrder`) and what the worker tells back (`WorkReport`).

Both travel as JSON over HTTP; `*_to_json` and `*_from_json` are the only codec. An order may hold secrets (request headers), so it
is never logged; its printed form masks them. Reports hold none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from darner.core.digest import Digest
from darner.core.errors import InvalidInputError
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.job import Scope
from darner.core.task import DEFAULT_PRIORITY, Download, Headers


class WorkKind(StrEnum):
    """What is to be done with the content on every target host."""

    FILL = "fill"
    DELETE = "delete"
    LOOK = "look"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRule:
    """Which hosts of a cluster are meant. The first of ips, count, percentage that is set decides (scheduler.md, job functions)."""

    scope: Scope = Scope.SINGLE_SEED_PEER
    ips: tuple[str, ...] = ()
    count: int | None = None
    percentage: int | None = None
    concurrent_peer_count: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOrder:
    """One leased part. `lease_s`: without a report for that long the part goes to somebody else. `deadline_in_s`: seconds left.

    `earlier`: the hosts that an attempt before this one worked on; they are still meant when the scope is "all".
    """

    lease_id: str
    part_id: int
    job_id: int
    cluster_id: int
    kind: WorkKind
    download: Download
    target: TargetRule
    lease_s: float
    deadline_in_s: float
    concurrent_task_count: int = 8
    earlier: "tuple[HostResult, ...]" = ()


class HostState(StrEnum):
    """How far one target host is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResult:
    """One target host of a part. `verified`: the host itself said that it holds every byte, checked. Sizes in bytes.

    `away`: it failed only because it did not answer, as one does that is just starting.
    """

    host_id: str
    hostname: str
    ip: str
    seed: bool
    state: HostState
    verified: bool = False
    bytes_done: int = 0
    pieces_done: int = 0
    error: str = ""
    retryable: bool = False
    away: bool = False
    port: int = 0
    build_version: str = ""

    def host(self) -> Host:
        """The host as it was known when it was worked on: enough to reach it again."""
        kind = HostType.SUPER_SEED if self.seed else HostType.NORMAL
        return Host(
            id=HostId(self.host_id),
            ip=self.ip,
            hostname=self.hostname,
            port=self.port,
            type=kind,
            build_version=self.build_version,
        )


class Outcome(StrEnum):
    """Why a worker stops with a part: it is through, it gives it back, or it was told to stop."""

    DONE = "done"
    RELEASED = "released"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkReport:
    """How far a part is, or, with an `outcome`, how it ended.

    `size_bytes` is the content's length, the other figures are sums over the target hosts. `error` says why no host could be asked.
    """

    size_bytes: int | None = None
    target_count: int = 0
    bytes_done: int = 0
    piece_count: int = 0
    pieces_done: int = 0
    hosts: tuple[HostResult, ...] = ()
    outcome: Outcome | None = None
    error: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The manager's answer to a report. `accepted`: the lease was the worker's own. `cancel`: stop, nobody wants the rest."""

    accepted: bool
    cancel: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenHost:
    """A host as a worker saw it at its scheduler, for the fleet's list of hosts."""

    id: str
    hostname: str
    ip: str
    port: int
    seed: bool
    os: str = ""
    platform: str = ""
    idc: str = ""
    location: str = ""
    download_port: int = 0
    proxy_port: int = 0
    disk_total: int = 0
    disk_free: int = 0
    build_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads fields of a JSON object and names the one that does not fit."""

    data: Mapping[str, Any]
    at: str = field(default="")

    def get(self, key: str, kind: type, default: Any = None) -> Any:  # noqa: ANN401
        value = self.data.get(key)
        if value is None:
            return default
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidInputError(f"{self.at}{key}: expected {kind.__name__}", field=f"{self.at}{key}")
        return value

    def count(self, key: str) -> int:
        value = self.get(key, int, 0)
        if value < 0:
            raise InvalidInputError(f"{self.at}{key}: expected a number that is not negative", field=f"{self.at}{key}")
        return int(value)


def order_to_json(order: PartOrder) -> dict[str, Any]:
    """The order as it travels; secrets in clear, so only to an authenticated worker."""
    download, target = order.download, order.target
    return {
        "lease_id": order.lease_id,
        "part_id": order.part_id,
        "job_id": order.job_id,
        "cluster_id": order.cluster_id,
        "kind": order.kind,
        "lease_s": order.lease_s,
        "deadline_in_s": order.deadline_in_s,
        "concurrent_task_count": order.concurrent_task_count,
        "download": {
            "url": download.url,
            "digest": None if download.digest is None else str(download.digest),
            "tag": download.tag,
            "application": download.application,
            "filtered_query_params": list(download.filtered_query_params),
            "request_header": dict(download.request_header),
            "priority": download.priority,
            "piece_length": download.piece_length,
            "content_for_calculating_task_id": download.content_for_calculating_task_id,
            "enable_task_id_based_blob_digest": download.enable_task_id_based_blob_digest,
        },
        "earlier": hosts_to_json(order.earlier),
        "target": {
            "scope": target.scope,
            "ips": list(target.ips),
            "count": target.count,
            "percentage": target.percentage,
            "concurrent_peer_count": target.concurrent_peer_count,
        },
    }


def order_from_json(data: Mapping[str, Any]) -> PartOrder:
    """An order from its JSON. Raises InvalidInputError naming the field."""
    try:
        download, target = data["download"], data["target"]
        digest = download.get("digest")
        return PartOrder(
            lease_id=data["lease_id"],
            part_id=data["part_id"],
            job_id=data["job_id"],
            cluster_id=data["cluster_id"],
            kind=WorkKind(data["kind"]),
            lease_s=data["lease_s"],
            deadline_in_s=data["deadline_in_s"],
            concurrent_task_count=data.get("concurrent_task_count", 8),
            earlier=hosts_from_json(data.get("earlier") or ()),
            download=Download(
                url=download["url"],
                digest=Digest.parse(digest) if digest else None,
                tag=download.get("tag"),
                application=download.get("application"),
                filtered_query_params=tuple(download.get("filtered_query_params") or ()),
                request_header=Headers(download.get("request_header") or {}),
                priority=download.get("priority", DEFAULT_PRIORITY),
                piece_length=download.get("piece_length"),
                content_for_calculating_task_id=download.get("content_for_calculating_task_id"),
                enable_task_id_based_blob_digest=bool(download.get("enable_task_id_based_blob_digest")),
            ),
            target=TargetRule(
                scope=Scope(target["scope"]),
                ips=tuple(target.get("ips") or ()),
                count=target.get("count"),
                percentage=target.get("percentage"),
                concurrent_peer_count=target.get("concurrent_peer_count", 500),
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidInputError(f"the work order does not have the expected form ({error!r})") from None


def report_to_json(report: WorkReport) -> dict[str, Any]:
    """The report as it travels."""
    return {
        "size_bytes": report.size_bytes,
        "target_count": report.target_count,
        "bytes_done": report.bytes_done,
        "piece_count": report.piece_count,
        "pieces_done": report.pieces_done,
        "outcome": report.outcome,
        "error": report.error,
        "retryable": report.retryable,
        "hosts": hosts_to_json(report.hosts),
    }


def report_from_json(data: Mapping[str, Any]) -> WorkReport:
    """A report from its JSON. Raises InvalidInputError naming the field."""
    read = _Reader(data=data)
    outcome = read.get("outcome", str)
    if outcome is not None and outcome not in set(Outcome):
        raise InvalidInputError(f"outcome {outcome!r}: expected one of {', '.join(Outcome)}", field="outcome")
    return WorkReport(
        size_bytes=None if data.get("size_bytes") is None else read.count("size_bytes"),
        target_count=read.count("target_count"),
        bytes_done=read.count("bytes_done"),
        piece_count=read.count("piece_count"),
        pieces_done=read.count("pieces_done"),
        outcome=None if outcome is None else Outcome(outcome),
        error=read.get("error", str, ""),
        retryable=read.get("retryable", bool, default=False),
        hosts=hosts_from_json(read.get("hosts", list, [])),
    )


def hosts_to_json(hosts: Sequence[HostResult]) -> list[dict[str, Any]]:
    """Per-host results as JSON objects."""
    return [
        {
            "host_id": host.host_id,
            "hostname": host.hostname,
            "ip": host.ip,
            "seed": host.seed,
            "state": host.state,
            "verified": host.verified,
            "bytes_done": host.bytes_done,
            "pieces_done": host.pieces_done,
            "error": host.error,
            "retryable": host.retryable,
            "away": host.away,
            "port": host.port,
            "build_version": host.build_version,
        }
        for host in hosts
    ]


def hosts_from_json(items: Sequence[Any]) -> tuple[HostResult, ...]:
    """Per-host results from JSON objects. Raises InvalidInputError naming the field."""
    return tuple(_host(item, f"hosts.{index}.") for index, item in enumerate(items))


def _host(item: Any, at: str) -> HostResult:  # noqa: ANN401
    if not isinstance(item, Mapping):
        raise InvalidInputError(f"{at.rstrip('.')}: expected an object", field=at.rstrip("."))
    read = _Reader(data=item, at=at)
    state = read.get("state", str, "")
    if state not in set(HostState):
        raise InvalidInputError(f"{at}state {state!r}: expected one of {', '.join(HostState)}", field=f"{at}state")
    return HostResult(
        host_id=read.get("host_id", str, ""),
        hostname=read.get("hostname", str, ""),
        ip=read.get("ip", str, ""),
        seed=read.get("seed", bool, default=False),
        state=HostState(state),
        verified=read.get("verified", bool, default=False),
        bytes_done=read.count("bytes_done"),
        pieces_done=read.count("pieces_done"),
        error=read.get("error", str, ""),
        retryable=read.get("retryable", bool, default=False),
        away=read.get("away", bool, default=False),
        port=read.count("port"),
        build_version=read.get("build_version", str, ""),
    )
