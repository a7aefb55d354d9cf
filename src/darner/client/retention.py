"""What the command line asks a manager about retention: one method per route of `/api/v1/retention`.

Flows in and out: JSON objects as the manager sends them. Errors are DarnerErrors with the manager's own sentence.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from darner.client.answers import Json, objects, one_object

_PREFIX = "/api/v1/retention"
# A preview or a dry run of a long history walks all of it.
_LONG_S = 600.0
_PAGE = 200


class Ask(Protocol):
    """One request to the manager; the decoded answer. Raises DarnerError."""

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        timeout_s: float = ...,
    ) -> Any:  # noqa: ANN401
        """Ask once."""


class RetentionRest:  # size: one method per question; each is a line or two
    """Retention of one manager."""

    def __init__(self, ask: Ask) -> None:
        """Ask through that client."""
        self._ask = ask

    # The policy.

    async def policy(self, version: int | None = None) -> Json:
        """The policy in force, or a version of it."""
        return await self._get("/policy" if version is None else f"/policies/{version}")

    async def set_policy(self, data: Mapping[str, Any], **change: Any) -> Json:  # noqa: ANN401
        """A new policy from `rules`, `keep` or a `preset`. `change`: reason, base_version, preview_token."""
        return await self._send("PUT", "/policy", {**data, **_given(change)})

    async def versions(self, *, limit: int) -> list[Json]:
        """Versions of the policy, newest first."""
        return await self._pages("/policies", "version", limit=limit)

    async def diff(self, version: int, to: int | None = None) -> Json:
        """What changed from a version to another (None: the one in force)."""
        return await self._get(f"/policies/{version}/diff", _given({"to": to}))

    async def rollback(self, version: int, **change: Any) -> Json:  # noqa: ANN401
        """A new version with the rules of an old one."""
        return await self._send("POST", f"/policies/{version}:rollback", _given(change))

    async def presets(self) -> list[Json]:
        """All presets."""
        return await self._list("/presets")

    async def preset(self, name: str) -> Json:
        """One preset."""
        return await self._get(f"/presets/{quote(name, safe='')}")

    async def preview(self, candidate: Mapping[str, Any] | None = None) -> Json:
        """What a `policy`, `preset` or `version` would do; without one, the policy in force."""
        return await self._send("POST", "/preview", candidate or {}, timeout_s=_LONG_S)

    async def suggestions(self, *, timeout_s: float = _LONG_S) -> list[Json]:
        """What might be better than the policy in force; each is previewed, so a long history takes a while."""
        return await self._list("/suggestions", timeout_s=timeout_s)

    async def import_policy(self, manager_yaml: Json) -> Json:
        """Make what an upstream manager.yaml says about retention the policy."""
        return await self._send("POST", "/policies:import", {"manager_yaml": manager_yaml})

    # Sweeps.

    async def run(self, **order: Any) -> Json:  # noqa: ANN401
        """Sweep now; answered when it is done, or still running after some seconds."""
        return await self._send("POST", "/runs", _given(order), timeout_s=_LONG_S)

    async def runs(self, *, limit: int) -> list[Json]:
        """Sweeps, newest first."""
        return await self._pages("/runs", "id", limit=limit)

    async def one_run(self, run_id: int) -> Json:
        """One sweep, with what it moved by rule."""
        return await self._get(f"/runs/{run_id}")

    async def batches(self, run_id: int, *, limit: int) -> list[Json]:
        """What the transactions of a sweep did, in their order; the first of them."""
        found: list[Json] = []
        while len(found) < limit:
            wanted = min(limit - len(found), _PAGE)
            page = await self._list(f"/runs/{run_id}/batches", {"after": found[-1]["id"] if found else 0, "limit": wanted})
            found += page
            if len(page) < wanted:
                break
        return found

    async def cancel_run(self, run_id: int) -> Json:
        """Let a running sweep end after its batch."""
        return await self._send("POST", f"/runs/{run_id}:cancel")

    async def confirm_run(self, run_id: int) -> Json:
        """Do what a held sweep would have removed."""
        return await self._send("POST", f"/runs/{run_id}:confirm", timeout_s=_LONG_S)

    async def pause(self, reason: str = "") -> Json:
        """No sweep by the clock until resumed."""
        return await self._send("POST", "/pause", {"reason": reason})

    async def resume(self) -> Json:
        """Let it sweep by the clock again."""
        return await self._send("POST", "/resume")

    async def status(self) -> Json:
        """What the sweeper does and did."""
        return await self._get("/status")

    async def window(self) -> Json:
        """When sweeps may remove."""
        return await self._get("/window")

    async def set_window(self, window: str | None, zone: str) -> Json:
        """Remove only in that span of the day; None: at any time."""
        return await self._send("PUT", "/window", {"window": window, "zone": zone})

    # Holds, and jobs brought back.

    async def holds(self) -> list[Json]:
        """All holds, oldest first."""
        found: list[Json] = []
        while True:
            page = await self._list("/holds", {"after": found[-1]["id"] if found else 0, "limit": _PAGE})
            found += page
            if len(page) < _PAGE:
                return found

    async def add_hold(self, **hold: Any) -> Json:  # noqa: ANN401
        """Keep a job (`job_id`) or all that match (`match`); `reason`, `until` (RFC 3339)."""
        return await self._send("POST", "/holds", _given(hold))

    async def remove_hold(self, hold_id: int) -> Json:
        """Let the policy decide again."""
        return await self._send("DELETE", f"/holds/{hold_id}")

    async def restore(self, job_id: int) -> Json:
        """Bring a deleted or archived job back; the hold that keeps it then."""
        return await self._send("POST", "/restore", {"job_id": job_id})

    # Room, archive, export.

    async def growth(self, since: str | None = None) -> Json:
        """How the history grows, and until when there is room."""
        return await self._get("/growth", _given({"since": since}))

    async def budget(self) -> Json:
        """How much room the history may take."""
        return await self._get("/budget")

    async def set_budget(self, **budget: Any) -> Json:  # noqa: ANN401
        """Set it."""
        return await self._send("PUT", "/budget", budget)

    async def archive(self) -> Json:
        """How much is in the archive, and what is wrong with it."""
        return await self._get("/archive")

    async def segments(self, *, limit: int) -> list[Json]:
        """The files of the archive, newest first."""
        return await self._pages("/archive/segments", "id", limit=limit)

    async def erase(self, ids: Sequence[int], reason: str) -> Json:
        """Take jobs out of the archive for good."""
        return await self._send("POST", "/archive/erase", {"ids": list(ids), "reason": reason}, timeout_s=_LONG_S)

    async def exports(self) -> list[Json]:
        """What waits for each sink."""
        return await self._list("/exports")

    async def retry_export(self, sink: str) -> Json:
        """Try again now what a sink refused."""
        return await self._send("POST", f"/exports/{quote(sink, safe='')}:retry")

    async def resend_export(self, sink: str, since: str, until: str) -> Json:
        """Tell a sink again what it acknowledged between two times (RFC 3339)."""
        return await self._send("POST", f"/exports/{quote(sink, safe='')}:resend", {"since": since, "until": until})

    async def drop_export(self, sink: str) -> Json:
        """Let nothing wait for a sink that is not configured any more."""
        return await self._send("DELETE", f"/exports/{quote(sink, safe='')}")

    async def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Json:
        return one_object(await self._ask("GET", _PREFIX + path, query=query))

    async def _list(self, path: str, query: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0) -> list[Json]:
        return objects(await self._ask("GET", _PREFIX + path, query=query, timeout_s=timeout_s))

    async def _send(self, method: str, path: str, body: object = None, *, timeout_s: float = 30.0) -> Json:
        return one_object(await self._ask(method, _PREFIX + path, body=body, timeout_s=timeout_s))

    async def _pages(self, path: str, key: str, *, limit: int) -> list[Json]:
        """A list that is walked by `before`, newest first."""
        found: list[Json] = []
        while len(found) < limit:
            wanted = min(limit - len(found), _PAGE)
            page = await self._list(path, _given({"before": found[-1][key] if found else None, "limit": wanted}))
            found += page
            if len(page) < wanted:
                break
        return found


def _given(values: Mapping[str, Any]) -> Json:
    return {key: value for key, value in values.items() if value is not None}
