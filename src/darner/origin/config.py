"""What the operator decides about origins."""

from dataclasses import dataclass, field
from pathlib import Path

from darner.core.task import Headers
from darner.net.guard import AddressPolicy
from darner.net.proxy import ProxySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginConfig:
    """Times in seconds. `request_header` is added where the asker gave none of that name (upstream: backend.requestHeader).

    `max_retries` counts attempts after the first for one request; `retry_after_cap_s` is the longest wait that an origin's
    Retry-After may impose. A body slower than `min_bytes_per_s` over `read_timeout_s` is given up. `proxies` None: from the
    environment.
    """

    ca_file: Path | None = None
    insecure_skip_verify: bool = False
    request_header: Headers = field(default_factory=Headers)
    policy: AddressPolicy = field(default_factory=AddressPolicy)
    max_retries: int = 3
    retry_first_s: float = 0.2
    retry_cap_s: float = 10.0
    retry_after_cap_s: float = 30.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    range_timeout_s: float = 360.0
    min_bytes_per_s: int = 1024
    max_idle_per_origin: int = 64
    redirect_cache_s: float = 60.0
    proxies: ProxySettings | None = None
