"""The manager's HTTP application: the rooms' routers, the open routes, errors in one form.

Open without a token are only the health routes, which return no data; every router asks `access` who is asking.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI

from darner import __version__
from darner.access import SCOPES, Principal, TokenService, require
from darner.app import problems
from darner.app.border import Border, storable

OPEN_ROUTES = ("/healthy", "/health", "/_ping")


def build_app(tokens: TokenService, routers: Sequence[APIRouter]) -> FastAPI:
    """The application. `tokens` is what `require` asks."""
    app = FastAPI(
        title="Darner manager",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(storable)],
    )
    app.state.tokens = tokens
    app.add_middleware(Border)  # before the errors' form is installed, so that it runs inside of it
    problems.install(app)
    for path in OPEN_ROUTES:
        app.add_api_route(path, _healthy, methods=["GET"], tags=["health"], summary="The manager answers")
    for router in routers:
        app.include_router(router)
    anybody = require(SCOPES[0], *SCOPES[1:])

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(_: Annotated[Principal, Depends(anybody)]) -> dict[str, Any]:
        return app.openapi()

    return app


async def _healthy() -> str:
    return "OK"
