"""The composition root of a daemon: builds its parts from the configuration, runs it until it is told to stop."""

import asyncio
import logging
import random
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import grpc
import grpc.aio
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from darner.client.channel import open_channel
from darner.client.dfdaemon import DaemonClient
from darner.client.manager import ManagerGrpcClient
from darner.client.scheduler import SchedulerClient
from darner.core.errors import InvalidInputError
from darner.core.secret import Secret
from darner.core.task import Headers
from darner.daemon.config import DaemonConfig
from darner.daemon.daemon import Daemon
from darner.daemon.engine import DaemonEngine
from darner.daemon.host import HostProbe
from darner.daemon.loading import Pace, Parts, Randomness
from darner.daemon.meters import Meters
from darner.daemon.mirror import mirror_app
from darner.daemon.peerbook import PeerBook
from darner.daemon.schedulers import Directory
from darner.daemon.served import StoredPieces
from darner.kit.clock import SystemClock
from darner.kit.log import get_logger
from darner.net.guard import AddressPolicy
from darner.net.session import SessionSettings
from darner.origin import OriginConfig, OriginRegistry, http_origins
from darner.store import Store, StoreLimits
from darner.swarm import ClientLimits, PieceClient, PieceServer, ServerLimits

FILE_THREADS = 4
SCAN_THREADS = 8
_log = get_logger("daemon")


async def run_daemon(config: DaemonConfig, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Build, start, say `ready`, wait for `stop`, stop. Raises DarnerError if it cannot start."""
    # grpclib logs every caller that goes away as an error with a traceback; our faces say what matters.
    logging.getLogger("grpclib").setLevel(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        daemon = await build(config, stack)
        async with daemon:
            ready()
            _log.info("the daemon serves", socket=str(config.download.server.socket_path), upload=config.upload.server.port)
            await stop.wait()
            _log.info("the daemon stops")


async def build(config: DaemonConfig, stack: AsyncExitStack) -> Daemon:
    """All parts of a daemon; what `Daemon` does not own itself is closed by `stack`. Must run in the loop that will serve."""
    _check(config)
    probe = HostProbe(config)
    files = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="files")
    store = await asyncio.get_running_loop().run_in_executor(files, open_store, config)
    parts = Parts(
        config=config,
        host=probe.host,
        store=store,
        pieces=PieceClient(
            ClientLimits(), check_address=AddressPolicy(allow_loopback=_on_loopback(probe), allow_private=True).check
        ),
        origins=build_origins(config),
        directory=_directory(config, probe, stack),
        peers=PeerBook(DaemonClient),
        bodies=ThreadPoolExecutor(config.download.total_concurrent_piece_count, thread_name_prefix="bodies"),
        files=files,
        scans=ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="scans"),
        clock=SystemClock(),
        chance=Randomness(draw=random.random, unique=lambda: str(uuid.uuid4())),
        meters=Meters(),
        pace=Pace(
            all_bytes_per_s=config.download.bandwidth_limit,
            origin_bytes_per_s=config.download.back_to_source_bandwidth_limit,
        ),
    )
    server = PieceServer(
        (config.storage.server.ip, config.storage.server.tcp_port),
        StoredPieces(store),
        ServerLimits(
            max_connections=config.storage.server.max_connections,
            bytes_per_s=config.upload.bandwidth_limit,
        ),
    )
    return Daemon(parts, server, _mirror(config))


def open_store(config: DaemonConfig) -> Store:
    """The store of this configuration, emptied first if content is not to be kept."""
    directory = config.storage.dir
    if not config.storage.keep:
        for name in ("content", "metadata", "spool"):
            shutil.rmtree(directory / name, ignore_errors=True)
    policy = config.gc.policy
    limits = StoreLimits(
        quota_bytes=policy.disk_threshold,
        ttl_s=policy.taskTTL,
        disk_high_percent=policy.disk_high_threshold_percent,
        disk_low_percent=policy.disk_low_threshold_percent,
    )
    return Store.open(directory, limits=limits)


def build_origins(config: DaemonConfig) -> OriginRegistry:
    """The origins of this configuration."""
    backend = config.backend
    return http_origins(
        OriginConfig(
            ca_file=backend.ca_file,
            insecure_skip_verify=backend.insecure_skip_verify,
            request_header=Headers(backend.request_header),
            policy=origin_policy(config),
            max_retries=backend.max_retries,
            read_timeout_s=backend.timeout,
            range_timeout_s=config.download.piece_timeout,
        )
    )


def origin_policy(config: DaemonConfig) -> AddressPolicy:
    """Which addresses origins may have."""
    return AddressPolicy(allow_loopback=config.backend.allow_loopback, allow_private=config.backend.allow_private)


def _mirror(config: DaemonConfig) -> Callable[[DaemonEngine], web.Application] | None:
    """What makes the mirror, or None if it is switched off."""
    if not config.proxy.enable:
        return None
    settings = SessionSettings(policy=origin_policy(config), ca_file=config.backend.ca_file, read_timeout_s=config.backend.timeout)
    return partial(mirror_app, config=config.proxy, settings=settings)


def _directory(config: DaemonConfig, probe: HostProbe, stack: AsyncExitStack) -> Directory:
    manager = None
    if config.manager.addr:
        manager = ManagerGrpcClient(config.manager.addr, token=_token(config.manager.token_file))
        stack.push_async_callback(manager.close)
    return Directory(
        host=probe.host,
        connect=partial(SchedulerClient),
        clock=SystemClock(),
        manager=manager,
        fixed=config.scheduler.addrs,
        refresh_s=config.dynconfig.refresh_interval,
        announce_s=config.scheduler.announce_interval,
        watch=watch_scheduler,
    )


async def watch_scheduler(address: str) -> None:
    """Return when the connection to a scheduler breaks: a stream of its health that ends. Never, where it has no such stream."""
    channel = open_channel(address)
    try:
        async for _ in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
            pass
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            await asyncio.Event().wait()
    finally:
        await channel.close()


def _token(path: Path | None) -> Secret | None:
    return Secret(path.read_text().strip()) if path else None


def _on_loopback(probe: HostProbe) -> bool:
    """A host that is known by a loopback address has all its peers there, too."""
    return ip_address(probe.host().ip).is_loopback


def _check(config: DaemonConfig) -> None:
    if config.manager.addr and config.scheduler.addrs:
        raise InvalidInputError("manager.addr and scheduler.addrs are both set; choose one", field="scheduler.addrs")
