"""How a command talks to the manager: one client for the length of the command."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from darner.app.cli.globals import Globals
from darner.app.cli.run import wait_for

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

T = TypeVar("T")


def ask(context: typer.Context, question: "Callable[[ManagerRest], Awaitable[T]]") -> T:
    """Ask the manager one thing. Raises DarnerError."""
    options: Globals = context.obj

    async def run() -> T:
        from darner.client.rest import ManagerRest

        client = ManagerRest(options.manager_url(), options.manager_token())
        try:
            return await question(client)
        finally:
            await client.close()

    return wait_for(run())
