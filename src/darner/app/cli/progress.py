"""One line that shows a download or a job as it moves; drawn on a terminal only, at most ten times a second."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from darner.app.cli.output import note
from darner.kit.units import format_duration, format_size

REDRAW_S = 0.1
BAR_CELLS = 30


@contextmanager
def told_on_terminal(text: str) -> Iterator[None]:
    """A line on a terminal for as long as something takes."""
    shown = sys.stderr.isatty()
    if shown:
        note(text, end="")
    try:
        yield
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class ProgressLine:
    """A bar with amount, rate and time left. `total` in bytes, 0 = unknown."""

    def __init__(self, label: str, *, shown: bool | None = None) -> None:
        """Shown on a terminal unless said otherwise."""
        self._label = label
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._started = time.monotonic()
        self._drawn = 0.0

    def show(self, done: int, total: int, *, force: bool = False) -> None:
        """Draw `done` of `total` bytes."""
        now = time.monotonic()
        if not self._shown or (now - self._drawn < REDRAW_S and not force):
            return
        self._drawn = now
        sys.stderr.write("\r\x1b[K" + self.text(done, total, now - self._started))
        sys.stderr.flush()

    def text(self, done: int, total: int, elapsed_s: float) -> str:
        """The line itself, cut to the terminal's width."""
        rate = done / elapsed_s if elapsed_s > 0 else 0.0
        share = min(done / total, 1.0) if total else 0.0
        filled = round(share * BAR_CELLS)
        bar = "=" * filled + (">" if filled < BAR_CELLS else "") + "-" * (BAR_CELLS - filled - 1)
        left = format_duration((total - done) / rate) if rate and total else "?"
        amount = f"{format_size(done)}/{format_size(total)}" if total else format_size(done)
        line = f"{self._label} [{bar}] {share:4.0%} {amount} {format_size(rate)}/s {left or '0s'} left"
        return line[: shutil.get_terminal_size().columns - 1]

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
