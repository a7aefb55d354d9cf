"""Who is asking: `require(scope)` for every route, and the routes for tokens (spec/manager.md, 4).

In: `Authorization: Bearer` or `X-Darner-Token`. Out: a Principal. 401 without a valid token, 403 without the scope. The text of a
token is in the answer to its creation and nowhere else; upstream returns it in lists as well.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from darner.access.tokens import SCOPES, Principal, TokenRecord, TokenService
from darner.core.errors import DeniedError, InvalidInputError, UnauthenticatedError
from darner.kit.moments import rfc3339
from darner.kit.units import parse_duration

_PATH = "/api/v1/personal-access-tokens"


def require(scope: str, *more: str) -> Callable[[Request], Awaitable[Principal]]:
    """A FastAPI dependency: the principal, who has `scope` or one of `more`. The service is `request.app.state.tokens`."""

    async def principal(request: Request) -> Principal:
        found = await authenticate(request)
        if not any(found.allows(one) for one in (scope, *more)):
            needed = " or ".join((scope, *more))
            raise DeniedError(
                f"The token {found.name!r} has no scope {needed}; make one with `darner token create --scope {scope}`."
            )
        request.state.principal = found
        return found

    return principal


async def authenticate(request: Request) -> Principal:
    """Who is asking; found once per request. Raises UnauthenticatedError."""
    known: Principal | None = getattr(request.state, "caller", None)
    if known is not None:
        return known
    text = token_of(request.headers.get("authorization", ""), request.headers.get("x-darner-token", ""))
    tokens: TokenService = request.app.state.tokens
    found = await tokens.authenticate(text) if text else None
    if found is None:
        said = "The token is unknown, expired or revoked." if text else "No token was given: send Authorization: Bearer TOKEN."
        raise UnauthenticatedError(said)
    request.state.caller = found
    return found


def token_of(authorization: str, own_header: str = "") -> str:
    """The token in an Authorization header, else in `X-Darner-Token`; empty if there is none."""
    kind, _, value = authorization.partition(" ")
    return value.strip() if kind.lower() == "bearer" and value.strip() else own_header.strip()


class NewToken(BaseModel):
    """A token to be made. `expired_at` as upstream, or `expires` as a duration (`90d`); without both it does not expire."""

    model_config = ConfigDict(extra="ignore")

    name: str
    scopes: list[str] = Field(default_factory=list)
    bio: Annotated[str, Field(max_length=1024)] = ""
    expired_at: Annotated[datetime | None, Field(validation_alias=AliasChoices("expired_at", "expires_at"))] = None
    expires: str | None = None


def router() -> APIRouter:
    """Create, list, show and revoke tokens; all need scope `admin`."""
    api = APIRouter(prefix=_PATH, tags=["personal access tokens"])
    admin = Annotated[Principal, Depends(require("admin"))]

    @api.post("")
    async def create(body: NewToken, request: Request, principal: admin) -> dict[str, Any]:
        tokens: TokenService = request.app.state.tokens
        expires_at = _expiry(body)
        record, secret = await tokens.create(body.name, body.scopes, expires_at, bio=body.bio, created_by=principal.name)
        return {**shown(record), "token": secret.reveal()}

    @api.get("")
    async def ls(request: Request, _: admin) -> list[dict[str, Any]]:
        tokens: TokenService = request.app.state.tokens
        return [shown(record) for record in await tokens.ls()]

    @api.get("/{token_id}")
    async def get(token_id: int, request: Request, _: admin) -> dict[str, Any]:
        tokens: TokenService = request.app.state.tokens
        return shown(await tokens.get(token_id))

    @api.delete("/{token_id}")
    async def revoke(token_id: int, request: Request, _: admin) -> None:
        tokens: TokenService = request.app.state.tokens
        await tokens.revoke(token_id)

    @api.get("/-/scopes")
    async def scopes(_: admin) -> list[str]:
        return list(SCOPES)

    return api


def _expiry(body: NewToken) -> int | None:
    """Unix milliseconds."""
    if body.expires is not None:
        try:
            seconds = parse_duration(body.expires)
        except ValueError as error:
            raise InvalidInputError(str(error), field="expires") from error
        return int((datetime.now(tz=UTC).timestamp() + seconds) * 1000)
    if body.expired_at is None:
        return None
    moment = body.expired_at if body.expired_at.tzinfo else body.expired_at.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def shown(record: TokenRecord) -> dict[str, Any]:
    """A token as upstream shows it, without its text, and with Darner's own fields."""
    now_ms = int(datetime.now(tz=UTC).timestamp() * 1000)
    return {
        "id": record.id,
        "name": record.name,
        "bio": record.bio,
        "prefix": record.prefix,
        "scopes": list(record.scopes),
        "state": "active" if record.active(now_ms) else "inactive",
        "created_by": record.created_by,
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.revoked_at or record.created_at),
        "expired_at": rfc3339(record.expires_at),
        "last_used_at": rfc3339(record.last_used_at),
        "revoked_at": rfc3339(record.revoked_at),
    }
