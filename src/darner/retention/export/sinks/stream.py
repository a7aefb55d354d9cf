"""Bytes to a server that never answers, and still the knowledge that it has them.

Syslog has no acknowledgement, and what a kernel has taken may die with it. But a server that has read everything up to our end of
the connection closes its own in order, while one that stops before that, or is killed, resets it. So each batch gets a connection
of its own, and counts as received when the server has closed it in order and every byte was acknowledged by its kernel.
"""

import fcntl
import socket
import ssl
import struct
import termios
import time

from darner.net.errors import net_error
from darner.retention.export.ports import SinkAwayError

_LOOK_S = 0.005
_LINGER_S = 1.0


class Deadline:
    """One span of time for many waits; another thread may end it early."""

    def __init__(self, seconds: float) -> None:
        """From now on."""
        self._end = time.monotonic() + seconds

    def end_now(self) -> None:
        """No more waiting."""
        self._end = 0.0

    def left(self) -> float:
        """Seconds; TimeoutError when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def send_confirmed(sock: socket.socket, data: bytes, where: str, deadline: Deadline) -> None:
    """Send all, end our side, and wait until the server has read it all and closed (blocking). Raises SinkAwayError."""
    try:
        sock.settimeout(deadline.left())
        sock.sendall(data)
        _check_open(sock, where)
        plain = _end_sending(sock, deadline)
        try:
            _read_to_end(plain, deadline)
        except TimeoutError as error:
            message = f"{where} took everything but did not close the connection, so it may not have read it; see `confirm`."
            raise SinkAwayError(message) from error
        _wait_until_acknowledged(plain, deadline)
    except OSError as error:
        raise SinkAwayError(f"{net_error(error, where).message}.") from error


def send_sent(sock: socket.socket, data: bytes, where: str, deadline: Deadline) -> None:
    """Send all and wait until the server's kernel has it; what the server does with it is not known. Raises SinkAwayError."""
    try:
        sock.settimeout(deadline.left())
        sock.sendall(data)
        _wait_until_acknowledged(sock, deadline)
        _check_open(sock, where)
        # A connection that is closed while something is unread is reset, and may take with it what the server has not read yet.
        linger = Deadline(min(_LINGER_S, deadline.left()))
        try:
            _read_to_end(_end_sending(sock, linger), linger)
        except OSError:
            return
    except OSError as error:
        raise SinkAwayError(f"{net_error(error, where).message}.") from error


def _check_open(sock: socket.socket, where: str) -> None:
    """A server that closed before we did has not read the rest."""
    if isinstance(sock, ssl.SSLSocket):
        return  # its end comes encrypted; the reset that follows is seen later
    sock.setblocking(False)
    try:
        if sock.recv(1, socket.MSG_PEEK) == b"":
            raise SinkAwayError(f"{where} closed the connection before it had everything.")
    except BlockingIOError:
        return


def _end_sending(sock: socket.socket, deadline: Deadline) -> socket.socket:
    """Tell the server that nothing follows; the socket to read the rest from."""
    sock.settimeout(deadline.left())
    if not isinstance(sock, ssl.SSLSocket):
        sock.shutdown(socket.SHUT_WR)
        return sock
    try:
        plain = sock.unwrap()
    except ssl.SSLEOFError:
        return sock  # closed in order, without TLS's farewell, as many servers do
    plain.settimeout(deadline.left())
    plain.shutdown(socket.SHUT_WR)
    return plain


def _read_to_end(sock: socket.socket, deadline: Deadline) -> None:
    while True:
        sock.settimeout(deadline.left())
        try:
            if not sock.recv(4096):
                return
        except ssl.SSLEOFError:
            return


def _wait_until_acknowledged(sock: socket.socket, deadline: Deadline) -> None:
    """Until the other kernel has acknowledged every byte; OSError if it refused one."""
    while True:
        left = _unacknowledged(sock)
        # After that, because what a reset leaves behind may count as nothing.
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise ConnectionResetError(code, "connection reset by the server")
        # Whoever ends the delivery shuts the connection down, which looks like the server's end.
        patience_s = deadline.left()
        if not left:
            return
        time.sleep(min(_LOOK_S, patience_s))


def _unacknowledged(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
