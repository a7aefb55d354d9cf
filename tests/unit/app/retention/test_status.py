"""The page that tells how everything stands, from answers of the manager."""

from typing import Any

import pytest
import typer

from darner.app.cli.globals import Globals
from darner.app.cli.retention.status import everything, say_status
from darner.client.rest import ManagerRest
from darner.core.errors import NotFoundError, UnavailableError

MIB = 1024**2
STATUS: dict[str, Any] = {
    "now": "2026-11-25T08:00:00Z",
    "paused": False,
    "paused_reason": "",
    "policy_version": 3,
    "due": 1204,
    "running": False,
    "next_run_at": "2026-11-25T08:03:00Z",
    "removal_held": None,
    "window": None,
    "holds": 0,
    "last_run": None,
}
GROWTH: dict[str, Any] = {
    "figures": {
        "database": {"bytes": 40 * MIB, "reclaimable": 3 * MIB, "live": 37 * MIB, "log": None},
        "archive": {"bytes": 7 * MIB, "jobs": 20000, "counts": True},
        "disk": {"bytes": 500 * 1024 * MIB, "free": 120 * 1024 * MIB},
    },
    "jobs": {"exact": False, "tiers": {"hot": 1500, "warm": 90000}, "tier_bytes": {"hot": 4 * MIB, "warm": 33 * MIB}},
    "budget": "keep at most 20.0 GiB",
    "shorten": None,
    "growth": {"reason": "", "per_day": 2.0 * MIB, "week_p50": 14.0 * MIB, "week_p90": 21.0 * MIB},
    "limits": [
        {"name": "budget", "used": 44 * MIB, "most": 20 * 1024 * MIB, "outlook": {"reason": "", "p50": 812.4, "p90": 9.25}},
        {"name": "disk", "used": 1, "most": 2, "outlook": {"reason": "", "p50": None, "p90": None}},
    ],
    "ladder": {"stage": "fold", "since": "2026-11-25T07:00:00Z"},
    "advice": ["VACUUM would give back 3 MiB."],
    "series": [{"at": f"2026-11-{day:02}T00:00:00Z", "used": day * MIB} for day in range(1, 25)],
}
POLICY: dict[str, Any] = {"version": 3, "rules": [{"name": "success", "hot": "6h", "warm": "7d"}, {"name": "rest", "hot": "keep"}]}


def said(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    context = typer.Context(typer.main.get_command(_app()))
    context.obj = Globals()
    say_status(context, found)
    return capsys.readouterr().out


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(lambda: None)
    return app


def test_a_calm_system_is_told_in_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    told = said({**STATUS, "policy": POLICY}, capsys)
    assert "sweeper    waiting, next sweep " in told
    assert "policy     version 3: success 7d, rest for ever" in told
    assert "due now    1,204 jobs to be removed" in told
    assert "held" not in told


def test_room_growth_and_limits_are_told_with_a_chart(capsys: pytest.CaptureFixture[str]) -> None:
    told = said({**STATUS, "policy": POLICY, "growth": GROWTH}, capsys)
    for line in (
        "jobs       hot about 1,500 (4.0 MiB), warm about 90,000 (33.0 MiB), archive 20,000 (7.0 MiB)",
        "room       database 40.0 MiB, of it 3.0 MiB free; disk 120.0 GiB free of 500.0 GiB",
        "budget     keep at most 20.0 GiB",
        "stage      fold: jobs are compressed earlier than their rules say, since ",
        "growth     2.0 MiB a day; the next 7 days add 14.0 MiB, hardly more than 21.0 MiB",
        "limit      budget: 44.0 MiB of 20.0 GiB, reached in 812 days as likely as not, hardly before 9.2 days",
        "limit      disk: 1 B of 2 B, not reached within ten years",
        "advice     VACUUM would give back 3 MiB.",
        "24.0 MiB |",
        "2026-11-24",
    ):
        assert line in told


def test_what_needs_somebody_is_told_with_the_command_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    held = {"since_run": 12, "reason": "5352 jobs fall due because the policy was tightened.", "rows": 5352}
    sink = {"name": "siem", "state": "failing", "pending": 12, "oldest_at": "2026-11-25T07:00:00Z", "refused": 0,
            "failing": {"since": "2026-11-25T07:30:00Z", "error": "connection refused"}}  # fmt: skip
    better = {"preset": "default", "title": "Today's default is another.", "preview": {"diff": {"rows_sooner": 7}}}
    archive = {"jobs": 5, "bytes": MIB, "segments": 1, "problems": ["The file of segment 4 is missing."]}
    found = {**STATUS, "removal_held": held, "exports": [sink], "suggestions": [better], "archive": archive}
    told = said({**found, "paused": True, "paused_reason": "restored from a backup", "policy": POLICY}, capsys)
    for line in (
        "sweeper    paused",
        "restored from a backup",
        "darner retention runs confirm 12",
        "export     siem: 12 jobs waiting, the oldest came ",
        "connection refused",
        "It would forget 7 jobs sooner. Look: darner retention preview --preset default",
        "The file of segment 4 is missing.",
    ):
        assert line in told


def test_a_part_that_cannot_answer_is_told_and_hides_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    told = said({**STATUS, "policy": {"error": "x"}, "growth": {"error": "the disk is gone"}, "exports": {"error": "y"}}, capsys)
    assert "growth     not known: the disk is gone" in told
    assert "policy     version 3\n" in told
    assert "export     not known: y" in told


def test_archived_jobs_that_this_manager_cannot_find_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    told = said({**STATUS, "growth": GROWTH, "archive": None}, capsys)
    assert "archive    20,000 jobs cannot be found here: this manager has no archive (retention.archive.url)" in told


def test_without_a_policy_the_command_that_makes_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "darner retention policy preset default" in said({**STATUS, "policy_version": None}, capsys)


class Partial:
    """A manager without growth, whose export breaks."""

    async def status(self) -> dict[str, Any]:
        return STATUS

    async def policy(self) -> dict[str, Any]:
        return POLICY

    async def growth(self) -> dict[str, Any]:
        raise NotFoundError("no such route")

    async def archive(self) -> dict[str, Any]:
        raise NotFoundError("no such route")

    async def exports(self) -> list[dict[str, Any]]:
        raise UnavailableError("busy")

    async def suggestions(self, *, timeout_s: float) -> list[dict[str, Any]]:
        return [] if timeout_s < 60 else [{}]

    async def runs(self, *, limit: int) -> list[dict[str, Any]]:
        return [{"id": limit}]


async def test_everything_is_asked_for_and_what_is_not_there_is_none() -> None:
    manager = ManagerRest("http://127.0.0.1:1")
    manager.retention = Partial()  # type: ignore[assignment]
    found = await everything(manager)
    await manager.close()
    assert found["growth"] is None
    assert found["archive"] is None
    assert found["exports"] == {"error": "busy"}
    assert found["suggestions"] == []
    assert found["runs"] == [{"id": 5}]
    assert found["due"] == 1204
