"""Retention over HTTP: the policy, its history, sweeps and their history, holds. Scope `retention` or `admin`.

Times are RFC 3339; durations are shown as they were typed.
"""

from fastapi import APIRouter

from darner.retention.engine import RetentionEngine
from darner.retention.rest import holds, policy, preview, runs

_PREFIX = "/api/v1/retention"


def router(engine: RetentionEngine) -> APIRouter:
    """All routes of retention."""
    api = APIRouter(prefix=_PREFIX, tags=["retention"])
    policy.routes(api, engine)
    preview.routes(api, engine)
    runs.routes(api, engine)
    holds.routes(api, engine)
    return api
