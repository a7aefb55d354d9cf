"""How the manager's HTTP answers look when something is wrong: `application/problem+json` with field paths and a request id.

Upstream's clients look for `message` and `errors`; both are there. An unexpected error is logged with its request id and answered
without its text, which may hold anything.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from darner.core.errors import DarnerError
from darner.kit.log import get_logger

STATUS = {
    "invalid": 422,
    "not_found": 404,
    "conflict": 409,
    "denied": 403,
    "unauthenticated": 401,
    "unavailable": 503,
    "timed_out": 504,
    "origin": 502,
    "peer": 502,
    "digest_mismatch": 502,
    "storage_full": 507,
    "forbidden_address": 422,
}
REQUEST_ID_HEADER = "X-Request-ID"
MAX_REQUEST_ID = 64
_log = get_logger("manager")


def install(app: FastAPI) -> None:
    """Give every request an id, and every error its form."""
    app.add_middleware(RequestIds)
    app.add_exception_handler(DarnerError, _on_darner_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)


class RequestIds:
    """ASGI middleware: every request has an id, every answer carries it, and an unexpected error becomes a 500 that names it.

    Plain ASGI, so that streams of events pass through unbuffered.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.get(REQUEST_ID_HEADER, "")
        usable = given.isascii() and given.isprintable() and 0 < len(given) <= MAX_REQUEST_ID
        request.state.request_id = given if usable else secrets.token_hex(8)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request.state.request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            _log.exception("request failed", request_id=request.state.request_id, method=request.method, path=request.url.path)
            if started:
                raise
            said = "Something went wrong here; the log says what, under this request id."
            await problem(request, 500, said, [])(scope, receive, send_with_id)


async def _on_darner_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, DarnerError):
        raise error
    return refusal(request, error)


def refusal(request: Request, error: DarnerError) -> Response:
    """The answer that tells an error of ours."""
    fields = [{"field": error.field, "message": error.message}] if error.field else []
    response = problem(request, STATUS.get(error.kind, 500), error.message, fields)
    if error.kind == "unauthenticated":
        response.headers["WWW-Authenticate"] = 'Bearer realm="darner"'
    return response


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [
        {"field": ".".join(str(part) for part in one["loc"] if part not in {"body", "query", "path"}), "message": one["msg"]}
        for one in error.errors()
    ]
    said = "; ".join(f"{one['field']}: {one['message']}" for one in fields) or "the request is not valid"
    return problem(request, 422, said, fields)


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    response = problem(request, error.status_code, str(error.detail), [])
    response.headers.update(error.headers or {})
    return response


def problem(request: Request, status: int, said: str, fields: Sequence[dict[str, Any]]) -> Response:
    """One error answer. `errors` is upstream's text when no field is at fault, else the list of fields."""
    body = {
        "type": "about:blank",
        "title": said,
        "status": status,
        "detail": said,
        "message": said,
        "errors": list(fields) or said,
        "request_id": getattr(request.state, "request_id", ""),
    }
    return JSONResponse(body, status_code=status, media_type="application/problem+json")
