"""What the client asks about retention is what the manager answers: same routes, same parameters."""

import re
from collections.abc import Mapping
from typing import Any, cast

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from darner.client.retention import RetentionRest
from darner.retention.rest import router

PREFIX = "/api/v1/retention"


class Asked:
    """Remembers what was asked, and answers as a manager with nothing in it."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str, object, Mapping[str, Any]]] = []

    async def __call__(
        self, method: str, path: str, *, body: object = None, query: Mapping[str, Any] | None = None, timeout_s: float = 30.0
    ) -> Any:
        del timeout_s
        self.requests.append((method, path, body, dict(query or {})))
        return self.answer


@pytest.fixture(scope="module")
def routes() -> list[APIRoute]:
    part = cast("Any", object())
    made: APIRouter = router(part, growth=part, exporter=part, archive=part)
    return [route for route in made.routes if isinstance(route, APIRoute)]


def route_of(routes: list[APIRoute], method: str, path: str) -> APIRoute:
    fitting = [route for route in routes if method in (route.methods or ()) and route.path_regex.fullmatch(path)]
    assert fitting, f"the manager has no {method} {path}"
    return fitting[0]


async def all_requests() -> list[tuple[str, str, object, Mapping[str, Any]]]:
    one, many = Asked({}), Asked([])
    single, listing = RetentionRest(one), RetentionRest(many)
    change = {"reason": "r", "base_version": 3, "preview_token": "t"}
    for question in (
        single.policy(), single.policy(4), single.set_policy({"keep": "36h"}, **change), single.set_policy({"preset": "frugal"}),
        single.diff(2), single.diff(2, 5), single.rollback(2, **change), single.preset("frugal"), single.preview(),
        single.preview({"preset": "frugal"}), single.preview({"policy": {"keep": "36h"}}), single.preview({"version": 3}),
        single.import_policy({"job": {}}), single.run(dry_run=False, accept_clock=True, preview_token="t", yes=True),
        single.one_run(7), single.cancel_run(7), single.confirm_run(7), single.pause("why"), single.resume(), single.status(),
        single.window(), single.set_window("22:00-06:00", "UTC"), single.set_window(None, "UTC"),
        single.add_hold(job_id=5, match=None, reason="r", until="2099-01-01T00:00:00Z"), single.remove_hold(8), single.restore(5),
        single.add_hold(job_id=None, match={"tags": ["t"]}, reason="r", until=None),
        single.growth(), single.growth("90d"), single.budget(), single.set_budget(budget="none", shorten=None, reason=""),
        single.archive(), single.erase([5, 6], "r"), single.retry_export("siem"), single.drop_export("siem"),
        single.resend_export("siem", "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"),
        listing.versions(limit=5), listing.presets(), listing.suggestions(), listing.runs(limit=5), listing.batches(7, limit=5),
        listing.holds(), listing.segments(limit=5), listing.exports(),
    ):  # fmt: skip
        await question
    return [*one.requests, *many.requests]


async def test_every_request_has_a_route(routes: list[APIRoute]) -> None:
    for method, path, _, _ in await all_requests():
        route_of(routes, method, path)


async def test_every_field_and_parameter_is_known_to_its_route(routes: list[APIRoute]) -> None:
    for method, path, body, query in await all_requests():
        route = route_of(routes, method, path)
        known = {one.alias for one in route.dependant.query_params}
        assert set(query) <= known, f"{method} {path}: {query}"
        if body is not None and route.body_field is not None:
            fields = _fields(route)
            assert set(cast("dict[str, Any]", body)) <= fields, f"{method} {path}: {body}"


def _fields(route: APIRoute) -> set[str]:
    found: set[str] = set()
    for parameter in route.dependant.body_params:
        annotation = parameter.field_info.annotation
        for kind in getattr(annotation, "__args__", (annotation,)):
            found |= set(getattr(kind, "model_fields", {}))
    return found


async def test_names_in_paths_are_escaped() -> None:
    asked = Asked({})
    await RetentionRest(asked).preset("../policy?x=/")
    assert re.fullmatch(rf"{PREFIX}/presets/[^/?]+", asked.requests[0][1])


async def test_long_lists_are_walked_to_the_limit() -> None:
    class Pages(Asked):
        async def __call__(self, method: str, path: str, **more: Any) -> Any:
            await super().__call__(method, path, **more)
            query = more["query"]
            first = query.get("before", 1_001) - 1
            return [{"id": number} for number in range(first, max(first - query["limit"], 0), -1)]

    found = await RetentionRest(Pages(None)).runs(limit=450)
    assert [one["id"] for one in found] == list(range(1000, 550, -1))
    assert len(await RetentionRest(Pages(None)).runs(limit=5_000)) == 1000
