"""What goes wrong on the way to another machine; the only place where socket, TLS and HTTP framing errors become ours."""

import errno
import socket
import ssl

import h11

from darner.core.errors import DarnerError, UnavailableError


class NetError(UnavailableError):
    """The connection failed."""

    def __init__(self, message: str | None = None, *, retryable: bool = True) -> None:
        """`retryable`: trying again, without changing anything, may help."""
        super().__init__(message)
        self.retryable = retryable


class ConnectionLostError(NetError):
    """The other side closed the connection before the first byte of its answer."""


class StoppedError(DarnerError):
    """The one who asked does not want it any more."""

    kind = "cancelled"


def net_error(error: Exception, where: str) -> NetError:
    """The error in our words; `where` names the other side (`host:port`)."""
    if isinstance(error, NetError):
        return error
    if isinstance(error, socket.gaierror):
        again = error.errno == socket.EAI_AGAIN
        return NetError(f"the host of {where} cannot be resolved ({error.strerror}); check its name and the DNS", retryable=again)
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "give its CA certificate, or skip the verification explicitly if you trust the network"
        return NetError(f"the TLS certificate of {where} is not valid ({error.verify_message}); {hint}", retryable=False)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return NetError(f"TLS with {where} failed ({reason}); check that it speaks TLS and which versions", retryable=False)
    if isinstance(error, TimeoutError):
        return NetError(f"{where} did not answer in time")
    if isinstance(error, h11.RemoteProtocolError):
        return NetError(f"{where} broke the rules of HTTP ({error})")
    if isinstance(error, OSError):
        reason = "connection refused" if error.errno == errno.ECONNREFUSED else (error.strerror or str(error)).lower()
        return NetError(f"the connection to {where} failed ({reason})")
    return NetError(f"the connection to {where} failed ({error})")
