"""Waits between attempts: exponential, capped, with full jitter on the upper half so that many callers spread out."""

import random
from collections.abc import Iterator


def backoff(*, first_s: float = 0.1, cap_s: float = 10.0, factor: float = 2.0) -> Iterator[float]:
    """Endless waits in seconds: first, then growing to the cap, each between half and the whole of its step."""
    step = first_s
    while True:
        yield random.uniform(step / 2, step)  # noqa: S311  (jitter, not a secret)
        step = min(step * factor, cap_s)
