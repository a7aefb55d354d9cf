"""GETs to one registry: log in when asked, retry what may pass, never read more than the cap."""

import asyncio
from dataclasses import dataclass

from darner import __version__
from darner.core.errors import OriginError
from darner.core.secret import Secret
from darner.core.task import Headers
from darner.core.url import redacted
from darner.kit.retry import backoff
from darner.net.errors import NetError
from darner.net.http import GuardedSession
from darner.registry.auth import Credentials, Grant, parse_challenges, parse_token, token_url
from darner.registry.reference import ImageRef

OK, UNAUTHORIZED = 200, 401
RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
MAX_TOKEN_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
RETRY_AFTER_CAP_S = 30.0
_ADVICE = {
    401: "it wants a login; give a user name and password, or a valid Authorization header",
    403: "access is denied; check that the user may pull from this repository",
    404: "there is no such image; check repository and tag",
    429: "it wants fewer requests; try again later or log in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer in memory."""

    status: int
    header: Headers
    body: bytes


class Transport:
    """Requests to the registry of one image."""

    def __init__(
        self,
        ref: ImageRef,
        session: GuardedSession,
        *,
        credentials: Credentials | None,
        header: Headers,
        insecure: bool,
        max_retries: int,
    ) -> None:
        """An Authorization in `header` is used as it is; else `credentials`, or none, answer the registry's challenge."""
        self._ref, self._session, self._credentials = ref, session, credentials
        ready = header.find("authorization")
        self._ready_made = ready is not None
        self.grant: Grant | None = Grant(authorization=Secret(ready)) if ready else None
        self._header = header.without("authorization")
        self._insecure, self._max_retries = insecure, max_retries
        self._login = asyncio.Lock()

    async def get(self, url: str, *, accept: str, max_bytes: int, what: str) -> Answer:
        """GET with login and retries. Raises OriginError, NetError, ForbiddenAddressError."""
        used = self.grant
        answer = await self._get_retrying(url, accept, max_bytes, used, what)
        if answer.status == UNAUTHORIZED and not self._ready_made:
            async with self._login:
                if self.grant is used:
                    self.grant = await self._answer_challenge(answer)
            answer = await self._get_retrying(url, accept, max_bytes, self.grant, what)
        if answer.status != OK:
            raise _status_error(answer, url, what)
        return answer

    async def _get_retrying(self, url: str, accept: str, max_bytes: int, grant: Grant | None, what: str) -> Answer:
        header = Headers({**self._header, "Accept": accept})
        if grant is not None:
            header["Authorization"] = grant.authorization.reveal()
        waits = backoff(first_s=0.2, cap_s=5.0)
        for left in range(self._max_retries, -1, -1):
            wait = next(waits)
            try:
                answer = await self._get_once(url, header, max_bytes, what)
            except NetError as error:
                if not (error.retryable and left):
                    raise
            else:
                if answer.status not in RETRYABLE or not left:
                    return answer
                wait = max(wait, _retry_after_s(answer.header))
            await asyncio.sleep(wait)
        raise AssertionError  # the last attempt returns or raises

    async def _get_once(self, url: str, header: Headers, max_bytes: int, what: str) -> Answer:
        sent = Headers({"User-Agent": f"darner/{__version__}", "Accept-Encoding": "identity", **header})
        async with self._session.request("GET", url, sent, insecure=self._insecure) as response:
            body = bytearray()
            if response.status == OK:
                async for chunk in response.chunks(CHUNK_BYTES):
                    body += chunk
                    if len(body) > max_bytes:
                        message = f"the {what} {redacted(url)} is larger than the {max_bytes} bytes that are allowed"
                        raise OriginError(message, status=response.status)
            return Answer(status=response.status, header=response.header, body=bytes(body))

    async def _answer_challenge(self, answer: Answer) -> Grant | None:
        challenges = {each.scheme: each for each in parse_challenges(answer.header.find("www-authenticate") or "")}
        if "bearer" in challenges:
            url = token_url(
                challenges["bearer"],
                registry_scheme=self._ref.scheme,
                repository=self._ref.repository,
                has_credentials=self._credentials is not None,
            )
            login = Grant(authorization=self._credentials.basic()) if self._credentials else None
            token = await self._get_retrying(url, "application/json", MAX_TOKEN_BYTES, login, "token")
            if token.status != OK:
                raise _status_error(token, url, "token")
            return parse_token(token.body, url)
        if "basic" in challenges and self._credentials is not None:
            return Grant(authorization=self._credentials.basic())
        raise _status_error(answer, self._ref.url, "manifest")


def _retry_after_s(header: Headers) -> float:
    text = header.find("retry-after") or ""
    return min(float(text[:9]), RETRY_AFTER_CAP_S) if text.isascii() and text.isdigit() else 0.0


def _status_error(answer: Answer, url: str, what: str) -> OriginError:
    advice = _ADVICE.get(answer.status, "try again later" if answer.status in RETRYABLE else "this was not expected")
    message = f"the registry answered {answer.status} for the {what} {redacted(url)}: {advice}"
    shown = answer.header.without(
        "set-cookie", "location", "link", "content-length", "transfer-encoding", "connection", "keep-alive"
    )
    return OriginError(message, status=answer.status, header=shown, retryable=answer.status in RETRYABLE)
