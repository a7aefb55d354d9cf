"""The manager: composition root.

Start: database and its schema, tokens, fleet, jobs, retention, gRPC, and last HTTP, so that nobody is answered before all is there.
Stop, in reverse: HTTP stops taking requests (streams and long polls are told to end first), gRPC, retention between two batches,
jobs, fleet, database.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from darner import __version__
from darner.access import TokenService, Vault
from darner.access import router as token_routes
from darner.app.http import HttpServer
from darner.app.images import RegistryImages
from darner.app.rest import build_app
from darner.app.retention import Keeping, RetentionConfig, keeping
from darner.core.errors import InvalidInputError
from darner.db import Database, migrate
from darner.fleet.config import Anonymous
from darner.fleet.engine import FleetEngine
from darner.fleet.rest import router as fleet_routes
from darner.fleet.rpc import FleetServer
from darner.fleet.rules import ACTIVE
from darner.jobs.config import JobsConfig
from darner.jobs.engine import JobPorts, JobsEngine, limits_of
from darner.jobs.ports import ClusterRef
from darner.jobs.rest import router as job_routes
from darner.jobs.sql import SqlHistory, SqlJobBook, SqlWorkBook
from darner.kit.config import setting
from darner.kit.log import get_logger
from darner.net.guard import AddressPolicy
from darner.net.http import SessionSettings
from darner.retention.rest import router as retention_routes
from darner.retention.rest.growth import metrics

_log = get_logger("manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestConfig:
    """Where REST listens."""

    ip: str = setting("0.0.0.0", "Address of the REST API.")  # noqa: S104  (upstream's default)
    port: int = setting(8080, "Port of the REST API.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcConfig:
    """Where manager.v2 listens."""

    ip: str = setting("0.0.0.0", "Address of the gRPC API.")  # noqa: S104  (upstream's default)
    port: int = setting(65003, "Port of the gRPC API.")
    anonymous: str = setting("off", "Who may register without a token: off, loopback, any (as upstream's schedulers do).")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The manager's listeners."""

    rest: RestConfig = setting(RestConfig(), "REST API.")
    grpc: GrpcConfig = setting(GrpcConfig(), "gRPC API.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """The metadata database."""

    url: str = setting("sqlite:////var/lib/darner/darner.db", "sqlite:///PATH, postgresql://… or mysql://….")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    """What must be stored secret."""

    key_file: Path = setting(
        Path("/etc/darner/secret.key"), "Encrypts stored credentials; shared by all managers; made if missing."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensConfig:
    """Tokens that are made at start and written to files (mode 0600); empty = none."""

    admin_file: Path | None = setting(None, "A token with scope admin.")
    worker_file: Path | None = setting(None, "A token with scope worker.")
    scheduler_file: Path | None = setting(None, "A token with scope scheduler.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """How registries are reached when manifests are read."""

    ca_file: Path | None = setting(None, "More certificate authorities, PEM.")
    allow_loopback: bool = setting(False, "Whether registries on this machine may be asked.")
    allow_private: bool = setting(True, "Whether registries on private addresses may be asked.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """The manager's configuration."""

    server: ServerConfig = setting(ServerConfig(), "Listeners.")
    database: DatabaseConfig = setting(DatabaseConfig(), "The metadata database.")
    security: SecurityConfig = setting(SecurityConfig(), "What is stored secret.")
    tokens: TokensConfig = setting(TokensConfig(), "Tokens made at start.")
    origin: RegistryConfig = setting(RegistryConfig(), "How registries are reached.")
    jobs: JobsConfig = setting(JobsConfig(), "Planning and handing out of work.")
    retention: RetentionConfig = setting(RetentionConfig(), "What retention needs of the machine; the policy is in the database.")


async def run_manager(config: ManagerConfig, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Run a manager until `stop`."""
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(_database(config.database.url))
        tokens = TokenService(db)
        await _make_tokens(tokens, config.tokens)
        fleet_engine = await stack.enter_async_context(FleetEngine(db))
        kept = await stack.enter_async_context(keeping(db, config.retention))
        jobs_engine = await stack.enter_async_context(jobs_of(config, db, fleet_engine, kept))
        grpc = config.server.grpc
        bind = f"{grpc.ip}:{grpc.port}"
        await stack.enter_async_context(FleetServer(fleet_engine, tokens, bind=bind, anonymous=_anonymous(grpc.anonymous)))
        app = rest_app(tokens, fleet_engine, jobs_engine, kept)
        rest = config.server.rest
        server = await stack.enter_async_context(HttpServer(app, rest.ip, rest.port))
        stack.callback(jobs_engine.stop_waiting)
        _log.info("manager is ready", http=f"{rest.ip}:{server.port}", grpc=bind, database=db.name, version=__version__)
        ready()
        await stop.wait()
        _log.info("manager stops")


def rest_app(tokens: TokenService, fleet: FleetEngine, jobs: JobsEngine, kept: Keeping) -> FastAPI:
    """The REST application with the routes of every room."""
    retention = retention_routes(kept.engine, growth=kept.growth, exporter=kept.exporter, archive=kept.archive)
    registries = [kept.engine.meters.registry, *([kept.growth.meters.registry] if kept.growth else [])]
    return build_app(
        tokens,
        [
            token_routes(),
            fleet_routes(fleet),
            job_routes(jobs),
            retention,
            metrics(registries),
        ],
    )


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    db = Database.open(url)
    try:
        await asyncio.to_thread(migrate, db)
        yield db
    finally:
        db.close()


async def _make_tokens(tokens: TokenService, config: TokensConfig) -> None:
    for scope, file in (("admin", config.admin_file), ("worker", config.worker_file), ("scheduler", config.scheduler_file)):
        if file is not None:
            await tokens.ensure_token(f"system-{scope}", [scope], file)


def _anonymous(text: str) -> Anonymous:
    try:
        return Anonymous(text)
    except ValueError:
        allowed = ", ".join(Anonymous)
        raise InvalidInputError(f"server.grpc.anonymous: {text!r} is not one of {allowed}", field="server.grpc.anonymous") from None


def jobs_of(config: ManagerConfig, db: Database, fleet_engine: FleetEngine, kept: Keeping) -> JobsEngine:
    """The engine of jobs of this configuration, not running yet."""
    origin = config.origin
    policy = AddressPolicy(allow_loopback=origin.allow_loopback, allow_private=origin.allow_private)
    limits = limits_of(config.jobs)
    ports = JobPorts(
        book=SqlJobBook(db, limits, codec=kept.codec),
        work=SqlWorkBook(db, limits),
        history=SqlHistory(db, kept.codec, kept.archive),
        clusters=FleetClusters(fleet_engine),
        resolver=RegistryImages(SessionSettings(policy=policy, ca_file=origin.ca_file)),
        retention=kept.engine,
        vault=Vault.at(config.security.key_file),
        admission=kept.growth,
    )
    return JobsEngine(config.jobs, ports)


class FleetClusters:
    """The jobs room's view of the fleet: clusters, and whether a scheduler of each is active."""

    def __init__(self, engine: FleetEngine) -> None:
        """Ask that engine."""
        self._engine = engine

    async def clusters(self) -> Sequence[ClusterRef]:
        """All clusters, by id."""
        schedulers = await self._engine.schedulers()
        active = {row.info.scheduler_cluster_id for row in schedulers if row.info.state == ACTIVE}
        return [
            ClusterRef(id=row.info.id, name=row.info.name, active=row.info.id in active) for row in await self._engine.clusters()
        ]
