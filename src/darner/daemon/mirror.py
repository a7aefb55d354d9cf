"""The registry mirror: blobs go through the swarm, everything else through to the registry that the client means.

A blob is given only to a client whose own credentials its registry accepts. Not here: proxying of absolute URLs, CONNECT.
"""

from collections.abc import AsyncIterator

from aiohttp import web

from darner.core.errors import DarnerError, InvalidInputError, OriginError
from darner.core.host import split_address
from darner.core.ranges import ByteRange, parse_range_header
from darner.core.task import Download
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS
from darner.daemon.config import ProxyConfig
from darner.daemon.engine import DaemonEngine
from darner.daemon.httpd import healthy
from darner.daemon.mirror_blob import BlobRequest, BlobServer
from darner.daemon.mirror_gate import Admission, Gate
from darner.daemon.mirror_rules import (
    BlobPath,
    blob_path,
    for_origin,
    forwarded,
    is_true,
    priority_of,
    registry_base,
    returned,
)
from darner.kit.log import get_logger
from darner.net.errors import NetError
from darner.net.session import GuardedSession, SessionSettings, open_session

CHUNK_BYTES = 256 * 1024
MAX_HEADER_BYTES = 64 * 1024
ERROR_TYPE = "X-Dragonfly-Error-Type"
OCTETS = "application/octet-stream"
CLIENT_LEFT = 499
"""nginx's word for it; nobody reads this answer."""
_log = get_logger("daemon")


def mirror_app(engine: DaemonEngine, config: ProxyConfig, settings: SessionSettings) -> web.Application:
    """The mirror as an application for `httpd.HttpPort`; its HTTP session lives as long as the port."""
    app = web.Application(handler_args={"max_line_size": MAX_HEADER_BYTES, "max_field_size": MAX_HEADER_BYTES})
    holder: list[Mirror] = []

    async def session(_app: web.Application) -> AsyncIterator[None]:
        async with open_session(settings) as opened:
            holder.append(Mirror(engine, config, opened))
            yield

    async def handle(request: web.Request) -> web.StreamResponse:
        return await holder[0].handle(request)

    app.cleanup_ctx.append(session)
    app.router.add_get("/healthy", healthy)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


