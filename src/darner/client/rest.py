"""Client of the manager over HTTP, for the command line and for workers.

Flows in and out: JSON objects for people's commands, values of `core.work` for workers. Errors are DarnerErrors with the manager's
own sentence; a manager that does not answer is an UnavailableError naming its URL. The token goes to this one manager only.
"""

import asyncio
import ipaddress
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import httpx

from darner.client.answers import Json, objects, one_object
from darner.client.retention import RetentionRest
from darner.core.errors import (
    ConflictError,
    DarnerError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    TimedOutError,
    UnauthenticatedError,
    UnavailableError,
)
from darner.core.job import Tier
from darner.core.secret import Secret
from darner.core.work import PartOrder, SeenHost, Verdict, WorkReport, order_from_json, report_to_json
from darner.kit.retry import backoff

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
NOT_FOUND = 404
# Where a search for text stopped because one page may cost only so much.
SEARCHED_TO = "X-Darner-Searched-To"
# What a page lacks, in a sentence.
INCOMPLETE = "X-Darner-Incomplete"
LEASE_WAIT_S = 20.0
STREAM_SILENCE_S = 45.0
RECONNECT_FOR_S = 60.0
ERROR_OF_STATUS: Mapping[int, type[DarnerError]] = {
    400: InvalidInputError,
    401: UnauthenticatedError,
    403: DeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    422: InvalidInputError,
    429: UnavailableError,
    502: UnavailableError,
    503: UnavailableError,
    504: TimedOutError,
    507: StorageFullError,
}


class NoRouteError(NotFoundError):
    """The manager has no such route: it is another version, or one of its parts is not configured."""


