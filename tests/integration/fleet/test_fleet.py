"""The fleet on a real database, over real gRPC and HTTP."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from dragonfly_api import manager_pb2, manager_pb2_grpc
from fastapi import FastAPI
from sqlalchemy import select, text, update

from darner.access import TokenService
from darner.app import problems
from darner.client.manager import ManagerGrpcClient
from darner.core.errors import DeniedError, InvalidInputError, NotFoundError, UnauthenticatedError, UnavailableError
from darner.core.fleet import SchedulerInfo, SchedulerQuery
from darner.core.secret import Secret
from darner.core.work import SeenHost
from darner.db import Database, migrate
from darner.db.tables.fleet import fleet_host, fleet_scheduler
from darner.fleet.config import Anonymous, FleetConfig
from darner.fleet.engine import FleetEngine
from darner.fleet.rest import router
from darner.fleet.rpc import FleetServer, is_loopback

QUICK = FleetConfig(flush_every_s=0.05)
SCHEDULER = SchedulerInfo(id=0, hostname="s-1", ip="10.0.0.9", port=8002, scheduler_cluster_id=1, idc="fra", location="eu|de")
QUERY = SchedulerQuery(hostname="web-7", ip="10.1.2.3")


@dataclass
class Fleet:
    """A manager's fleet, running."""

    db: Database
    engine: FleetEngine
    tokens: TokenService
    server: FleetServer
    token: Secret

    def client(self, token: Secret | None) -> ManagerGrpcClient:
        return ManagerGrpcClient(self.server.address, token=token)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    db = Database.open(f"sqlite:///{tmp_path / 'darner.db'}")
    migrate(db)
    tokens = TokenService(db)
    _, token = await tokens.create("s", ["scheduler"])
    async with FleetEngine(db, config=QUICK) as engine, FleetServer(engine, tokens, bind="127.0.0.1:0") as server:
        yield Fleet(db, engine, tokens, server, token)
    db.close()


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[ManagerGrpcClient]:
    opened = fleet.client(fleet.token)
    yield opened
    await opened.close()


