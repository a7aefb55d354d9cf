from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.retention.history import History

from darner.access import TokenService
from darner.app import problems
from darner.retention.engine import RetentionEngine
from darner.retention.growth.config import GrowthConfig
from darner.retention.growth.growth import Growth
from darner.retention.rest import router
from darner.retention.rest.growth import metrics
from darner.testing.clock import VirtualClock


class Manager:
    """The routes of growth, with a client for each scope."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.growth = Growth(history.db, clock=VirtualClock(), config=GrowthConfig(reserve_bytes=0))
        self.engine = RetentionEngine(history.db)
        self.app = FastAPI()
        self.tokens = TokenService(history.db)
        self.app.state.tokens = self.tokens
        problems.install(self.app)
        self.app.include_router(router(self.engine, growth=self.growth))
        self.app.include_router(metrics([self.engine.meters.registry, self.growth.meters.registry]))

    async def client(self, *scopes: str) -> httpx.AsyncClient:
        _, token = await self.tokens.create("ann", scopes)
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test", headers=headers)


@pytest.fixture
async def manager(history: History) -> AsyncIterator[Manager]:
    made = Manager(history)
    async with made.engine, made.growth:
        yield made


async def test_budget_over_http(manager: Manager) -> None:
    http = await manager.client("retention")
    path = "/api/v1/retention/budget"
    assert (await http.get(path)).json() == {"budget": "none", "shorten": None, "history": []}
    made = (await http.put(path, json={"budget": "at most 20GiB", "reason": "small disk", "shorten": "14d"})).json()
    assert (made["budget"], made["shorten"]) == ("keep at most 20.0 GiB", "14d")
    assert made["history"][0]["by"] == "ann"
    assert made["history"][0]["at"].endswith("Z")
    assert (await http.get(path)).json() == made
    for body, field in (
        ({"budget": "plenty"}, "budget"),
        ({"budget": "20 GiB", "shorten": "1h"}, "shorten"),
        ({"budgett": "20 GiB"}, "budget"),
    ):
        refused = await http.put(path, json=body)
        assert refused.status_code == 422
        assert field in refused.json()["errors"][0]["field"]
    assert (await http.get(path)).json() == made


async def test_growth_over_http(manager: Manager) -> None:
    http = await manager.client("retention")
    manager.history.add("SUCCEEDED", ended_h=2)
    await manager.growth.tick()
    for since in ("", "?since=7d", "?since=2026-01-01T00:00:00Z"):
        found = (await http.get(f"/api/v1/retention/growth{since}")).json()
        assert len(found["series"]) == 1
    assert found["series"][0]["at"].endswith("Z")
    assert found["sampled_at"] == found["jobs"]["at"] == found["series"][0]["at"]
    assert found["jobs"]["tiers"] == {"hot": 1}
    assert found["ladder"]["since"] is None or found["ladder"]["since"].endswith("Z")
    assert "needs 7 whole days" in found["growth"]["reason"]
    refused = await http.get("/api/v1/retention/growth?since=soon")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "since")


async def test_metrics_need_their_scope_and_tell_what_is_due(manager: Manager) -> None:
    for scope, status in (("metrics", 200), ("admin", 200), ("retention", 403), ("job", 403)):
        assert (await (await manager.client(scope)).get("/metrics")).status_code == status
    http = await manager.client("metrics")
    assert (await http.get("/metrics", headers={"Authorization": ""})).status_code == 401
    for hours in (7, 9):
        manager.history.add("SUCCEEDED", ended_h=hours)
    await manager.engine.set_policy({"rules": [{"name": "all", "hot": "6h"}]}, by="x")
    await manager.engine.run(dry_run=True, by="x")
    await manager.growth.tick()
    told = (await http.get("/metrics")).text
    values = {
        (one.name, *one.labels.values()): one.value for family in text_string_to_metric_families(told) for one in family.samples
    }
    assert values["darner_retention_due_rows", "delete"] == 2
    assert values["darner_retention_overdue_seconds", "delete"] == pytest.approx(3 * 3600, abs=60)
    assert values["darner_growth_jobs", "hot"] == 2
    assert values["darner_growth_database_bytes", "live"] > 0
    assert values["darner_retention_held_back",] == 0
    assert values["darner_growth_stage",] >= 0
    assert ("darner_retention_clock_skew_seconds",) in values
    assert any(key[0] == "darner_retention_lease_holder" and "retention-growth" in key for key in values)
