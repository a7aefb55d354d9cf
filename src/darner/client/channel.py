"""How a gRPC connection is opened: one place for options and time limits.

Flows in: an address, `host:port` or `unix:PATH`. Flows out: a channel that connects on first use. Refuses (InvalidInputError)
an address of another form. Proxies of the environment are never used: our services are spoken to directly.
"""

import grpc
import grpc.aio

from darner.core.errors import InvalidInputError
from darner.core.host import split_address
from darner.core.secret import Secret

CONNECT_TIMEOUT_S = 3.0
CALL_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
HEALTH_TIMEOUT_S = 3.0
UNIX_PREFIX = "unix:"

# Upstream pings every 300 s (scheduler.md, section 15); grpc-core servers punish clients that ping more often.
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The least backoff is also the time a connection attempt may take.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # Channels of one process do not share connections: closing one ends its connection and nobody else's.
    ("grpc.use_local_subchannel_pool", 1),
)


def is_unix(address: str) -> bool:
    """Whether the address names a unix socket."""
    return address.startswith(UNIX_PREFIX)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:PATH`, to be closed by the caller. Must be called in the event loop that uses it.

    Raises InvalidInputError for an address of another form.
    """
    options = list(_OPTIONS)
    if is_unix(address):
        # The socket's path is no legal :authority, and Rust servers refuse it.
        options.append(("grpc.default_authority", "localhost"))
    else:
        _check_address(address)
    return grpc.aio.insecure_channel(address, options=options)


def _check_address(address: str) -> None:
    try:
        name, port = split_address(address)
    except ValueError:
        name, port = "", 0
    if not name or not 0 < port < 1 << 16 or "/" in address:
        raise InvalidInputError(f"address {address!r}: expected HOST:PORT or unix:PATH", field="address")


def bearer(token: Secret | None) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a token; none without one."""
    return (("authorization", f"Bearer {token.reveal()}"),) if token else ()
