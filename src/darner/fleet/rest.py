"""The fleet over HTTP: upstream's lists of clusters, schedulers, seed peers and peers, and the workers' reports of hosts.

Lists are bare arrays with a `Link` header, fields as upstream names them (spec/manager.md, 2, 5 and 9). They are read-only.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from darner.access import require
from darner.core.errors import NotFoundError
from darner.core.work import SeenHost
from darner.fleet.engine import FleetEngine, config_of
from darner.fleet.rules import ACTIVE, FEATURES, INACTIVE
from darner.fleet.values import ClusterRow, HostFilter, HostRow, SchedulerRow
from darner.kit.moments import rfc3339
from darner.kit.paging import DEFAULT_PER_PAGE, MAX_PER_PAGE, link_header

_MAX_HOSTS = 100_000
T = TypeVar("T")
Page = Annotated[int, Query(ge=1)]
PerPage = Annotated[int, Query(ge=1, le=MAX_PER_PAGE)]


class HostReport(BaseModel):
    """The hosts that a worker's scheduler knows."""

    model_config = ConfigDict(extra="ignore")

    cluster_id: Annotated[int, Field(ge=1)]
    hosts: Annotated[list[SeenHost], Field(max_length=_MAX_HOSTS)]


class SchedulerFilter(BaseModel):
    """Upstream's filters of schedulers: exact, and empty means any."""

    host_name: str = ""
    ip: str = ""
    idc: str = ""
    location: str = ""
    state: str = ""
    scheduler_cluster_id: int = 0
    page: Page = 1
    per_page: PerPage = DEFAULT_PER_PAGE

    def fits(self, row: SchedulerRow) -> bool:
        """Whether a scheduler is meant."""
        info = row.info
        wanted = (self.host_name, self.ip, self.idc, self.location, self.state, self.scheduler_cluster_id)
        facts = (info.hostname, info.ip, info.idc, info.location, info.state, info.scheduler_cluster_id)
        return all(not want or want == fact for want, fact in zip(wanted, facts, strict=True))


class PeerFilter(BaseModel):
    """Filters of peers: exact, and empty means any."""

    host_name: str = ""
    ip: str = ""
    type: str = ""
    scheduler_cluster_id: int | None = None
    page: Page = 1
    per_page: PerPage = DEFAULT_PER_PAGE

    def wanted(self, *, seed: bool | None) -> HostFilter:
        """The filter in the engine's words."""
        kind = {"super": True, "normal": False}.get(self.type, seed)
        return HostFilter(seed=kind, cluster_id=self.scheduler_cluster_id, hostname=self.host_name, ip=self.ip)


def router(engine: FleetEngine) -> APIRouter:
    """All routes of the fleet."""
    api = APIRouter()
    api.include_router(_clusters(engine))
    api.include_router(_schedulers(engine))
    api.include_router(_hosts(engine))
    return api


def _clusters(engine: FleetEngine) -> APIRouter:
    api = APIRouter(tags=["clusters"], dependencies=[Depends(require("cluster"))])

    async def clusters(
        request: Request, response: Response, name: str = "", page: Page = 1, per_page: PerPage = DEFAULT_PER_PAGE
    ) -> list[dict[str, Any]]:
        return [_cluster(row) for row in _page(request, response, await _named(engine, name), page, per_page)]

    async def cluster(cluster_id: int) -> dict[str, Any]:
        return _cluster(await _one(engine, cluster_id))

    for prefix in ("/api/v1", "/oapi/v1"):
        api.add_api_route(f"{prefix}/clusters", clusters, methods=["GET"])
        api.add_api_route(f"{prefix}/clusters/{{cluster_id}}", cluster, methods=["GET"])

    @api.get("/api/v1/scheduler-clusters")
    async def scheduler_clusters(
        request: Request, response: Response, name: str = "", page: Page = 1, per_page: PerPage = DEFAULT_PER_PAGE
    ) -> list[dict[str, Any]]:
        return [_scheduler_cluster(row) for row in _page(request, response, await _named(engine, name), page, per_page)]

    @api.get("/api/v1/scheduler-clusters/{cluster_id}")
    async def scheduler_cluster(cluster_id: int) -> dict[str, Any]:
        return _scheduler_cluster(await _one(engine, cluster_id))

    @api.get("/api/v1/seed-peer-clusters")
    async def seed_peer_clusters(
        request: Request, response: Response, name: str = "", page: Page = 1, per_page: PerPage = DEFAULT_PER_PAGE
    ) -> list[dict[str, Any]]:
        return [_seed_peer_cluster(row) for row in _page(request, response, await _named(engine, name), page, per_page)]

    return api


async def _named(engine: FleetEngine, name: str) -> list[ClusterRow]:
    return [row for row in await engine.clusters() if not name or row.info.name == name]


async def _one(engine: FleetEngine, cluster_id: int) -> ClusterRow:
    found = next((row for row in await engine.clusters() if row.info.id == cluster_id), None)
    if found is None:
        raise NotFoundError(f"There is no cluster {cluster_id}.")
    return found


