"""Retention over HTTP: the policy, its history, sweeps and their history, holds. Scope `retention` or `admin`.

Times are RFC 3339; durations are shown as they were typed.
"""

from fastapi import APIRouter

from darner.retention.archive.engine import Archive
from darner.retention.engine import RetentionEngine
from darner.retention.export.exporter import Exporter
from darner.retention.growth.growth import Growth
from darner.retention.rest import archive as segments
from darner.retention.rest import export, holds, policy, preview, runs
from darner.retention.rest import growth as room

_PREFIX = "/api/v1/retention"


def router(
    engine: RetentionEngine, *, growth: Growth | None = None, exporter: Exporter | None = None, archive: Archive | None = None
) -> APIRouter:
    """All routes of retention, as far as the parts are there."""
    api = APIRouter(prefix=_PREFIX, tags=["retention"])
    policy.routes(api, engine)
    preview.routes(api, engine)
    runs.routes(api, engine)
    holds.routes(api, engine)
    if growth is not None:
        room.routes(api, growth)
    if exporter is not None:
        export.routes(api, exporter)
    if archive is not None:
        segments.routes(api, archive)
    return api
