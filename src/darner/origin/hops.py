"""Where redirects led: signed URLs of blob stores, kept for a short time, per URL, headers and kind of TLS."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from darner.core.task import Headers

MAX_HOPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A final URL and the request headers that may go there."""

    url: str
    header: Headers


def hop_key(url: str, header: Headers, insecure: bool) -> Hashable:
    """Everything that decides where a request ends; credentials included, so that nobody gets another's signed URL."""
    return url, tuple(sorted(header.items())), insecure


class HopCache:
    """Least recently used goes first. Thread-safe."""

    def __init__(self, keep_s: float) -> None:
        """`keep_s` 0 keeps nothing."""
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._hops: OrderedDict[Hashable, tuple[Hop, float]] = OrderedDict()

    def get(self, key: Hashable, now: float) -> Hop | None:
        """The hop if it is fresh at `now` (monotonic seconds)."""
        with self._lock:
            found = self._hops.get(key)
            if found is None or now >= found[1]:
                self._hops.pop(key, None)
                return None
            self._hops.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, hop: Hop, now: float) -> None:
        """Remember it from `now` on."""
        with self._lock:
            self._hops[key] = (hop, now + self._keep_s)
            self._hops.move_to_end(key)
            while len(self._hops) > MAX_HOPS:
                self._hops.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Drop it."""
        with self._lock:
            self._hops.pop(key, None)