class Mirror:
    """Answers one client's requests after the other."""

    def __init__(self, engine: DaemonEngine, config: ProxyConfig, session: GuardedSession) -> None:
        """`session` is used for everything but blobs' bodies."""
        self._engine = engine
        self._config = config
        self._mirror = config.registry_mirror
        self._session = session
        self._gate = Gate(session, engine.parts.clock, ttl_s=config.registry_mirror.auth_cache_ttl)
        self._blobs = BlobServer(engine)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The answer to any request; never raises for what a client or a registry did wrong."""
        meters = self._engine.parts.meters
        meters.proxy_requests.inc()
        try:
            if request.path_qs.startswith("//") or not request.raw_path.startswith("/"):
                raise InvalidInputError("only requests for a path are served, not proxying of whole URLs")
            base = registry_base(
                request.headers.get("X-Dragonfly-Registry"), request.query.get("ns"), self._mirror.addr, self._mirror.insecure
            )
            blob = blob_path(request.path) if request.method == "GET" else None
            if blob is not None:
                return await self._blob(request, base, blob)
            return await self._pass(request, base)
        except DarnerError as error:
            meters.proxy_failures.inc()
            _log.info("a mirror request failed", method=request.method, path=request.path, reason=error.message)
            return _error(error)
        except ConnectionError:
            _log.info("a client of the mirror left before the end of its answer", method=request.method, path=request.path)
            return web.Response(status=CLIENT_LEFT)

    async def _blob(self, request: web.Request, base: str, blob: BlobPath) -> web.StreamResponse:
        header, url = forwarded(request.headers.items()), f"{base}{request.path}"
        admission = Admission(allowed=True)
        if not self._exempt(base):
            admission = await self._gate.admit(url, header, insecure=False)
        if not admission.allowed:
            return await self._pass(request, base)  # the registry says no in its own words
        wanted = _wanted(request, admission.content_length)
        if wanted is None and "Range" in request.headers and admission.content_length is None:
            return await self._pass(request, base)
        self._engine.parts.meters.proxy_swarm.inc()
        download = Download(
            url=url,
            digest=blob.digest,
            range=wanted,
            tag=request.headers.get("X-Dragonfly-Tag"),
            application=request.headers.get("X-Dragonfly-Application"),
            priority=priority_of(request.headers.get("X-Dragonfly-Priority")),
            filtered_query_params=DEFAULT_FILTERED_QUERY_PARAMS,
            request_header=for_origin(header),
            enable_task_id_based_blob_digest=self._by_digest(request),
            disable_back_to_source=self._config.disable_back_to_source,
        )
        content_type = admission.content_type or OCTETS
        asked = BlobRequest(download=download, wanted=wanted, content_type=content_type, digest=str(blob.digest))
        return await self._blobs.serve(request, asked)

    async def _pass(self, request: web.Request, base: str) -> web.StreamResponse:
        """Send a request through and its answer back, bodies in chunks as they come."""
        query = request.url.query_string if "ns" not in request.query else request.url.without_query_params("ns").query_string
        url = f"{base}{request.raw_path.partition('?')[0]}{'?' + query if query else ''}"
        header = forwarded(request.headers.items())
        if request.content_length is not None and request.body_exists:
            header["Content-Length"] = str(request.content_length)
        body = request.content.iter_chunked(CHUNK_BYTES) if request.body_exists else None
        async with self._session.request(request.method, url, header, body=body) as reply:
            response = web.StreamResponse(status=reply.status, reason=reply.reason)
            for name, value in returned(reply.header_items, keep_length=True):
                response.headers.add(name, value)
            await response.prepare(request)
            if request.method != "HEAD":
                async for chunk in reply.chunks(CHUNK_BYTES):
                    await response.write(chunk)
            await response.write_eof()
            return response

    def _exempt(self, base: str) -> bool:
        host = base.partition("://")[2]
        name = split_address(host)[0] if ":" in host.rpartition("]")[2] else host
        return host in self._mirror.skip_auth_check or name in self._mirror.skip_auth_check

    def _by_digest(self, request: web.Request) -> bool:
        asked = request.headers.get("X-Dragonfly-Enable-Task-ID-Based-Blob-Digest")
        return self._mirror.enableTaskIDBasedBlobDigest if asked is None else is_true(asked)


def _wanted(request: web.Request, content_length: int | None) -> ByteRange | None:
    """The range asked for; None for all, or when the length is unknown. Raises InvalidInputError (`range`)."""
    text = request.headers.get("Range")
    if text is None or content_length is None or not text.strip().startswith("bytes="):
        return None
    return parse_range_header(text, content_length)


def _error(error: DarnerError) -> web.Response:
    """An error as a client of the mirror sees it: the registry's status and headers if it gave any (daemon.md, section 9.1)."""
    if isinstance(error, OriginError) and error.status is not None:
        shown = [(name, value) for name, value in returned(error.header.items(), keep_length=False)]
        response = web.Response(status=error.status, text=f"{error.message}\n")
        for name, value in shown:
            if name.lower() != "content-type":
                response.headers[name] = value
        response.headers[ERROR_TYPE] = "backend"
        return response
    if isinstance(error, NetError):
        return web.Response(status=502, text=f"{error.message}\n", headers={ERROR_TYPE: "proxy"})
    status = {"invalid": 416 if error.field == "range" else 400, "not_found": 404, "denied": 403, "forbidden_address": 403}
    kind = "proxy" if error.kind in {"origin", "invalid", "forbidden_address"} else "dfdaemon"
    gateway = {"origin": 502, "digest_mismatch": 502, "unavailable": 503, "timed_out": 504}
    code = status.get(error.kind) or gateway.get(error.kind) or 500
    return web.Response(status=code, text=f"{error.message}\n", headers={ERROR_TYPE: kind})
