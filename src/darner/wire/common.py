"""Codecs of common.v2: Download, Host, Piece, Task, candidate parents, and the time types all messages share.

Flows in: core values or protobuf messages. Flows out: the other. A value that was received keeps its message in `carried`;
encoding starts from it and overwrites what this version knows, so that fields of newer peers survive being passed on.
Refuses (InvalidInputError): a digest that cannot be checked later. Enum values it does not know never raise.
"""

from collections.abc import Iterable

from dragonfly_api import common_pb2

from darner.core.announce import CandidateParent
from darner.core.digest import Digest
from darner.core.host import Host, HostType
from darner.core.ids import HostId
from darner.core.piece import Piece, TrafficType
from darner.core.ranges import ByteRange
from darner.core.task import Download, Headers, TaskInfo
from darner.wire.values import (
    enum_of,
    from_duration,
    from_timestamp,
    get_optional,
    put_header,
    put_optional,
    put_plain,
    to_duration,
    to_timestamp,
)

__all__ = [
    "INSECURE_HEADER",
    "candidate_from_pb",
    "candidate_to_pb",
    "download_from_pb",
    "download_to_pb",
    "from_duration",
    "from_timestamp",
    "host_from_pb",
    "host_to_pb",
    "piece_from_pb",
    "piece_into_pb",
    "piece_to_pb",
    "pieces_from_pb",
    "range_from_pb",
    "range_to_pb",
    "task_from_pb",
    "task_to_pb",
    "to_duration",
    "to_timestamp",
]

INSECURE_HEADER = "X-Darner-Insecure-Skip-Verify"
SMALLEST_UNKNOWN_LENGTH = 1 << 63
TINY_LENGTH = 128
UNKNOWN_SIZE_SCOPE = 4
PLACEHOLDER_STATE = "Running"

_DOWNLOAD_PLAIN = (
    "url",
    "priority",
    "disable_back_to_source",
    "need_back_to_source",
    "prefetch",
    "is_prefetch",
    "need_piece_content",
    "force_hard_link",
    "overwrite",
    "enable_task_id_based_blob_digest",
    "metadata_only",
)
_DOWNLOAD_OPTIONAL = (
    "tag",
    "application",
    "piece_length",
    "output_path",
    "content_for_calculating_task_id",
    "remote_ip",
    "concurrent_piece_count",
    "actual_piece_length",
    "actual_content_length",
    "actual_piece_count",
)
_HUBS = ("hugging_face", "model_scope", "open_csg")
_HUB_OF_SCHEME = {"modelscope": "model_scope", "opencsg": "open_csg"}
_HOST_PLAIN = (
    "id",
    "ip",
    "hostname",
    "port",
    "download_port",
    "proxy_port",
    "name",
    "os",
    "platform",
    "kernel_version",
    "scheduler_cluster_id",
    "disable_shared",
)
_HOST_NESTED = {
    "network": {
        "idc": "idc",
        "location": "location",
        "max_tx_bandwidth": "max_tx_bandwidth",
        "tx_bandwidth": "tx_bandwidth",
        "max_rx_bandwidth": "max_rx_bandwidth",
        "rx_bandwidth": "rx_bandwidth",
    },
    "disk": {"disk_total": "total", "disk_free": "free"},
    "build": {"build_version": "git_version"},
}

# --- Download ----------------------------------------------------------------------------------------------------------------


def range_to_pb(span: ByteRange) -> common_pb2.Range:
    """A byte range as Range."""
    return common_pb2.Range(start=span.start, length=span.length)


def range_from_pb(message: common_pb2.Range) -> ByteRange:
    """A Range as byte range."""
    return ByteRange(start=message.start, length=message.length)


def download_to_pb(download: Download) -> common_pb2.Download:
    """A Download message: what was carried, overwritten by what the value says (None clears).

    `insecure_skip_verify` has no field of its own upstream; it travels as a request header that origins never see.
    """
    message = common_pb2.Download.FromString(download.carried)
    for name in _DOWNLOAD_PLAIN:
        put_plain(message, name, getattr(download, name))
    for name in _DOWNLOAD_OPTIONAL:
        put_optional(message, name, getattr(download, name))
    if _digest_of(message) != download.digest:
        put_optional(message, "digest", None if download.digest is None else str(download.digest))
    if download.range is None:
        message.ClearField("range")
    else:
        message.range.start, message.range.length = download.range.start, download.range.length
    if _timeout_of(message) != download.timeout_s:
        message.ClearField("timeout")
        if download.timeout_s is not None:
            message.timeout.CopyFrom(to_duration(download.timeout_s))
    if tuple(message.filtered_query_params) != download.filtered_query_params:
        message.filtered_query_params[:] = download.filtered_query_params
    put_header(message.request_header, download.request_header)
    if download.insecure_skip_verify and not _is_insecure(download.request_header):
        message.request_header[INSECURE_HEADER] = "true"
    _put_revision(message, download.revision)
    return message


