"""Free TCP ports on loopback. The port is free when asked for; who waits long before binding it may lose it."""

import random
import socket

_FIRST, _LAST = 10_000, 30_000  # below the range the kernel takes ports of outgoing connections from


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_port_base(span: int = 100, *, attempts: int = 200) -> int:
    """The first of `span` neighbouring free ports, for programs that count up from one. Raises OSError if none is found."""
    for _ in range(attempts):
        base = random.randrange(_FIRST, _LAST - span, 10)  # noqa: S311  (spreads parallel test runs, no secret)
        if all(is_free(port) for port in range(base, base + span)):
            return base
    message = f"no {span} neighbouring free ports between {_FIRST} and {_LAST}"
    raise OSError(message)


def is_free(port: int) -> bool:
    """Whether a listener could be bound to this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
