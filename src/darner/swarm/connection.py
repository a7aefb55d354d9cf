"""One connection of the piece server: reads a request, sends a reply and a piece, never blocks on the socket.

Holds at most one request (74 bytes) of what the other side sent, whatever its header claims.
"""

import contextlib
import os
import socket
import time

from darner.core.errors import PeerError
from darner.swarm.ports import ServedPiece, ServerLimits
from darner.wire import vortex

FRAME_LENGTH = vortex.HEADER_LENGTH + vortex.REQUEST_LENGTH
REQUEST_TAGS = frozenset({0, 2, 4})
FOREVER = float("inf")


class Connection:
    """State between two events. `deadline` is when to give up on the other side (monotonic), FOREVER while it waits for us."""

    __slots__ = (
        "_at",
        "_begun",
        "_got",
        "_head",
        "_limits",
        "_remaining",
        "_sent",
        "deadline",
        "peer",
        "piece",
        "sock",
        "uploading",
    )

    def __init__(self, sock: socket.socket, peer: str, limits: ServerLimits) -> None:
        """A fresh connection that waits for its first request."""
        self.sock = sock
        self.peer = peer
        self.piece: ServedPiece | None = None
        self.uploading = False
        self._limits = limits
        self._got = bytearray()
        self._head = memoryview(b"")
        self._at = self._remaining = self._sent = 0
        self._begun = 0.0
        self.deadline = time.monotonic() + limits.request_timeout_s

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do and nothing was heard."""
        return not self.is_sending and not self._got

    @property
    def is_sending(self) -> bool:
        """Whether a reply was begun and is not sent to its end."""
        return self.piece is not None or bool(self._head)

    def read_request(self) -> tuple[vortex.Header, vortex.Request] | None:
        """The request once it is there, None while more bytes must come.

        Raises EOFError when the other side closed, PeerError for anything that is not a request; both end the connection.
        """
        while len(self._got) < FRAME_LENGTH:
            try:
                data = self.sock.recv(FRAME_LENGTH - len(self._got))
            except BlockingIOError:
                return None
            if not data:
                raise EOFError
            if not self._got:
                self.deadline = time.monotonic() + self._limits.request_timeout_s
            self._got += data
            if len(self._got) >= vortex.HEADER_LENGTH:
                self._check_header()
        header = vortex.decode_header(bytes(self._got[: vortex.HEADER_LENGTH]))
        request = vortex.decode_request(header, bytes(self._got[vortex.HEADER_LENGTH :]))
        self._got.clear()
        self.deadline = FOREVER
        return header, request

    def start(self, head: bytes, piece: ServedPiece | None) -> None:
        """Begin a reply: its frame, and the piece that follows it."""
        self._head = memoryview(head)
        self.piece = piece
        self._at, self._remaining = (piece.offset, piece.length) if piece else (0, 0)

    def send(self) -> tuple[bool, int]:
        """Send until the socket would block: (whether all is sent, content bytes that went now).

        Raises OSError when the other side is gone, PeerError when it takes too little for too long.
        """
        sent = 0
        if not self._begun:
            self._begun = time.monotonic()
        try:
            while self._head:
                self._head = self._head[self.sock.send(self._head, socket.MSG_MORE if self._remaining else 0) :]
            while self._remaining and self.piece is not None:
                count = os.sendfile(self.sock.fileno(), self.piece.fd, self._at, self._remaining)
                if not count:
                    raise PeerError("the stored file is shorter than its piece")
                self._at += count
                self._remaining -= count
                sent += count
        except BlockingIOError:
            self._keep_pace(sent)
            return False, sent
        self._begin_idle()
        return True, sent

    def end_piece(self) -> None:
        """Give the piece back to its source."""
        piece, self.piece = self.piece, None
        if piece is not None:
            piece.release()

    def expire(self) -> None:
        """Make every later read or write fail, so that the worker that gets the event closes it."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the piece back and close."""
        self.end_piece()
        self.sock.close()

    def _check_header(self) -> None:
        header = vortex.decode_header(bytes(self._got[: vortex.HEADER_LENGTH]))
        if header.tag == vortex.CLOSE:
            raise EOFError
        if header.tag not in REQUEST_TAGS:
            raise PeerError(f"a request with tag {header.tag} ({vortex.kind_of(header.tag)})")
        if header.length != vortex.REQUEST_LENGTH:
            raise PeerError(f"a request that claims {header.length} bytes; it has {vortex.REQUEST_LENGTH}")

    def _begin_idle(self) -> None:
        self._begun, self._sent = 0.0, 0
        self.deadline = time.monotonic() + self._limits.idle_timeout_s

    def _keep_pace(self, sent: int) -> None:
        self._sent += sent
        now = time.monotonic()
        elapsed = now - self._begun
        if elapsed > self._limits.stall_timeout_s and self._sent < self._limits.min_bytes_per_s * elapsed:
            raise PeerError(f"it takes {self._sent / elapsed:.0f} bytes per second, less than {self._limits.min_bytes_per_s:.0f}")
        if sent or self.deadline == FOREVER:
            self.deadline = now + self._limits.stall_timeout_s