def download_from_pb(message: common_pb2.Download) -> Download:
    """The value of a Download message. Raises InvalidInputError for a digest of an unknown form."""
    header = Headers(message.request_header)
    hub = _hub_of(message)
    return Download(
        digest=_digest_of(message),
        range=range_from_pb(message.range) if message.HasField("range") else None,
        revision=getattr(message, hub).revision if hub else None,
        timeout_s=_timeout_of(message),
        filtered_query_params=tuple(message.filtered_query_params),
        request_header=header,
        insecure_skip_verify=_is_insecure(header),
        carried=message.SerializeToString(),
        **{name: getattr(message, name) for name in _DOWNLOAD_PLAIN},
        **{name: get_optional(message, name) for name in _DOWNLOAD_OPTIONAL},  # type: ignore[arg-type]
    )


def _digest_of(message: common_pb2.Download) -> Digest | None:
    return Digest.parse(message.digest) if message.digest else None


def _timeout_of(message: common_pb2.Download) -> float | None:
    return from_duration(message.timeout) if message.HasField("timeout") else None


def _is_insecure(header: Headers) -> bool:
    return (header.find(INSECURE_HEADER) or "").lower() == "true"


def _hub_of(message: common_pb2.Download) -> str | None:
    """The hub whose revision counts for the task id (messages.md, section 5.1: in this order)."""
    return next((name for name in _HUBS if message.HasField(name)), None)


def _put_revision(message: common_pb2.Download, revision: str | None) -> None:
    hub = _hub_of(message)
    if revision is None:
        for name in _HUBS:
            message.ClearField(name)
        return
    if hub is None:
        hub = _HUB_OF_SCHEME.get(message.url.partition(":")[0].lower(), _HUBS[0])
        getattr(message, hub).SetInParent()
    put_plain(getattr(message, hub), "revision", revision)


# --- Host ----------------------------------------------------------------------------------------------------------------------


def host_to_pb(host: Host) -> common_pb2.Host:
    """A Host message: what was carried (cpu, memory, …), overwritten by what the value says."""
    message = common_pb2.Host.FromString(host.carried)
    for name in _HOST_PLAIN:
        put_plain(message, name, getattr(host, name))
    if _host_type(message.type) != host.type:
        message.type = int(host.type)
    for part, fields in _HOST_NESTED.items():
        for name, inner in fields.items():
            put_plain(getattr(message, part), inner, getattr(host, name))
    return message


def host_from_pb(message: common_pb2.Host) -> Host:
    """The value of a Host message. A type above the known ones counts as a seed, as upstream does it."""
    plain = {name: getattr(message, name) for name in _HOST_PLAIN if name != "id"}
    nested = {
        name: getattr(getattr(message, part), inner) for part, fields in _HOST_NESTED.items() for name, inner in fields.items()
    }
    return Host(id=HostId(message.id), type=_host_type(message.type), carried=message.SerializeToString(), **plain, **nested)


def _host_type(value: int) -> HostType:
    return enum_of(HostType, value, HostType.WEAK_SEED)


# --- Piece ---------------------------------------------------------------------------------------------------------------------


def piece_to_pb(piece: Piece, *, content: bytes | None = None) -> common_pb2.Piece:
    """A Piece message; cost and created_at are always set, as Go demands. The digest passes as given."""
    message = common_pb2.Piece()
    piece_into_pb(message, piece, content=content)
    return message


def piece_into_pb(message: common_pb2.Piece, piece: Piece, *, content: bytes | None = None) -> None:
    """Fill a fresh Piece message where it lies: copying one with its content (up to 64 MiB) would double the work."""
    message.number, message.offset, message.length, message.digest = piece.number, piece.offset, piece.length, piece.digest
    if piece.parent_id:
        message.parent_id = piece.parent_id
    message.traffic_type = piece.traffic_type.value  # type: ignore[assignment]
    if content is not None:
        message.content = content
    message.cost.CopyFrom(to_duration(piece.cost_s))
    message.created_at.CopyFrom(to_timestamp(piece.created_at))