class ManagerRest:  # size: one method per question; each is a line or two
    """One manager at `http://host:port`. Make and use it within one event loop."""

    def __init__(self, base_url: str, token: Secret | None = None) -> None:
        """Connects on first use. Raises InvalidInputError for something that is no http URL."""
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in {"http", "https"} or not url.host:
            raise InvalidInputError(
                f"{base_url!r} is not a manager's URL; expected something like http://host:8080", field="manager"
            )
        self.base_url = base_url.rstrip("/")
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        # A proxy of the environment is for the world outside, never for this machine.
        self._http = httpx.AsyncClient(
            base_url=self.base_url, headers=headers, timeout=timeout, trust_env=not _is_loopback(url.host), follow_redirects=False
        )
        self.retention = RetentionRest(self._ask)

    async def close(self) -> None:
        """End all connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Whether the manager answers that it is there. Never raises."""
        try:
            return (await self._http.get("/healthy")).is_success
        except httpx.HTTPError:
            return False

    # Jobs.

    async def create_job(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Json:
        """Create a job from upstream's envelope; the job as it is then."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return one_object(await self._ask("POST", "/api/v1/jobs", body=body, headers=headers))

    async def list_jobs(self, **filters: Any) -> list[Json]:  # noqa: ANN401
        """A page of jobs, newest first; filters as in `GET /api/v1/jobs`."""
        return objects(await self._ask("GET", "/api/v1/jobs", query=filters))

    async def walk_jobs(
        self,
        limit: int,
        *,
        missing: Callable[[str], None],
        **filters: Any,  # noqa: ANN401
    ) -> AsyncGenerator[list[Json], None]:
        """Jobs, newest first, in pages; filters as in `GET /api/v1/jobs`. A search for text is carried on to its end.

        `missing` hears what a page lacks, as when the archive does not answer.
        """
        left, before = limit, None
        while left > 0:
            query = {**filters, "per_page": left, **({"before_id": before} if before else {})}
            response = await self._response("GET", "/api/v1/jobs", query=query)
            page = objects(self._decoded(response))
            if lacks := response.headers.get(INCOMPLETE):
                missing(lacks)
            yield page
            left, searched = left - len(page), response.headers.get(SEARCHED_TO, "")
            if not searched.isdigit():
                return
            before = int(searched)

    async def job(self, job_id: int, *, removed: bool = False) -> Json:
        """One job; `removed`: also one that lists do not show any more."""
        return one_object(await self._ask("GET", f"/api/v1/jobs/{job_id}", query=_also(removed=removed)))

    async def job_parts(self, job_id: int) -> list[Json]:
        """All parts of a job, with their hosts."""
        return await self._all(f"/api/v1/jobs/{job_id}/parts")

    async def job_events(self, job_id: int, *, removed: bool = False) -> list[Json]:
        """A job's timeline so far."""
        return await self._all(f"/api/v1/jobs/{job_id}/events", _also(removed=removed))

    async def cancel_job(self, job_id: int) -> Json:
        """Ask to stop a job."""
        return one_object(await self._ask("POST", f"/api/v1/jobs/{job_id}:cancel"))

    async def retry_job(self, job_id: int) -> Json:
        """A new job like an ended one."""
        return one_object(await self._ask("POST", f"/api/v1/jobs/{job_id}:retry"))

    async def hold_job(self, job_id: int, reason: str, until: str | None = None) -> Json:
        """Keep a job's record; `until`: RFC 3339, or a duration like `30d`."""
        return one_object(await self._ask("POST", f"/api/v1/jobs/{job_id}:hold", body={"reason": reason, "until": until}))

    async def release_job(self, job_id: int) -> Json:
        """Give a job's record back to the policy."""
        return one_object(await self._ask("POST", f"/api/v1/jobs/{job_id}:release"))

    async def restore_job(self, job_id: int) -> Json:
        """Bring a removed or archived job back; it is held from then on."""
        return one_object(await self._ask("POST", f"/api/v1/jobs/{job_id}:restore"))

    async def delete_job(self, job_id: int) -> None:
        """Remove the record of an ended job; for a while it can be restored."""
        await self._ask("DELETE", f"/api/v1/jobs/{job_id}")

    async def watch_job(self, job_id: int) -> AsyncGenerator[Json, None]:
        """The job whenever it changed, the last one as it ended. A manager that restarts meanwhile is waited for, a minute."""
        waits, lost_at = backoff(first_s=0.2, cap_s=2.0), None
        while True:
            try:
                async with aclosing(self._frames(f"/api/v1/jobs/{job_id}/events")) as frames:
                    async for kind, data in frames:
                        lost_at = None
                        if kind == "job":
                            yield data
                        elif kind == "end":
                            return
            except UnavailableError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > RECONNECT_FOR_S:
                    raise
            await asyncio.sleep(next(waits))

    # Fleet and tokens.

    async def fleet(self) -> Json:
        """`{clusters, schedulers, peers}`, peers with the seeds among them."""
        paths = {"clusters": "scheduler-clusters", "schedulers": "schedulers", "peers": "peers"}
        return {key: await self._pages(f"/api/v1/{path}") for key, path in paths.items()}

    async def create_token(self, name: str, scopes: Sequence[str], expires: str | None = None) -> Json:
        """A new token; the answer is the only one that holds its text."""
        body = {"name": name, "scopes": list(scopes), "expires": expires}
        return one_object(await self._ask("POST", "/api/v1/personal-access-tokens", body=body))

    async def tokens(self) -> list[Json]:
        """All tokens, without their texts."""
        return objects(await self._ask("GET", "/api/v1/personal-access-tokens"))

    async def revoke_token(self, token_id: int) -> None:
        """From now on the token is refused."""
        await self._ask("DELETE", f"/api/v1/personal-access-tokens/{token_id}")

    # Work.

    async def lease(self, *, worker: str, cluster_id: int, limit: int) -> list[PartOrder]:
        """Take up to `limit` parts; waits up to LEASE_WAIT_S for one."""
        body = {"worker": worker, "cluster_id": cluster_id, "max": limit, "wait_s": LEASE_WAIT_S}
        answer = one_object(await self._ask("POST", "/api/v1/worker/leases", body=body, timeout_s=LEASE_WAIT_S + READ_TIMEOUT_S))
        return [order_from_json(order) for order in answer.get("leases", [])]

    async def progress(self, lease_id: str, report: WorkReport) -> Verdict:
        """Renew a lease and tell how far the part is."""
        return await self._report(lease_id, "progress", report)

    async def finish(self, lease_id: str, report: WorkReport) -> Verdict:
        """Tell how a part ended. May be repeated."""
        return await self._report(lease_id, "finish", report)

    async def put_hosts(self, cluster_id: int, hosts: Sequence[SeenHost]) -> None:
        """Tell which hosts a scheduler knows."""
        await self._ask("PUT", "/api/v1/worker/hosts", body={"cluster_id": cluster_id, "hosts": [asdict(host) for host in hosts]})

    async def _report(self, lease_id: str, how: str, report: WorkReport) -> Verdict:
        answer = one_object(await self._ask("POST", f"/api/v1/worker/leases/{lease_id}/{how}", body=report_to_json(report)))
        return Verdict(accepted=bool(answer.get("accepted")), cancel=bool(answer.get("cancel")))

    async def _all(self, path: str, more: Mapping[str, Any] | None = None, *, limit: int = 1000) -> list[Json]:
        found: list[Json] = []
        while True:
            query = {**(more or {}), "limit": limit, "after_id": found[-1]["id"] if found else 0}
            page = objects(await self._ask("GET", path, query=query))
            found += page
            if len(page) < limit:
                return found

    async def _pages(self, path: str, *, per_page: int = 1000) -> list[Json]:
        found: list[Json] = []
        while True:
            query = {"page": len(found) // per_page + 1, "per_page": per_page}
            page = objects(await self._ask("GET", path, query=query))
            found += page
            if len(page) < per_page:
                return found

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:  # noqa: ANN401
        response = await self._response(method, path, body=body, query=query, headers=headers, timeout_s=timeout_s)
        return self._decoded(response)

    async def _response(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._http.request(method, path, json=body, params=query, headers=headers, timeout=timeout)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if not response.is_success:
            raise error_of(response)
        return response

    def _decoded(self, response: httpx.Response) -> Any:  # noqa: ANN401
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            path = response.url.path
            raise UnavailableError(f"{self.base_url} answered {path} with something that is not JSON; is it a manager?") from error

    def _unreachable(self, error: httpx.HTTPError) -> DarnerError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return UnavailableError(f"the manager at {self.base_url} took too long to answer")
        return UnavailableError(
            f"the manager at {self.base_url} does not answer ({str(error) or type(error).__name__}); is it running?"
        )

    async def _frames(self, path: str) -> AsyncGenerator[tuple[str, Json], None]:
        headers = {"Accept": "text/event-stream"}
        timeout = httpx.Timeout(STREAM_SILENCE_S, connect=CONNECT_TIMEOUT_S)
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                kind = "message"
                async for line in response.aiter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        yield kind, one_object(json.loads(value))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error


def error_of(response: httpx.Response) -> DarnerError:
    """The DarnerError of an answer that is no success, with the manager's own sentence when it has one."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    told = body.get("detail") or body.get("message")
    if response.status_code == NOT_FOUND and told == "Not Found":  # no route, in the framework's words
        return NoRouteError(f"this manager does not know {response.url.path}: it is another version, or has no such part")
    message = told if isinstance(told, str) and told else f"the manager answered {response.status_code} to {response.url.path}"
    fields = body.get("errors")
    field = fields[0].get("field") if isinstance(fields, list) and fields and isinstance(fields[0], dict) else None
    return ERROR_OF_STATUS.get(response.status_code, DarnerError)(message, field=field if isinstance(field, str) else None)


def _also(*, removed: bool) -> Json:
    return {"tier": [tier.word for tier in Tier]} if removed else {}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
