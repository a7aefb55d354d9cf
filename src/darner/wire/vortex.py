"""Vortex frames: how pieces travel between peers (daemon.md, section 5; vortex-protocol 0.1.5). All integers big-endian.

    frame   = id:u8 tag:u8 length:u32 value[length]
    request = 64 ASCII characters of the task id, piece number u32
    reply   = meta_len u32, metadata; then `length` raw content bytes follow the frame, not counted in it

Decoders raise PeerError on anything that does not fit; they never allocate what a header merely claims.
"""

import struct
from dataclasses import dataclass

from darner.core.errors import PeerError

HEADER_LENGTH = 6
TASK_ID_LENGTH = 64
REQUEST_LENGTH = 68
MAX_REPLY_VALUE = 4096
MAX_ERROR_VALUE = 4096

DOWNLOAD_PIECE = 0
PIECE_CONTENT = 1
CLOSE = 254
ERROR = 255

CODE_UNKNOWN, CODE_INVALID_ARGUMENT, CODE_NOT_FOUND, CODE_INTERNAL = range(4)

_HEADER = struct.Struct(">BBI")
_REPLY_FIXED = struct.Struct(">IIQQI")
_REPLY_TAIL = struct.Struct(">BQq")
_LENGTH = struct.Struct(">I")
_KINDS = {
    0: "DownloadPiece",
    1: "PieceContent",
    2: "DownloadPersistentPiece",
    3: "PersistentPieceContent",
    4: "DownloadPersistentCachePiece",
    5: "PersistentCachePieceContent",
    6: "DownloadCachePiece",
    7: "CachePieceContent",
    CLOSE: "Close",
    ERROR: "Error",
}


@dataclass(frozen=True, slots=True)
class Header:
    """The six bytes before every value. `frame_id` is random per request and ignored by the other side."""

    frame_id: int
    tag: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which piece of which task is asked for."""

    task_id: str
    piece_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is said of a piece before its bytes. Lengths in bytes, `cost_s` whole seconds, `created_at` unix seconds."""

    number: int
    offset: int
    length: int
    digest: str
    parent_id: str
    traffic_type: int = 1
    cost_s: int = 0
    created_at: int = 0


def kind_of(tag: int) -> str:
    """The name of a tag; 8 to 253 are reserved."""
    return _KINDS.get(tag, "Reserved")


def encode_request(task_id: str, piece_number: int, *, tag: int = DOWNLOAD_PIECE, frame_id: int) -> bytes:
    """A request frame of 74 bytes. Raises PeerError for a task id that is not 64 ASCII characters."""
    raw = task_id.encode()
    if len(raw) != TASK_ID_LENGTH:
        message = f"task id {task_id!r} has {len(raw)} bytes; vortex carries exactly {TASK_ID_LENGTH}"
        raise PeerError(message)
    return _HEADER.pack(frame_id, tag, REQUEST_LENGTH) + raw + _LENGTH.pack(piece_number)


def decode_header(data: bytes) -> Header:
    """The header of a frame from exactly six bytes."""
    return Header(*_HEADER.unpack(data))


def decode_request(header: Header, value: bytes) -> Request:
    """A request from its header and value. Raises PeerError for another tag or length, or a task id that is not ASCII."""
    if header.length != REQUEST_LENGTH or len(value) != REQUEST_LENGTH:
        message = f"a request has {REQUEST_LENGTH} bytes, this one claims {header.length}"
        raise PeerError(message)
    try:
        task_id = value[:TASK_ID_LENGTH].decode("ascii")
    except UnicodeDecodeError:
        message = "the task id of a request is not ASCII"
        raise PeerError(message) from None
    return Request(task_id=task_id, piece_number=_LENGTH.unpack(value[TASK_ID_LENGTH:])[0])


def encode_reply(reply: Reply, *, tag: int = PIECE_CONTENT, frame_id: int) -> bytes:
    """A reply frame without the content bytes."""
    digest, parent = reply.digest.encode(), reply.parent_id.encode()
    meta_length = 45 + len(digest) + len(parent)
    fixed = _REPLY_FIXED.pack(meta_length, reply.number, reply.offset, reply.length, len(digest))
    tail = _REPLY_TAIL.pack(reply.traffic_type, reply.cost_s, reply.created_at)
    value = b"".join((fixed, digest, _LENGTH.pack(len(parent)), parent, tail))
    return _HEADER.pack(frame_id, tag, len(value)) + value


def decode_reply(value: bytes) -> Reply:
    """A reply from the value of its frame. Raises PeerError if the lengths inside do not add up."""
    try:
        meta_length, number, offset, length, digest_length = _REPLY_FIXED.unpack_from(value, 0)
        at = _REPLY_FIXED.size
        digest = value[at : at + digest_length].decode("ascii")
        (parent_length,) = _LENGTH.unpack_from(value, at + digest_length)
        at += digest_length + _LENGTH.size
        parent = value[at : at + parent_length].decode()
        traffic_type, cost, created_at = _REPLY_TAIL.unpack_from(value, at + parent_length)
    except (struct.error, UnicodeDecodeError):
        message = "the metadata of a piece does not have the form it claims"
        raise PeerError(message) from None
    if at + parent_length + _REPLY_TAIL.size != len(value) or meta_length != len(value) - _LENGTH.size:
        message = "the lengths in the metadata of a piece do not add up"
        raise PeerError(message)
    return Reply(
        number=number,
        offset=offset,
        length=length,
        digest=digest,
        parent_id=parent,
        traffic_type=traffic_type,
        cost_s=cost,
        created_at=created_at,
    )


def encode_error(code: int, text: str, *, frame_id: int) -> bytes:
    """An error frame."""
    value = bytes([code]) + text.encode()[: MAX_ERROR_VALUE - 1]
    return _HEADER.pack(frame_id, ERROR, len(value)) + value


def decode_error(value: bytes) -> tuple[int, str]:
    """(code, message) of an error frame's value. Raises PeerError for an empty one."""
    if not value:
        message = "an error frame without a code"
        raise PeerError(message)
    return value[0], value[1:].decode(errors="replace")


def encode_close(*, frame_id: int) -> bytes:
    """A close frame; upstream's daemon never sends one."""
    return _HEADER.pack(frame_id, CLOSE, 0)