@pytest.fixture
async def http(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.state.tokens = fleet.tokens
    problems.install(app)
    app.include_router(router(fleet.engine))
    _, admin = await fleet.tokens.create("root", ["admin"])
    headers = {"Authorization": f"Bearer {admin.reveal()}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as opened:
        yield opened


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await reached():  # noqa: ASYNC110  (it happens in the database)
            await asyncio.sleep(0.01)


async def state_of(fleet: Fleet) -> str:
    return (await fleet.engine.schedulers())[0].info.state


async def test_a_fresh_installation_has_upstreams_default_cluster_once(fleet: Fleet) -> None:
    async with FleetEngine(fleet.db):
        rows = await fleet.engine.clusters()
    assert [(row.info.id, row.info.name, row.is_default, row.active) for row in rows] == [(1, "cluster-1", True, False)]


async def test_a_scheduler_registers_lives_while_it_beats_and_is_inactive_when_its_stream_ends(
    fleet: Fleet, client: ManagerGrpcClient
) -> None:
    made = await client.update_scheduler(SCHEDULER, b'{"a": 1}')
    assert (made.id, made.state, made.idc, made.features) == (1, "inactive", "fra", ("schedule", "preheat"))
    assert made.cluster is not None
    assert made.cluster.name == "cluster-1"
    beating = asyncio.create_task(client.keep_alive("s-1", "10.0.0.9", 1, 0.02))
    await until(lambda: _is(fleet, "active"))
    assert [one.id for one in await client.list_schedulers(QUERY)] == [1]
    first = (await fleet.engine.schedulers())[0].last_keep_alive_at or 0
    await until(lambda: _beaten_since(fleet, first))
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    await until(lambda: _is(fleet, "inactive"))
    assert await client.list_schedulers(QUERY) == []


async def _is(fleet: Fleet, state: str) -> bool:
    return await state_of(fleet) == state


async def _beaten_since(fleet: Fleet, moment: int) -> bool:
    return ((await fleet.engine.schedulers())[0].last_keep_alive_at or 0) > moment


async def test_the_end_of_an_older_stream_does_not_end_the_newer(fleet: Fleet) -> None:
    await fleet.engine.update_scheduler(SCHEDULER, b"")
    older = fleet.engine.presence("s-1", "10.0.0.9", 1)
    await older.__aenter__()
    async with fleet.engine.presence("s-1", "10.0.0.9", 1):
        await older.__aexit__(None, None, None)
        assert await state_of(fleet) == "active"
    assert await state_of(fleet) == "inactive"


async def test_registering_again_updates_and_keeps_the_id(fleet: Fleet, client: ManagerGrpcClient) -> None:
    first = await client.update_scheduler(SCHEDULER, b"")
    moved = SchedulerInfo(id=0, hostname="s-1", ip="10.0.0.9", port=9009, scheduler_cluster_id=1, features=("schedule",))
    second = await client.update_scheduler(moved, b"")
    assert (second.id, second.port, second.features) == (first.id, 9009, ("schedule",))
    assert (await client.get_scheduler("s-1", "", 1)).port == 9009
    assert len(await fleet.engine.schedulers()) == 1


async def test_a_named_cluster_lists_all_its_schedulers_in_any_state(client: ManagerGrpcClient) -> None:
    await client.update_scheduler(SCHEDULER, b"")
    query = SchedulerQuery(hostname="web-7", ip="10.1.2.3", scheduler_cluster_id=1)
    assert [one.state for one in await client.list_schedulers(query)] == ["inactive"]


async def test_a_scheduler_left_behind_by_a_killed_manager_becomes_inactive(fleet: Fleet, client: ManagerGrpcClient) -> None:
    await client.update_scheduler(SCHEDULER, b"")
    await fleet.db.write(lambda conn: conn.execute(update(fleet_scheduler).values(state="active", last_keep_alive_at=7)))
    await until(lambda: _is(fleet, "inactive"))


async def test_wrong_calls_get_clear_errors(client: ManagerGrpcClient) -> None:
    with pytest.raises(NotFoundError, match="cluster 9"):
        await client.update_scheduler(SchedulerInfo(id=0, hostname="s", ip="10.0.0.9", port=8002, scheduler_cluster_id=9), b"")
    with pytest.raises(InvalidInputError, match="host name"):
        await client.update_scheduler(SchedulerInfo(id=0, hostname="s_1", ip="10.0.0.9", port=8002, scheduler_cluster_id=1), b"")
    with pytest.raises(NotFoundError):
        await client.get_scheduler("nobody", "10.0.0.1", 1)
    with pytest.raises(NotFoundError):
        await client.keep_alive("nobody", "10.0.0.1", 1, 5)
    with pytest.raises(NotFoundError):
        await client.list_applications("s-1", "10.0.0.9")


async def test_no_token_no_answer_but_health(fleet: Fleet) -> None:
    _, narrow = await fleet.tokens.create("n", ["worker"])
    for token, error in ((None, UnauthenticatedError), (Secret("dat_wrong"), UnauthenticatedError), (narrow, DeniedError)):
        client = fleet.client(token)
        assert await client.healthy()
        with pytest.raises(error):
            await client.update_scheduler(SCHEDULER, b"")
        with pytest.raises(error):
            await client.keep_alive("s-1", "10.0.0.9", 1, 5)
        await client.close()


async def test_anonymous_registration_is_a_switch(fleet: Fleet) -> None:
    for switch in (Anonymous.LOOPBACK, Anonymous.ANY):
        async with FleetServer(fleet.engine, fleet.tokens, bind="127.0.0.1:0", anonymous=switch) as server:
            client = ManagerGrpcClient(server.address)
            assert (await client.update_scheduler(SCHEDULER, b"")).id == 1
            await client.close()
            wrong = ManagerGrpcClient(server.address, token=Secret("dat_wrong"))
            with pytest.raises(UnauthenticatedError):
                await wrong.update_scheduler(SCHEDULER, b"")
            await wrong.close()


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [
        ("ipv4:127.0.0.1:55", True),
        ("ipv6:%5B::1%5D:55", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:55", True),
        ("unix:/x", True),
        ("ipv4:10.0.0.1:127", False),
        ("ipv6:%5B::ffff:10.0.0.1%5D:55", False),
        ("", False),
        ("garbage", False),
    ],
)
def test_only_this_machine_is_loopback(peer: str, *, loopback: bool) -> None:
    assert is_loopback(peer) is loopback


async def test_what_upstream_no_longer_calls_is_unimplemented(fleet: Fleet) -> None:
    async with grpc.aio.insecure_channel(fleet.server.address) as channel:
        stub = manager_pb2_grpc.ManagerStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListSeedPeers(manager_pb2.ListSeedPeersRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_taken_port_is_told(fleet: Fleet) -> None:
    with pytest.raises(UnavailableError, match="taken"):
        await FleetServer(fleet.engine, fleet.tokens, bind=fleet.server.address).start()


def host(number: int, *, seed: bool = False, disk_free: int = 5) -> SeenHost:
    return SeenHost(
        id=f"h-{number}",
        hostname=f"web-{number}",
        ip=f"10.1.0.{number}",
        port=4000 + number,
        seed=seed,
        disk_total=9,
        disk_free=disk_free,
    )


async def test_reported_hosts_are_listed_with_upstreams_fields(fleet: Fleet, http: httpx.AsyncClient) -> None:
    body = {"cluster_id": 1, "hosts": [dataclasses.asdict(one) for one in (host(1, seed=True), host(2), host(3))]}
    assert (await http.put("/api/v1/worker/hosts", json=body)).json() == {"hosts": 3}
    first = await http.get("/api/v1/peers", params={"page": 1, "per_page": 2})
    assert [one["host_name"] for one in first.json()] == ["web-1", "web-2"]
    assert first.headers["link"].split(",")[3] == "</api/v1/peers?page=2&per_page=2>;rel=last"
    seed = (await http.get("/api/v1/seed-peers")).json()
    assert [(one["host_name"], one["type"], one["state"], one["port"]) for one in seed] == [("web-1", "super", "active", 4001)]
    assert [one["id"] for one in (await http.get("/api/v1/peers", params={"type": "normal"})).json()] == [2, 3]
    assert (await http.get("/api/v1/peers/2")).json()["host_name"] == "web-2"
    assert (await http.get("/api/v1/peers/77")).status_code == 404
    assert (await http.put("/api/v1/worker/hosts", json={"cluster_id": 7, "hosts": []})).status_code == 404
    await fleet.db.write(lambda conn: conn.execute(update(fleet_host).values(updated_at=fleet_host.c.updated_at - 61_000)))
    assert {one["state"] for one in (await http.get("/api/v1/peers")).json()} == {"inactive"}


async def test_an_unchanged_host_keeps_its_row_and_a_changed_one_its_id(fleet: Fleet) -> None:
    await fleet.engine.report_hosts(1, [host(1), host(2)])
    await fleet.db.write(lambda conn: conn.execute(update(fleet_host).values(updated_at=7)))
    await fleet.engine.report_hosts(1, [host(1), host(2, disk_free=1), host(2, disk_free=2), host(3)])
    rows = await fleet.db.read(lambda conn: conn.execute(select(fleet_host).order_by(fleet_host.c.id)).all())
    assert [(row.id, row.host_id) for row in rows] == [(1, "h-1"), (2, "h-2"), (3, "h-3")]
    assert all(row.updated_at > 7 for row in rows)
    assert '"disk_free": 2' in rows[1].facts


async def test_hosts_not_seen_for_a_day_are_forgotten(fleet: Fleet) -> None:
    await fleet.engine.report_hosts(1, [host(1)])
    await fleet.db.write(lambda conn: conn.execute(update(fleet_host).values(updated_at=7)))

    async def gone() -> bool:
        rows = await fleet.db.read(lambda conn: conn.execute(select(fleet_host.c.id)).all())
        return not rows

    await until(gone)


async def test_clusters_and_schedulers_are_listed_as_upstream_does(fleet: Fleet, http: httpx.AsyncClient) -> None:
    await fleet.engine.update_scheduler(SCHEDULER, b'{"manager_keep_alive_interval": 5}')
    for path in ("/api/v1/clusters", "/oapi/v1/clusters"):
        cluster = (await http.get(path)).json()[0]
        assert cluster["scheduler_cluster_config"] == {"candidate_parent_limit": 3, "filter_parent_limit": 15, "job_rate_limit": 10}
        assert (cluster["seed_peer_cluster_config"], cluster["peer_cluster_config"]) == ({"load_limit": 2000}, {"load_limit": 200})
        assert (await http.get(f"{path}/1")).json() == cluster
        assert (await http.get(f"{path}/2")).status_code == 404
    found = (await http.get("/api/v1/schedulers", params={"state": "inactive", "host_name": "s-1"})).json()
    assert [(one["host_name"], one["ip"], one["port"], one["is_del"]) for one in found] == [("s-1", "10.0.0.9", 8002, 0)]
    assert (await http.get("/api/v1/schedulers", params={"state": "active"})).json() == []
    assert (await http.get("/api/v1/schedulers/1")).json()["config"] == {"manager_keep_alive_interval": 5}
    assert (await http.get("/api/v1/scheduler-clusters")).json()[0]["client_config"] == {"load_limit": 200}
    assert (await http.get("/api/v1/seed-peer-clusters")).json()[0]["config"] == {"load_limit": 2000}
    assert (await http.get("/api/v1/clusters", headers={"Authorization": ""})).status_code == 401


async def test_lists_of_hosts_use_an_index(fleet: Fleet) -> None:
    queries = {
        "SELECT * FROM fleet_host WHERE seed = 1 ORDER BY id LIMIT 9": "ix_fleet_host_seed",
        "SELECT * FROM fleet_host WHERE cluster_id = 1 AND host_id IN ('a', 'b')": "sqlite_autoindex_fleet_host_1",
        "SELECT id FROM fleet_host WHERE updated_at < 9 ORDER BY updated_at LIMIT 9": "ix_fleet_host_updated_at",
        "SELECT id FROM fleet_scheduler WHERE state = 'active' AND last_keep_alive_at < 9 ORDER BY last_keep_alive_at LIMIT 9": (
            "ix_fleet_scheduler_state"
        ),
    }
    for query, index in queries.items():
        rows = await fleet.db.read(lambda conn, query=query: conn.execute(text(f"EXPLAIN QUERY PLAN {query}")).all())  # type: ignore[misc]
        told = " | ".join(row[3] for row in rows)
        assert index in told, told
        assert "TEMP B-TREE" not in told, told
