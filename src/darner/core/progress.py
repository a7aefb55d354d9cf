"""What a download tells its asker while it runs (dfdaemon.v2.DownloadTaskResponse) and what a parent offers its children."""

from dataclasses import dataclass, field

from darner.core.piece import Piece
from darner.core.ranges import ByteRange
from darner.core.task import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadStarted:
    """First event: how long the content is, and the pieces that are here already. Lengths in bytes."""

    content_length: int
    range: ByteRange | None = None
    response_header: Headers = field(default_factory=Headers)
    pieces: tuple[Piece, ...] = ()
    is_finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceDone:
    """One more verified piece. `content` is set only when the asker wanted the bytes in the stream."""

    piece: Piece
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadEvent:
    """One message of the stream, with the ids of the download."""

    host_id: str
    task_id: str
    peer_id: str
    what: DownloadStarted | PieceDone


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceOffer:
    """A parent has this piece and serves it at ip and port (dfdaemon.v2.SyncPiecesResponse)."""

    number: int
    offset: int
    length: int
    ip: str
    tcp_port: int
    quic_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPiece:
    """What was learnt while a piece was read and written: its length in bytes and both digests of the bytes themselves."""

    length: int
    crc32: int
    blake3: bytes
