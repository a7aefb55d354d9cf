"""The sweeper and the exporter together: no job leaves the database before its sink has it; and what people see of it."""

import httpx
import pytest
from fastapi import FastAPI
from tests.integration.retention.export.jobs import QUICK, config, one_backlog
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import engine_of, until

from darner.access import TokenService
from darner.app import problems
from darner.core.errors import InvalidInputError
from darner.history.codec import Codec
from darner.retention.export.exporter import Exporter
from darner.retention.export.ports import SinkAwayError
from darner.retention.export.sinks.memory import MemorySink
from darner.retention.ports import RetentionParts
from darner.retention.rest import router

EXPORTING = {"rules": [{"name": "default", "hot": "6h", "export": "log"}]}


def exporter_of(history: History, sink: MemorySink) -> Exporter:
    return Exporter(history.db, Codec(), [config()], pace=QUICK, make=lambda _: sink)


def parts_of(exporter: Exporter) -> RetentionParts:
    return RetentionParts(enqueue=exporter.enqueue, known_sinks=exporter.known_sinks)


async def test_jobs_wait_for_their_sink_and_then_go(history: History) -> None:
    sink = MemorySink()
    sink.away = SinkAwayError("It is away.")
    ids = [history.add("FAILED", ended_h=7) for _ in range(5)]
    async with exporter_of(history, sink) as exporter, engine_of(history.db, parts=parts_of(exporter)) as engine:
        await engine.set_policy(EXPORTING, by="me")
        first = await engine.run(dry_run=False, by="me")
        assert (first.state, first.removed, history.left()) == ("DONE", 0, ids)
        assert (await one_backlog(exporter)).pending == 5
        sink.away = None
        await until(lambda: len(sink.taken) == 5)
        while (await one_backlog(exporter)).pending:
            pass
        second = await engine.run(dry_run=False, by="me", yes=True)
        assert (second.removed, history.left()) == (5, [])
        assert (await one_backlog(exporter)).delivered == 5
    assert sorted(one.job_id for one in sink.taken) == ids


async def test_a_policy_names_only_sinks_that_are_configured(history: History) -> None:
    async with exporter_of(history, MemorySink()) as exporter, engine_of(history.db, parts=parts_of(exporter)) as engine:
        with pytest.raises(InvalidInputError) as caught:
            await engine.set_policy({"rules": [{"name": "default", "hot": "6h", "export": "elsewhere"}]}, by="me")
        assert caught.value.field == "rules[0].export"


async def test_people_see_what_waits_and_why_and_can_act(history: History) -> None:
    app = FastAPI()
    tokens = TokenService(history.db)
    app.state.tokens = tokens
    problems.install(app)
    _, token = await tokens.create("ann", ["retention"])
    _, powerless = await tokens.create("bob", ["job"])
    sink = MemorySink(refuses=lambda one: "no such index" if one.job_id == 1 else "")
    for _ in range(3):
        history.add("SUCCEEDED", ended_h=2)
    async with exporter_of(history, sink) as exporter, engine_of(history.db) as engine:
        app.include_router(router(engine, exporter=exporter))
        await history.db.write(lambda conn: exporter.enqueue(conn, [1, 2, 3], "log", 1))
        await history.db.write(lambda conn: exporter.enqueue(conn, [1], "old", 1))
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/retention", headers=headers) as http:
            while (shown := (await http.get("/exports")).json())[0]["delivered"] < 2:
                pass
            assert [(one["name"], one["state"], one["pending"], one["refused"]) for one in shown] == [
                ("log", "refusing", 1, 1),
                ("old", "not configured", 1, 0),
            ]
            (refusal,) = shown[0]["refusals"]
            assert (refusal["job_id"], refusal["attempts"], refusal["error"]) == (1, 1, "no such index")
            assert refusal["next_at"].endswith("Z")
            assert (await http.delete("/exports/log")).status_code == 409
            assert (await http.delete("/exports/old")).json() == {"sink": "old", "waited": 1}
            assert (await http.delete("/exports/old")).status_code == 404
            assert (await http.post("/exports/never:retry")).status_code == 404
            sink.refuses = lambda _: ""
            assert (await http.post("/exports/log:retry")).json() == {"sink": "log", "retried": 1}
            while (shown := (await http.get("/exports")).json())[0]["state"] != "idle":
                pass
            assert shown[0]["acked_at"].endswith("Z")
            span = {"since": "2000-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
            assert (await http.post("/exports/never:resend", json=span)).status_code == 404
            assert (await http.post("/exports/log:resend", json={"since": "yesterday"})).status_code == 422
            assert (await http.post("/exports/log:resend", json=span)).json() == {"sink": "log", "resent": 3}
            while (await http.get("/exports")).json()[0]["delivered"] < 3:
                pass
            assert sorted(one.job_id for one in sink.taken) == [1, 1, 2, 2, 3, 3]
            assert len({one.key for one in sink.taken}) == 3
            refused = await http.get("/exports", headers={"Authorization": f"Bearer {powerless.reveal()}"})
            assert refused.status_code == 403


async def test_a_sink_that_rules_name_is_not_forgotten(history: History) -> None:
    history.add("SUCCEEDED", ended_h=2)
    before = Exporter(history.db, Codec(), [config("old")], make=lambda _: MemorySink())
    async with engine_of(history.db, parts=parts_of(before)) as engine:
        await engine.set_policy({"rules": [{"name": "default", "hot": "6h", "export": "old"}]}, by="me")
        await engine.run(dry_run=False, by="me")
    async with exporter_of(history, MemorySink()) as exporter:
        with pytest.raises(Exception, match="Rules of the policy in force name"):
            await exporter.drop("old", by="me")
        found = await one_backlog(exporter, "old")
        assert (found.configured, found.pending) == (False, 1)
