"""Words that the shell completes. What only the manager knows is asked for briefly; one that does not answer gives none."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from darner.core.errors import DarnerError
from darner.core.job import END_STATES, DetailState, Importance, JobType, State, Tier

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

ASKED_S = 1.5
IMPORTANCES = tuple(one.word for one in (Importance.LOW, Importance.NORMAL, Importance.HIGH, Importance.CRITICAL))
TIERS = tuple(one.word for one in Tier)


def presets(incomplete: str) -> list[str]:
    """Names of presets."""
    return _fitting(_asked(lambda api: api.retention.presets(), "name"), incomplete)


def rules(incomplete: str) -> list[str]:
    """Names of rules of the policy in force."""

    async def question(api: "ManagerRest") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await api.retention.policy())["rules"]
        return found

    return _fitting(_asked(question, "name"), incomplete)


def tiers(incomplete: str) -> list[str]:
    """Tiers."""
    return _fitting(list(TIERS), incomplete)


def states(incomplete: str) -> list[str]:
    """Upstream's states, and detail states."""
    words = [*State.__members__, *DetailState.__members__]
    return _fitting(list(dict.fromkeys(words)), incomplete.upper())


def end_states(incomplete: str) -> list[str]:
    """States in which a job has ended."""
    return _fitting(sorted(END_STATES), incomplete.upper())


def types(incomplete: str) -> list[str]:
    """Types of jobs."""
    return _fitting([str(one) for one in JobType], incomplete)


def importances(incomplete: str) -> list[str]:
    """How much a job may matter."""
    return _fitting(list(IMPORTANCES), incomplete)


def bases(incomplete: str) -> list[str]:
    """What ages are counted from."""
    return _fitting(["finished", "created"], incomplete)


def _fitting(words: list[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _asked(question: "Callable[[ManagerRest], Awaitable[list[dict[str, Any]]]]", key: str) -> list[str]:
    import asyncio

    import httpx

    from darner.app.cli.globals import Globals

    async def ask() -> list[str]:
        from darner.client.rest import ManagerRest

        options = Globals()
        client = ManagerRest(options.manager_url(), options.manager_token())
        try:
            async with asyncio.timeout(ASKED_S):
                return [str(one[key]) for one in await question(client)]
        finally:
            await client.close()

    with contextlib.suppress(DarnerError, TimeoutError, OSError, KeyError, httpx.HTTPError):
        return asyncio.run(ask())
    return []
