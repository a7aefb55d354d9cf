"""Pieces: how content is cut, and what is known of one piece.

Piece length: next power of two of floor(content_length / 500), clamped to 4 MiB ... 64 MiB (rs:resource/piece.rs:295). The
last piece may be shorter. A range means all pieces that overlap it.
"""

from dataclasses import dataclass
from enum import IntEnum

from darner.core.errors import InvalidInputError
from darner.core.ranges import ByteRange

MIB = 1024 * 1024
MIN_PIECE_LENGTH = 4 * MIB
MAX_PIECE_LENGTH = 64 * MIB
WANTED_PIECE_COUNT = 500


class TrafficType(IntEnum):
    """Where the bytes of a piece came from (common.v2.TrafficType)."""

    BACK_TO_SOURCE = 0
    REMOTE_PEER = 1
    LOCAL_PEER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One verified piece of a task. Lengths in bytes, times in seconds.

    `digest` is `crc32:<decimal>` on the way between peers, `blake3:<hex>` where the source peer vouches for it.
    """

    number: int
    offset: int
    length: int
    digest: str = ""
    parent_id: str = ""
    traffic_type: TrafficType = TrafficType.REMOTE_PEER
    cost_s: float = 0.0
    created_at: float = 0.0


def piece_length_for(content_length: int) -> int:
    """The piece length in bytes for a content of that many bytes."""
    share = content_length // WANTED_PIECE_COUNT
    power = 1 << max(share - 1, 0).bit_length()
    return min(max(power, MIN_PIECE_LENGTH), MAX_PIECE_LENGTH)


def piece_count(content_length: int, piece_length: int) -> int:
    """How many pieces the content has; 0 for an empty one."""
    return -(-content_length // piece_length)


def piece_span(number: int, content_length: int, piece_length: int) -> ByteRange:
    """Where piece `number` lies in the content. Raises InvalidInputError if there is no such piece."""
    start = number * piece_length
    if number < 0 or start >= content_length:
        message = f"piece {number} lies outside a content of {content_length} bytes"
        raise InvalidInputError(message, field="piece_number")
    return ByteRange(start=start, length=min(piece_length, content_length - start))


def interested_pieces(content_length: int, piece_length: int, wanted: ByteRange | None = None) -> range:
    """Numbers of all pieces that overlap `wanted` (default: everything). Raises InvalidInputError for an empty or outside range."""
    if wanted is None:
        return range(piece_count(content_length, piece_length))
    if wanted.length <= 0 or wanted.start < 0 or wanted.start >= content_length:
        message = f"range {wanted.start}+{wanted.length} lies outside a content of {content_length} bytes"
        raise InvalidInputError(message, field="range")
    stop = min(wanted.end, content_length)
    return range(wanted.start // piece_length, -(-stop // piece_length))
