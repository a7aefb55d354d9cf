"""Whether a client may have a blob: its registry decides, for the client's own credentials. A cached blob is no way around that.

The question is a HEAD for the blob, which carries no body. A yes is remembered for a minute at most, under a hash of the
credentials; a no never is. Registries may be exempted by configuration.
"""

import hashlib
from dataclasses import dataclass

from darner.core.task import Headers
from darner.kit.clock import Clock
from darner.net.session import GuardedSession

MAX_TTL_S = 60.0
MAX_REMEMBERED = 10_000
FIRST_ERROR = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The registry's answer. `content_length` and `content_type` as far as it told them."""

    allowed: bool
    content_length: int | None = None
    content_type: str | None = None


class Gate:
    """Asks registries and remembers their yes."""

    def __init__(self, session: GuardedSession, clock: Clock, *, ttl_s: float) -> None:
        """`ttl_s` above a minute counts as a minute."""
        self._session = session
        self._clock = clock
        self._ttl_s = min(ttl_s, MAX_TTL_S)
        self._remembered: dict[tuple[str, str], tuple[float, Admission]] = {}

    async def admit(self, url: str, header: Headers, *, insecure: bool) -> Admission:
        """May a client with these headers have the blob at `url`? Raises NetError if the registry cannot be asked."""
        shown = "\0".join(f"{name}={header.find(name) or ''}" for name in ("authorization", "cookie"))
        key = (url, hashlib.sha256(shown.encode()).hexdigest())
        known = self._remembered.get(key)
        now = self._clock.monotonic()
        if known is not None and now - known[0] < self._ttl_s:
            return known[1]
        # Redirects are not followed: the registry has decided when it names the place, and that place may not know HEAD.
        async with self._session.request("HEAD", url, header.without("range"), insecure=insecure, follow=False) as reply:
            redirected = reply.status >= 300  # noqa: PLR2004  (a redirect's length and type are its own)
            length = None if redirected else reply.header.find("content-length")
            answer = Admission(
                allowed=200 <= reply.status < FIRST_ERROR,  # noqa: PLR2004
                content_length=int(length) if length and length.isascii() and length.isdigit() else None,
                content_type=None if redirected else reply.header.find("content-type"),
            )
        if answer.allowed:
            self._remember(key, now, answer)
        return answer

    def _remember(self, key: tuple[str, str], now: float, answer: Admission) -> None:
        self._remembered.pop(key, None)
        self._remembered[key] = (now, answer)
        while len(self._remembered) > MAX_REMEMBERED or now - next(iter(self._remembered.values()))[0] >= self._ttl_s > 0:
            del self._remembered[next(iter(self._remembered))]
            if not self._remembered:
                break