def piece_from_pb(message: common_pb2.Piece) -> Piece:
    """The value of a Piece message. Traffic that is not told, or unknown, counts as from a peer: that vouches for least."""
    traffic = message.traffic_type if message.HasField("traffic_type") else TrafficType.REMOTE_PEER
    return Piece(
        number=message.number,
        offset=message.offset,
        length=message.length,
        digest=message.digest,
        parent_id=message.parent_id,
        traffic_type=enum_of(TrafficType, traffic, TrafficType.REMOTE_PEER),
        cost_s=from_duration(message.cost),
        created_at=from_timestamp(message.created_at),
    )


def pieces_from_pb(messages: Iterable[common_pb2.Piece]) -> tuple[Piece, ...]:
    """The values of several Piece messages."""
    return tuple(piece_from_pb(message) for message in messages)


# --- Task ----------------------------------------------------------------------------------------------------------------------


def task_to_pb(task: TaskInfo) -> common_pb2.Task:
    """A Task message. A length not known yet is told by the size scope 4, which Go calls UNKNOW; 0 alone would mean empty."""
    return common_pb2.Task(
        id=task.id,
        type=common_pb2.STANDARD,
        url=task.url,
        digest=task.digest,
        tag=task.tag,
        application=task.application,
        filtered_query_params=task.filtered_query_params,
        request_header=task.request_header,
        content_length=task.content_length or 0,
        piece_count=task.piece_count or 0,
        size_scope=_size_scope(task.content_length, task.piece_count),  # type: ignore[arg-type]
        pieces=[piece_to_pb(piece) for piece in task.pieces],
        state=task.state,
        peer_count=task.peer_count,
        has_available_peer=task.has_available_peer,
        created_at=to_timestamp(task.created_at),
        updated_at=to_timestamp(task.updated_at),
    )


def task_from_pb(message: common_pb2.Task) -> TaskInfo:
    """The value of a Task message.

    A length of 0 is believed only together with the size scope EMPTY: taking "unknown" for "empty" would lose content, the
    other way round costs one question to the origin. Go writes an unknown length as -1 in an unsigned field.
    """
    length: int | None = message.content_length
    if length == 0 and message.size_scope != common_pb2.EMPTY:
        length = None
    if message.content_length >= SMALLEST_UNKNOWN_LENGTH or message.size_scope == UNKNOWN_SIZE_SCOPE:
        length = None
    return TaskInfo(
        id=message.id,
        url=message.url,
        state=message.state,
        content_length=length,
        piece_count=message.piece_count if message.piece_count or length == 0 else None,
        digest=message.digest if message.HasField("digest") else None,
        tag=message.tag if message.HasField("tag") else None,
        application=message.application if message.HasField("application") else None,
        filtered_query_params=tuple(message.filtered_query_params),
        request_header=Headers(message.request_header),
        pieces=pieces_from_pb(message.pieces),
        peer_count=message.peer_count,
        has_available_peer=message.has_available_peer,
        created_at=from_timestamp(message.created_at),
        updated_at=from_timestamp(message.updated_at),
    )


def _size_scope(content_length: int | None, piece_count: int | None) -> int:
    """go:scheduler/resource/standard/task.go SizeScope: empty, at most 128 bytes, one piece, more."""
    if content_length is None:
        return UNKNOWN_SIZE_SCOPE
    if content_length == 0:
        return common_pb2.EMPTY
    if content_length <= TINY_LENGTH:
        return common_pb2.TINY
    return common_pb2.SMALL if piece_count == 1 else common_pb2.NORMAL


# --- candidate parents ---------------------------------------------------------------------------------------------------------


def candidate_to_pb(candidate: CandidateParent, *, task: TaskInfo | None = None) -> common_pb2.Peer:
    """A Peer message: the received one unchanged, or one of our own with everything that Go's rules require.

    Without `task` its place is taken by a placeholder that passes those rules; clients do not read it.
    """
    if candidate.carried:
        return common_pb2.Peer.FromString(candidate.carried)
    about = task or TaskInfo(id="unknown", url="darner:unknown", state=PLACEHOLDER_STATE)
    return common_pb2.Peer(
        id=candidate.id,
        state=candidate.state or PLACEHOLDER_STATE,
        cost=to_duration(0),
        task=task_to_pb(about),
        host=host_to_pb(candidate.host),
        created_at=to_timestamp(about.created_at),
        updated_at=to_timestamp(about.updated_at),
    )


def candidate_from_pb(message: common_pb2.Peer) -> CandidateParent:
    """The value of a Peer message. One without a host gets an empty one; who needs the host skips it."""
    return CandidateParent(id=message.id, host=host_from_pb(message.host), state=message.state, carried=message.SerializeToString())
