"""Jobs as syslog messages (RFC 5424): datagrams, or a stream with octet counting (RFC 6587, 5425), plain or with TLS.

Over streams a batch is acknowledged when the server has read it (`sinks.stream`). Over udp nothing is known but that the kernel
took it and nobody said that the port is closed: whoever needs every job uses another way.
"""

import asyncio
import errno
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from darner.core.errors import DarnerError, InvalidInputError
from darner.kit.moments import rfc3339
from darner.net.errors import NetError, net_error
from darner.net.guard import TRUSTING, dial, family_of, resolve
from darner.net.tls import client_context
from darner.retention.export.config import SinkConfig
from darner.retention.export.ports import Limits, RefusedError, SinkAwayError
from darner.retention.export.sinks.stream import Deadline, send_confirmed, send_sent
from darner.retention.export.sinks.thread import OneThread
from darner.retention.export.values import Document

# 32473 is the number that RFC 5612 gives away for whom has none.
_STRUCTURE = "darner@32473"
_WARNING, _INFO = 4, 6
_HOST_LIMIT = 255
_PACE_BYTES, _PACE_S = 32 * 1024, 0.002
_ICMP_MS = 50


class SyslogSink:
    """Sends in a thread."""

    def __init__(self, config: SinkConfig, limits: Limits) -> None:
        """Of a configuration that was checked. Raises InvalidInputError for certificates that cannot be used."""
        self._config = config
        self._limits = limits
        self._parts = urlsplit(config.url)
        self._tls = _tls_context(config) if self._parts.scheme == "tls" else None
        self._host = _word(config.host or socket.gethostname())
        self._thread = OneThread(config.name)
        self._sock: socket.socket | None = None
        self._deadline = Deadline(0.0)

    @property
    def limits(self) -> Limits:
        """As configured."""
        return self._limits

    async def deliver(self, batch: Sequence[Document]) -> None:
        """Send a batch."""
        try:
            await self._thread.run(partial(self._send, batch))
        except asyncio.CancelledError:
            self._interrupt()
            raise

    async def close(self) -> None:
        """End a delivery that is under way."""
        self._interrupt()
        await self._thread.close()

    def _send(self, batch: Sequence[Document]) -> None:
        messages = [message_of(one, facility=self._config.facility, host=self._host) for one in batch]
        deadline = self._deadline = Deadline(self._config.timeout_s)
        try:
            self._sock, streams = self._connected(deadline)
            if streams:
                framed = b"".join(b"%d %s" % (len(one), one) for one in messages)
                send = send_confirmed if self._config.confirm == "close" else send_sent
                send(self._sock, framed, self._where, deadline)
            else:
                self._send_datagrams(self._sock, batch, messages, deadline)
        except NetError as error:
            raise SinkAwayError(f"{error.message}.") from error
        except DarnerError as error:
            raise error if isinstance(error, SinkAwayError | RefusedError) else SinkAwayError(error.message) from error
        except OSError as error:
            raise SinkAwayError(f"{net_error(error, self._where).message}.") from error
        finally:
            if self._sock is not None:
                self._sock.close()
            self._sock = None

    @property
    def _where(self) -> str:
        return self._parts.path if self._parts.scheme == "unix" else self._parts.netloc

    def _connected(self, deadline: Deadline) -> tuple[socket.socket, bool]:
        """A socket, and whether it is a stream."""
        if self._parts.scheme == "unix":
            return _unix(self._parts.path, deadline)
        host, port = self._parts.hostname or "", self._parts.port or 0
        if self._parts.scheme == "udp":
            address = resolve(host, port, TRUSTING)[0]
            sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
            return _connect(sock, lambda: sock.connect(address)), False
        sock = dial(host, port, TRUSTING, timeout_s=min(10.0, deadline.left()))
        if self._tls is None:
            return sock, True
        context = self._tls

        def shake_hands() -> socket.socket:
            sock.settimeout(deadline.left())
            return context.wrap_socket(sock, server_hostname=host)

        return _connect(sock, shake_hands), True

    def _send_datagrams(
        self, sock: socket.socket, batch: Sequence[Document], messages: Sequence[bytes], deadline: Deadline
    ) -> None:
        """One message each, not faster than a receiver can take them; too large ones are told apart."""
        refused: dict[str, str] = {}
        since_pause = 0
        for one, message in zip(batch, messages, strict=True):
            sock.settimeout(deadline.left())
            try:
                sock.send(message)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                refused[one.key] = f"{len(message)} bytes are too many for one datagram; set maxRecord."
            since_pause += len(message)
            if since_pause >= _PACE_BYTES:
                time.sleep(_PACE_S)
                since_pause = 0
        _check_port(sock)
        if refused:
            raise RefusedError("Some are too large.", refused=refused)

    def _interrupt(self) -> None:
        self._deadline.end_now()
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def message_of(document: Document, *, facility: int, host: str) -> bytes:
    """RFC 5424: the time of the job's end, its key and few facts as structured data, and the document."""
    priority = facility * 8 + (_WARNING if document.failed else _INFO)
    facts = {"key": document.key, **document.facts}
    data = " ".join(f'{name}="{_escaped(value)}"' for name, value in facts.items())
    head = f"<{priority}>1 {rfc3339(document.at)} {host} darner - job [{_STRUCTURE} {data}] "
    return head.encode() + document.body


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _word(text: str) -> str:
    """A host's name as the header may have it: printable ASCII without spaces."""
    return "".join(char if "!" <= char <= "~" else "-" for char in text)[:_HOST_LIMIT] or "-"


def _connect(sock: socket.socket, connect: Callable[[], object]) -> socket.socket:
    """Connected, or closed."""
    try:
        made = connect()
    except BaseException:
        sock.close()
        raise
    return made if isinstance(made, socket.socket) else sock


def _unix(path: str, deadline: Deadline) -> tuple[socket.socket, bool]:
    """A datagram socket if that is what the path is (/dev/log), else a stream."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        return _connect(sock, lambda: sock.connect(path)), False
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    left_s = deadline.left()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(left_s)
    return _connect(sock, lambda: sock.connect(path)), True


def _check_port(sock: socket.socket) -> None:
    """Over udp a closed port is told a moment later."""
    if sock.family != socket.AF_UNIX:
        poll = select.poll()
        poll.register(sock, select.POLLERR)
        poll.poll(_ICMP_MS)
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, "nobody listens there" if code == errno.ECONNREFUSED else "the network refused it")


def _tls_context(config: SinkConfig) -> ssl.SSLContext:
    context = client_context(config.ca_file)
    context.set_alpn_protocols([])
    if config.cert_file is not None:
        try:
            context.load_cert_chain(config.cert_file, config.key_file)
        except (OSError, ssl.SSLError) as error:
            path: Path = config.cert_file
            reason = error.strerror or str(error)
            raise InvalidInputError(f"The certificate {path} or its key cannot be used ({reason}).", field="certFile") from error
    return context
