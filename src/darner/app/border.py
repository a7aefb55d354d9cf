"""What stands before every route of the manager: strangers, floods and values that no database takes are turned away here.

`Border` reads headers only: whoever sends a body shows a token first, and no body is larger than MAX_BODY_BYTES. `storable` looks
at the values: texts with NUL or half a surrogate pair, whole numbers beyond 64 bits, numbers that are not finite.
"""

import math
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darner.access import authenticate
from darner.app.problems import problem, refusal
from darner.core.errors import DarnerError, InvalidInputError, NotFoundError

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_INTEGER = 2**63 - 1
TOO_LARGE = f"The request's body is larger than {MAX_BODY_BYTES // 1024**2} MiB."
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Border:
    """ASGI middleware; answers by itself when a request must not come in."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or (scope["method"] in _BODILESS and not _announces_body(scope)):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            await authenticate(request)
        except DarnerError as error:
            await refusal(request, error)(scope, receive, send)
            return
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
            await problem(request, 413, TOO_LARGE, [])(scope, receive, send)
            return
        taken = 0

        async def receive_capped() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, receive_capped, send)


def _announces_body(scope: Scope) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])


async def storable(request: Request) -> None:
    """A dependency of every route. Raises InvalidInputError naming the value, NotFoundError for an id that cannot be one."""
    try:
        _check_path(request)
        _check_values(dict(request.query_params), "query")
        if request.method not in _BODILESS and "json" in request.headers.get("content-type", ""):
            _check_values(await _document(request), "")
    except DarnerError:
        await authenticate(request)  # a stranger is told nothing but that
        raise


async def _document(request: Request) -> Any:  # noqa: ANN401
    try:
        return await request.json()
    except (ValueError, RecursionError):
        return None  # the route says it in its own words


def _check_path(request: Request) -> None:
    for name, value in request.path_params.items():
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) < _LONG and int(text) > MAX_INTEGER:
            raise NotFoundError(f"{name}: there is nothing with the number {text[:40]}")
        if (flaw := _flaw(value)) is not None:
            raise NotFoundError(f"{name}: {flaw}")


_LONG = 4000
"""Digits that Python turns into a number at all."""


def _check_values(document: Any, where: str) -> None:  # noqa: ANN401
    waiting = [(where, document)]
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{at}.{key}".strip("."), inner) for key, inner in value.items()]
            waiting += [(at, key) for key in value]
        elif isinstance(value, list):
            waiting += [(f"{at}.{index}".strip("."), inner) for index, inner in enumerate(value)]
        elif (flaw := _flaw(value)) is not None:
            field = at.encode("ascii", "replace").decode()[:200]
            raise InvalidInputError(f"{field or 'the body'}: {flaw}", field=field or None)


def _flaw(value: Any) -> str | None:  # noqa: ANN401
    """Why a value cannot be stored, or None."""
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
        return "expected a text without NUL and without halves of surrogate pairs"
    if isinstance(value, int) and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        return "expected a whole number of at most 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a number that is finite"
    return None
