"""What is asked for (`Download`) and what is known of it (`TaskInfo`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from darner.core.digest import Digest
from darner.core.piece import Piece
from darner.core.ranges import ByteRange
from darner.core.secret import MASK, is_secret_header

EMPTY: Mapping[str, str] = MappingProxyType({})
DEFAULT_PRIORITY = 6


class Headers(dict[str, str]):
    """Request or response headers; prints secret values as `•••`."""

    def __repr__(self) -> str:
        return repr({key: MASK if is_secret_header(key) else value for key, value in self.items()})

    __str__ = __repr__

    def find(self, name: str) -> str | None:
        """The value of a header, ignoring case, or None."""
        lowered = name.lower()
        return next((value for key, value in self.items() if key.lower() == lowered), None)

    def without(self, *names: str) -> "Headers":
        """A copy without these headers, ignoring case."""
        dropped = {name.lower() for name in names}
        return Headers({key: value for key, value in self.items() if key.lower() not in dropped})


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A request to have a piece of content (common.v2.Download). Lengths in bytes, times in seconds.

    None means "not set", which upstream tells apart from empty or 0. `carried` is the received message, so that fields that
    this version does not know survive when it is passed on.
    """

    url: str
    digest: Digest | None = None
    range: ByteRange | None = None
    tag: str | None = None
    application: str | None = None
    revision: str | None = None
    priority: int = DEFAULT_PRIORITY
    filtered_query_params: tuple[str, ...] = ()
    request_header: Headers = field(default_factory=Headers)
    piece_length: int | None = None
    output_path: str | None = None
    timeout_s: float | None = None
    disable_back_to_source: bool = False
    need_back_to_source: bool = False
    prefetch: bool = False
    is_prefetch: bool = False
    need_piece_content: bool = False
    force_hard_link: bool = False
    overwrite: bool = False
    content_for_calculating_task_id: str | None = None
    enable_task_id_based_blob_digest: bool = False
    remote_ip: str | None = None
    concurrent_piece_count: int | None = None
    actual_piece_length: int | None = None
    actual_content_length: int | None = None
    actual_piece_count: int | None = None
    metadata_only: bool = False
    insecure_skip_verify: bool = False
    carried: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """What a scheduler knows of a task (common.v2.Task). `content_length` is None while unknown.

    `pieces` are those the peer that was sent to source vouches for, with `blake3:` digests.
    """

    id: str
    url: str
    state: str
    content_length: int | None = None
    piece_count: int | None = None
    digest: str | None = None
    tag: str | None = None
    application: str | None = None
    filtered_query_params: tuple[str, ...] = ()
    request_header: Headers = field(default_factory=Headers)
    pieces: tuple[Piece, ...] = ()
    peer_count: int = 0
    has_available_peer: bool = False
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTask:
    """What one daemon holds of a task (dfdaemon.v2.StatLocalTaskResponse). Times are unix seconds, None = not happened."""

    id: str
    piece_length: int | None = None
    content_length: int | None = None
    response_header: Headers = field(default_factory=Headers)
    uploading_count: int = 0
    uploaded_count: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    prefetched_at: float | None = None
    failed_at: float | None = None
    finished_at: float | None = None
