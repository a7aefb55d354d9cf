"""Jobs POSTed to a URL, as lines of JSON or as an array. An answer with 2xx, read to its end, acknowledges them."""

import asyncio
import gzip
import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from darner.core.errors import DarnerError
from darner.core.secret import MASK, Secret
from darner.core.task import Headers
from darner.net.guard import TRUSTING
from darner.net.http import GuardedSession, SessionReply, SessionSettings, open_session
from darner.retention.export.config import SinkConfig
from darner.retention.export.ports import Limits, RefusedError, SinkAwayError
from darner.retention.export.values import Document

_CONNECT_S = 10.0
_BODY_LIMIT = 64 * 1024
_SHOWN = 200
_FILE_LIMIT = 16 * 1024
_OK, _REDIRECTS, _BAD, _BROKEN = 200, 300, 400, 500
# What another document would be told as well.
_NOBODY = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}
_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class WebhookSink:
    """One POST per batch, over connections that stay open."""

    def __init__(self, config: SinkConfig, limits: Limits) -> None:
        """Of a configuration that was checked."""
        self._config = config
        self._limits = limits
        self._stack = AsyncExitStack()
        self._session: GuardedSession | None = None

    @property
    def limits(self) -> Limits:
        """As configured."""
        return self._limits

    async def deliver(self, batch: Sequence[Document]) -> None:
        """POST a batch."""
        authorization = await asyncio.to_thread(self._authorization)
        body = await asyncio.to_thread(self._body, batch)
        header = self._header(batch, authorization)
        try:
            session = await self._open()
            async with session.request("POST", self._config.url, header, body=body, follow=False) as reply:
                said = await self._read(reply)
                self._judge(reply, self._masked(said, authorization))
        except (SinkAwayError, RefusedError):
            raise
        except DarnerError as error:
            raise SinkAwayError(f"{error.message.rstrip('.')}.") from error

    async def close(self) -> None:
        """Close the connections."""
        self._session = None
        await self._stack.aclose()

    async def _open(self) -> GuardedSession:
        if self._session is None:
            settings = SessionSettings(
                policy=TRUSTING,
                ca_file=self._config.ca_file,
                connect_timeout_s=min(_CONNECT_S, self._config.timeout_s),
                read_timeout_s=self._config.timeout_s,
                total_timeout_s=self._config.timeout_s,
                connections=1,
            )
            self._session = await self._stack.enter_async_context(open_session(settings))
        return self._session

    def _body(self, batch: Sequence[Document]) -> bytes:
        if self._config.format == "array":
            body = b"[" + b",\n".join(one.body for one in batch) + b"]"
        else:
            body = b"".join(one.body + b"\n" for one in batch)
        return gzip.compress(body, compresslevel=5, mtime=0) if self._config.gzip else body

    def _header(self, batch: Sequence[Document], authorization: Secret | None) -> Headers:
        """The configured headers last: they may replace ours."""
        kind = "application/json" if self._config.format == "array" else "application/x-ndjson"
        keys = hashlib.sha256("\n".join(one.key for one in batch).encode()).hexdigest()
        ours = {"Content-Type": kind, "Idempotency-Key": keys[:32], "User-Agent": "darner", "Accept": "*/*"}
        if self._config.gzip:
            ours["Content-Encoding"] = "gzip"
        if authorization is not None:
            ours["Authorization"] = authorization.reveal()
        given = {name.lower() for name in self._config.headers}
        more = {name: value.reveal() for name, value in self._config.headers.items()}
        return Headers({**{name: value for name, value in ours.items() if name.lower() not in given}, **more})

    def _authorization(self) -> Secret | None:
        """From the file, read anew, so that a new token needs no restart."""
        path = self._config.authorization_file
        if path is None:
            return self._config.authorization
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_LIMIT).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not plain text"
            raise SinkAwayError(f"The file {path} with the Authorization header cannot be read ({reason}).") from error
        if not text or "\n" in text or "\r" in text:
            raise SinkAwayError(f"The file {path} must hold the Authorization header in one line.")
        return Secret(text)

    async def _read(self, reply: SessionReply) -> bytes:
        """The answer, as far as it matters. One that breaks off acknowledges nothing: what follows may be an error."""
        found = bytearray()
        async for chunk in reply.chunks(_BODY_LIMIT):
            found += chunk
            if len(found) >= _BODY_LIMIT:
                break
        return bytes(found)

    def _judge(self, reply: SessionReply, said: str) -> None:
        """Return for 2xx, else raise. What it said is shown, because people need it to find out why."""
        status = reply.status
        if _OK <= status < _REDIRECTS:
            return
        answer = f"It answered {status} {_reason(status)}{f': {said}' if said else ''}."
        if _REDIRECTS <= status < _BAD:
            raise SinkAwayError(f"{answer} Redirects are not followed; set the URL that it leads to.")
        if _BAD <= status < _BROKEN and status not in _LATER and status not in _NOBODY:
            raise RefusedError(answer)
        raise SinkAwayError(answer, retry_after_s=_retry_after(reply.header))

    def _masked(self, said: bytes, authorization: Secret | None) -> str:
        """An answer in one line, without the secrets that we sent: some servers send them back."""
        text = said[: _SHOWN * 8].decode("utf-8", "replace")
        sent = [*self._config.headers.values(), *([authorization] if authorization is not None else [])]
        for secret in sent:
            for word in {secret.reveal(), *secret.reveal().split()}:
                if len(word) >= 4:  # noqa: PLR2004  (shorter ones tell nothing, and are in every text)
                    text = text.replace(word, MASK)
        return "".join(char if char.isprintable() else " " for char in text)[:_SHOWN].strip()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(an unknown status)"


def _retry_after(header: Headers) -> float | None:
    """Seconds, from a number or a date; a date is compared with the server's own clock."""
    text = (header.find("retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
        sent = header.find("date")
        now = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
        return max(0.0, (at - now).total_seconds())
    except (TypeError, ValueError):
        return None
