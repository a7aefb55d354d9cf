"""How every Darner process starts, says that it is ready, and stops.

A composition root is `async def main(stop, ready)`: it builds its parts, calls `ready()` once everything answers, waits for `stop`,
and takes its parts down in its own written order. SIGINT and SIGTERM set `stop`; a second one ends the process at once.
Under `darner up` the parent passes a pipe (`DARNER_READY_FD`) to hear of readiness, and the kernel ends the child when the parent
dies.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from darner.core.errors import DarnerError
from darner.kit import log

READY_FD = "DARNER_READY_FD"
LOG_LEVEL = "DARNER_LOG_LEVEL"
LOG_JSON = "DARNER_LOG_JSON"
_PR_SET_PDEATHSIG = 1

Main = Callable[[asyncio.Event, Callable[[], None]], Awaitable[None]]


def run(name: str, main: Main) -> int:
    """Run one production process until it is told to stop; returns its exit code."""
    log.configure(level=os.environ.get(LOG_LEVEL, "info"), json=os.environ.get(LOG_JSON, "") == "1")
    follow_parent()
    logger = log.get_logger(name)
    try:
        asyncio.run(_run(main))
    except DarnerError as error:
        logger.error("cannot run", reason=error.message)  # noqa: TRY400  (a person reads a sentence, not a traceback)
        return 1
    except OSError as error:
        logger.error("cannot run", reason=f"{error.strerror or error}: {error.filename or name}")  # noqa: TRY400
        return 1
    return 0


async def _run(main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    await main(stop, report_ready)


def report_ready() -> None:
    """Tell the parent, if it asked to know."""
    text = os.environ.pop(READY_FD, "")
    if text:
        with contextlib.suppress(OSError), os.fdopen(int(text), "wb") as pipe:
            pipe.write(b"ready\n")


def follow_parent() -> None:
    """Under `darner up`, end when the parent does, even if it is killed (Linux: PR_SET_PDEATHSIG)."""
    if READY_FD in os.environ and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
