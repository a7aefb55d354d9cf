"""How bytes come from the source. In flow a URL, headers and a range; out flow verified bytes in a file and their digests.

Only http and https; `file:` does not exist here, a daemon must not read its own disk for others. Refused are answers that are not
exactly what was asked for: another range, too many or too few bytes, content that changes while it is read.
"""

from darner.origin.config import OriginConfig
from darner.origin.errors import FetchStoppedError, OriginChangedError
from darner.origin.http import HttpOrigin
from darner.origin.memory import MemoryOrigin
from darner.origin.ports import Origin, OriginRequest, OriginStat
from darner.origin.registry import OriginRegistry, http_origins

__all__ = [
    "FetchStoppedError",
    "HttpOrigin",
    "MemoryOrigin",
    "Origin",
    "OriginChangedError",
    "OriginConfig",
    "OriginRegistry",
    "OriginRequest",
    "OriginStat",
    "http_origins",
]
