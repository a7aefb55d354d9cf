"""The parent's side: answer requests for pieces. A few worker threads wait together on one epoll; nobody owns a connection.

Each connection is a small state machine on a non-blocking socket. Whichever worker gets its event goes on until the socket would
block, then arms it again (one-shot, so no two workers have it). So a connection that is idle, or whose receiver is slow, costs no
thread; a slow disk costs one worker. A housekeeper ends what is over its time and wakes what waited for upload tokens.
"""

import contextlib
import heapq
import os
import select
import socket
import threading
import time
from collections import deque

from darner.core.digest import crc32_digest
from darner.core.errors import ConflictError, DarnerError, InvalidInputError, NotFoundError, PeerError
from darner.kit.limits import TokenBucket
from darner.kit.log import get_logger
from darner.swarm.connection import Connection
from darner.swarm.ports import PieceSource, ServedPiece, ServerLimits
from darner.swarm.sockets import family_of, tune
from darner.wire import vortex

BACKLOG = 1024
ACCEPTS_PER_EVENT = 16
HOUSEKEEPING_S = 0.5
_READ = select.EPOLLIN | select.EPOLLONESHOT
_WRITE = select.EPOLLOUT | select.EPOLLONESHOT
_log = get_logger("swarm")


class PieceServer:
    """Serves pieces on one address from `start` to `stop`."""

    def __init__(self, bind: tuple[str, int], source: PieceSource, limits: ServerLimits | None = None) -> None:
        """`bind` is an IP literal and a port, 0 for any free one."""
        self._bind = bind
        self._source = source
        self._limits = limits or ServerLimits()
        self._bucket = TokenBucket(self._limits.bytes_per_s)
        self._lock = threading.Lock()
        self._due = threading.Condition(self._lock)
        self._connections: dict[int, Connection] = {}
        self._throttled: list[tuple[float, int, Connection]] = []
        self._waiting: deque[Connection] = deque()
        self._uploads = 0
        self._sent_bytes = 0
        self._ticket = 0
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket
        self._epoll: select.epoll
        self._wake_fd = -1

    @property
    def sent_bytes(self) -> int:
        """Content bytes sent so far."""
        return self._sent_bytes

    @property
    def connection_count(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def start(self) -> int:
        """Listen and serve; returns the port. Raises ConflictError for a taken port, InvalidInputError for a bad address."""
        self._listener = _listen(self._bind)
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._epoll.register(self._listener.fileno(), _READ)
        names = [f"piece-server-{number}" for number in range(self._limits.workers)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        self._threads.append(threading.Thread(target=self._keep_house, name="piece-server-housekeeper", daemon=True))
        for thread in self._threads:
            thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def stop(self) -> None:
        """Close everything; pieces under way are cut. Again does nothing."""
        with self._lock:
            if self._stopping or self._wake_fd < 0:
                return
            self._stopping = True
            self._due.notify()
            for connection in self._connections.values():
                connection.expire()
        os.eventfd_write(self._wake_fd, 1)
        for thread in self._threads:
            thread.join()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._listener.close()
        self._epoll.close()
        os.close(self._wake_fd)

    def _work(self) -> None:
        while True:
            for fd, _ in self._epoll.poll(maxevents=1):
                if self._stopping:
                    return
                if fd == self._listener.fileno():
                    self._accept()
                    continue
                connection = self._connections.get(fd)
                if connection is not None:
                    self._advance(connection)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                sock, peer = self._listener.accept()
            except BlockingIOError:
                break
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # Out of descriptors, most likely: wait a little instead of spinning on the same event.
                _log.warning("a connection could not be accepted", error=os.strerror(error.errno or 0))
                time.sleep(HOUSEKEEPING_S)
                break
            sock.setblocking(False)
            connection = Connection(sock, f"{peer[0]}:{peer[1]}", self._limits)
            with self._lock:
                self._displace_idle()
                if len(self._connections) >= self._limits.max_connections:
                    _log.warning("too many connections; a new one was refused", peer=connection.peer)
                    sock.close()
                    continue
                self._connections[sock.fileno()] = connection
                self._epoll.register(sock.fileno(), _READ)
        self._epoll.modify(self._listener.fileno(), _READ)

    def _displace_idle(self) -> None:
        """At the limit, end the connection that has been idle longest: silence must not keep others out."""
        if len(self._connections) < self._limits.max_connections:
            return
        idle = [connection for connection in self._connections.values() if connection.is_idle]
        if idle:
            min(idle, key=lambda one: one.deadline).expire()

    def _advance(self, connection: Connection) -> None:
        """Go on with a connection until it must wait for something."""
        try:
            if connection.is_sending or self._read(connection):
                self._send(connection)
        except (EOFError, OSError):
            self._close(connection)
        except PeerError as error:
            _log.info("a connection was dropped", peer=connection.peer, reason=error.message)
            self._close(connection)
        except Exception:  # noqa: BLE001  (one connection ends, with its traceback in the log; the worker lives on)
            _log.exception("serving a connection failed", peer=connection.peer)
            self._close(connection)

    def _read(self, connection: Connection) -> bool:
        """Read a request and prepare its reply; True when sending may begin at once."""
        asked = connection.read_request()
        if asked is None:
            self._arm(connection, _READ)
            return False
        head, piece = self._answer(*asked)
        connection.start(head, piece)
        return piece is None or self._may_upload(connection, piece.length)

    def _answer(self, header: vortex.Header, request: vortex.Request) -> tuple[bytes, ServedPiece | None]:
        try:
            piece = self._source.open_piece(request.task_id, request.piece_number)
        except NotFoundError as error:
            return vortex.encode_error(vortex.CODE_NOT_FOUND, error.message, frame_id=header.frame_id), None
        except Exception as error:  # noqa: BLE001  (whatever the source meets, this child gets an answer and the others are served)
            reason = error.message if isinstance(error, DarnerError) else type(error).__name__
            _log.error("a piece could not be opened", task_id=request.task_id, piece=request.piece_number, reason=reason)
            return vortex.encode_error(vortex.CODE_INTERNAL, "the piece cannot be read", frame_id=header.frame_id), None
        reply = vortex.Reply(
            number=request.piece_number,
            offset=piece.offset,
            length=piece.length,
            digest=crc32_digest(piece.crc32),
            parent_id=piece.parent_id,
            cost_s=int(piece.cost_s),
            created_at=int(piece.created_at),
        )
        return vortex.encode_reply(reply, tag=header.tag + 1, frame_id=header.frame_id), piece

    def _may_upload(self, connection: Connection, length: int) -> bool:
        """Take an upload slot and tokens; False when the connection now waits for one of them."""
        with self._lock:
            if self._limits.max_uploads and self._uploads >= self._limits.max_uploads:
                self._waiting.append(connection)
                return False
            self._uploads += 1
            connection.uploading = True
            return self._take_tokens(connection, length)

    def _take_tokens(self, connection: Connection, length: int) -> bool:
        wait_s = self._bucket.reserve(length)
        if not wait_s:
            return True
        self._ticket += 1
        heapq.heappush(self._throttled, (time.monotonic() + wait_s, self._ticket, connection))
        self._due.notify()
        return False

    def _send(self, connection: Connection) -> None:
        done, sent = connection.send()
        with self._lock:
            self._sent_bytes += sent
        if not done:
            self._arm(connection, _WRITE)
            return
        self._end_upload(connection)
        self._arm(connection, _READ)

    def _end_upload(self, connection: Connection) -> None:
        """Give back the piece and the slot; the next that waits for a slot goes on."""
        connection.end_piece()
        with self._lock:
            if not connection.uploading:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(connection)
                return
            connection.uploading = False
            self._uploads -= 1
            while self._waiting and self._uploads < self._limits.max_uploads:
                following = self._waiting.popleft()
                self._uploads += 1
                following.uploading = True
                if following.piece is not None and self._take_tokens(following, following.piece.length):
                    self._arm(following, _WRITE)

    def _arm(self, connection: Connection, events: int) -> None:
        self._epoll.modify(connection.sock.fileno(), events)

    def _close(self, connection: Connection) -> None:
        self._end_upload(connection)
        with self._lock:
            self._connections.pop(connection.sock.fileno(), None)
            connection.close()

    def _keep_house(self) -> None:
        next_round = time.monotonic() + HOUSEKEEPING_S
        with self._lock:
            while not self._stopping:
                now = time.monotonic()
                while self._throttled and self._throttled[0][0] <= now:
                    self._arm(heapq.heappop(self._throttled)[2], _WRITE)
                if now >= next_round:
                    next_round = now + HOUSEKEEPING_S
                    for connection in self._connections.values():
                        if connection.deadline < now:
                            connection.expire()
                first_due = self._throttled[0][0] if self._throttled else next_round
                self._due.wait(max(min(first_due, next_round) - time.monotonic(), 0))


def _listen(bind: tuple[str, int]) -> socket.socket:
    ip, port = bind
    try:
        listener = socket.socket(family_of(ip), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except ValueError as error:
        raise InvalidInputError(f"{ip!r} is not an IP address to serve pieces on", field="storage.server.ip") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tune(listener)
        listener.bind((ip, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno or 0)
        raise ConflictError(f"cannot serve pieces on {ip}:{port}: {reason}; choose another storage.server.tcpPort") from error
    return listener