def _schedulers(engine: FleetEngine) -> APIRouter:
    api = APIRouter(prefix="/api/v1", tags=["schedulers"], dependencies=[Depends(require("cluster"))])

    @api.get("/schedulers")
    async def schedulers(
        request: Request,
        response: Response,
        filters: Annotated[SchedulerFilter, Query()],
    ) -> list[dict[str, Any]]:
        found = [row for row in await engine.schedulers() if filters.fits(row)]
        return [_scheduler(row) for row in _page(request, response, found, filters.page, filters.per_page)]

    @api.get("/schedulers/{scheduler_id}")
    async def scheduler(scheduler_id: int) -> dict[str, Any]:
        found = next((row for row in await engine.schedulers() if row.info.id == scheduler_id), None)
        if found is None:
            raise NotFoundError(f"There is no scheduler {scheduler_id}.")
        return _scheduler(found)

    @api.get("/scheduler-features")
    async def features() -> list[str]:
        return list(FEATURES)

    return api


def _hosts(engine: FleetEngine) -> APIRouter:
    api = APIRouter(prefix="/api/v1", tags=["peers"])
    reader = [Depends(require("cluster"))]

    @api.get("/peers", dependencies=reader)
    async def peers(request: Request, response: Response, filters: Annotated[PeerFilter, Query()]) -> list[dict[str, Any]]:
        rows, total = await engine.hosts(filters.wanted(seed=None), page=filters.page, per_page=filters.per_page)
        _link(request, response, page=filters.page, per_page=filters.per_page, total=total)
        return [_peer(row) for row in rows]

    @api.get("/peers/{key}", dependencies=reader)
    async def peer(key: int) -> dict[str, Any]:
        return _peer(await engine.host(key))

    @api.get("/seed-peers", dependencies=reader)
    async def seed_peers(request: Request, response: Response, filters: Annotated[PeerFilter, Query()]) -> list[dict[str, Any]]:
        rows, total = await engine.hosts(filters.wanted(seed=True), page=filters.page, per_page=filters.per_page)
        _link(request, response, page=filters.page, per_page=filters.per_page, total=total)
        return [_seed_peer(row) for row in rows]

    @api.put("/worker/hosts", dependencies=[Depends(require("worker"))])
    async def report(body: HostReport) -> dict[str, int]:
        await engine.report_hosts(body.cluster_id, body.hosts)
        return {"hosts": len(body.hosts)}

    return api


def _page(request: Request, response: Response, rows: Sequence[T], page: int, per_page: int) -> Sequence[T]:
    _link(request, response, page=page, per_page=per_page, total=len(rows))
    return rows[(page - 1) * per_page : page * per_page]


def _link(request: Request, response: Response, *, page: int, per_page: int, total: int) -> None:
    query = request.query_params.multi_items()
    response.headers["Link"] = link_header(request.url.path, query, page=page, per_page=per_page, total=total)


def _cluster(row: ClusterRow) -> dict[str, Any]:
    info = row.info
    return {
        "id": info.id,
        "name": info.name,
        "bio": info.bio,
        "scopes": config_of(info.scopes),
        "scheduler_cluster_id": info.id,
        "seed_peer_cluster_id": info.id,
        "scheduler_cluster_config": config_of(info.config),
        "seed_peer_cluster_config": config_of(info.seed_client_config),
        "peer_cluster_config": config_of(info.client_config),
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
        "is_default": row.is_default,
        "active": row.active,
    }


def _scheduler_cluster(row: ClusterRow) -> dict[str, Any]:
    info = row.info
    return {
        **_base(info.id, row.created_at, row.updated_at),
        "name": info.name,
        "bio": info.bio,
        "config": config_of(info.config),
        "client_config": config_of(info.client_config),
        "seed_client_config": config_of(info.seed_client_config),
        "scopes": config_of(info.scopes),
        "is_default": row.is_default,
    }


def _seed_peer_cluster(row: ClusterRow) -> dict[str, Any]:
    info = row.info
    facts = {"name": info.name, "bio": info.bio, "config": config_of(info.seed_client_config)}
    return {**_base(info.id, row.created_at, row.updated_at), **facts}


def _scheduler(row: SchedulerRow) -> dict[str, Any]:
    info = row.info
    return {
        **_base(info.id, row.created_at, row.updated_at),
        "host_name": info.hostname,
        "ip": info.ip,
        "port": info.port,
        "idc": info.idc,
        "location": info.location,
        "state": info.state,
        "features": list(info.features),
        "config": config_of(row.config),
        "last_keep_alive_at": rfc3339(row.last_keep_alive_at),
        "scheduler_cluster_id": info.scheduler_cluster_id,
    }


def _peer(row: HostRow) -> dict[str, Any]:
    return {
        **_host(row),
        "proxy_port": row.host.proxy_port,
        "os": row.host.os,
        "platform": row.host.platform,
        "git_version": row.host.build_version,
        "scheduler_cluster_id": row.cluster_id,
        "host_id": row.host.id,
        "disk_total": row.host.disk_total,
        "disk_free": row.host.disk_free,
    }


def _seed_peer(row: HostRow) -> dict[str, Any]:
    return {**_host(row), "seed_peer_cluster_id": row.cluster_id, "host_id": row.host.id}


def _host(row: HostRow) -> dict[str, Any]:
    host = row.host
    return {
        **_base(row.id, row.created_at, row.updated_at),
        "host_name": host.hostname,
        "type": "super" if host.seed else "normal",
        "idc": host.idc,
        "location": host.location,
        "ip": host.ip,
        "port": host.port,
        "download_port": host.download_port,
        "object_storage_port": 0,
        "state": ACTIVE if row.active else INACTIVE,
    }


def _base(key: int, created_at: int, updated_at: int) -> dict[str, Any]:
    return {"id": key, "created_at": rfc3339(created_at), "updated_at": rfc3339(updated_at), "is_del": 0}
