"""A token bucket for bytes per second, usable from threads."""

import threading
import time


class TokenBucket:
    """`rate` tokens per second, at most one second's worth saved up. `rate` 0 means no limit."""

    def __init__(self, rate: float) -> None:
        """A full bucket."""
        self._rate = rate
        self._tokens = rate
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def reserve(self, amount: float) -> float:
        """Take `amount` tokens, into debt if need be; returns the seconds to wait before using them."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
            self._at = now
            self._tokens -= amount
            return max(0.0, -self._tokens / self._rate)

    def take(self, amount: float) -> None:
        """Take `amount` tokens, sleeping until they are there (blocking; for threads)."""
        wait = self.reserve(amount)
        if wait:
            time.sleep(wait)
