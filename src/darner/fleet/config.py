"""How long silence is tolerated, and who may register without a token."""

from dataclasses import dataclass
from enum import StrEnum


class Anonymous(StrEnum):
    """Whether calls without a token are answered, as upstream's manager does it for everybody."""

    OFF = "off"
    LOOPBACK = "loopback"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """Heartbeats (of schedulers every 5 s, reports of hosts every 10 to 15 s) are kept in memory and written every `flush_every_s`.

    After `scheduler_silent_s` or `host_silent_s` without a sign they count as inactive; after `host_forget_s` a host is forgotten.
    """

    flush_every_s: float = 10.0
    scheduler_silent_s: float = 60.0
    host_silent_s: float = 60.0
    host_forget_s: float = 24 * 3600.0
