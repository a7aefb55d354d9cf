"""`darner retention status`: how everything stands, on one page."""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.output import ago, get_path, print_json, say
from darner.app.cli.retention.chart import chart
from darner.app.cli.retention.words import counted, kept, sized, when
from darner.core.errors import DarnerError, NotFoundError

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

Json = Mapping[str, Any]
_RUNS = 5
# A status must not wait long for what nobody needs at once.
_SUGGESTIONS_S = 5.0
_STAGES = {
    "calm": "there is room",
    "warn": "room gets scarce",
    "vacuum": "room of deleted jobs is given back",
    "fold": "jobs are compressed earlier than their rules say",
    "archive": "jobs are archived earlier than their rules say",
    "suggest": "all that loses nothing is done; a shorter policy is needed",
    "shorten": "jobs are removed earlier than their rules say, as the budget allows",
    "refuse": "new jobs of low importance are refused",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(context: typer.Context) -> None:
    """Show what the sweeper does and did, what the history takes, how it grows, and what needs somebody."""
    found = ask(context, everything)
    say_status(context, found)


async def everything(api: "ManagerRest") -> dict[str, Any]:
    """The manager's status with policy, growth, exports, suggestions and the last runs; None for what it does not have."""
    retention = api.retention
    told, *more = await asyncio.gather(
        retention.status(),
        _if_there(retention.policy()),
        _if_there(retention.growth()),
        _if_there(retention.archive()),
        _if_there(retention.exports()),
        _if_there(retention.suggestions(timeout_s=_SUGGESTIONS_S)),
        retention.runs(limit=_RUNS),
    )
    names = ("policy", "growth", "archive", "exports", "suggestions", "runs")
    return {**told, **dict(zip(names, more, strict=True))}


async def _if_there(answer: Awaitable[Any]) -> Any:  # noqa: ANN401  (JSON)
    try:
        return await answer
    except NotFoundError:
        return None
    except DarnerError as error:  # one part that fails must not hide the others
        return {"error": error.message}


def say_status(context: typer.Context, found: Json) -> None:
    """A status, as far as it goes."""
    if context.obj.json:
        print_json(found)
        return
    now = time.time()
    _say_sweeper(found, now)
    _say_policy(found)
    growth = found.get("growth")
    if growth and not _say_failed("growth", growth):
        _say_growth(growth, now)
    archive = found.get("archive")
    left = int(get_path(growth or {}, "figures", "archive", "jobs", default=0))
    if archive and not _say_failed("archive", archive):
        _say_archive(archive)
    elif left and archive is None and "archive" in found:
        _line("archive", f"{counted(left)} cannot be found here: this manager has no archive (retention.archive.url)")
    exports = found.get("exports")
    if isinstance(exports, Mapping):
        _say_failed("export", exports)
    for sink in _listed(exports):
        _line("export", _sink(sink, now))
    suggestions = found.get("suggestions")
    if isinstance(suggestions, Mapping):
        _say_failed("suggested", suggestions)
    for one in _listed(suggestions):
        _say_suggestion(one)
    _say_runs(found)


def _line(name: str, text: str) -> None:
    say(f"{name:10} {text}")


def _listed(value: object) -> list[Json]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _say_failed(name: str, value: Json) -> bool:
    """Whether a part of the answer is an error; it is said then."""
    failed = "error" in value and len(value) == 1
    if failed:
        _line(name, f"not known: {value['error']}")
    return failed


def _say_sweeper(found: Json, now: float) -> None:
    doing = "sweeping" if found["running"] else "paused" if found["paused"] else "waiting"
    following = f", next sweep {when(found['next_run_at'], now)}" if found.get("next_run_at") else ""
    _line("sweeper", doing + following)
    if found["paused"] and found.get("paused_reason"):
        _line("", found["paused_reason"])
    held = found.get("removal_held")
    if held:
        _line("held back", f"{held['reason']} Nothing is removed since run {held['since_run']}.")
        _line("", f"Look: darner retention preview. If it is meant: darner retention runs confirm {held['since_run']}")
    window = found.get("window")
    if window:
        opens = (
            f"opens {when(window['opens_at'], now)}"
            if window["opens_at"]
            else "a zone that this manager does not know: closed here"
        )
        _line("window", f"removes from {window['window']} ({window['zone']}), {opens}")


def _say_policy(found: Json) -> None:
    policy = found.get("policy")
    version = found.get("policy_version")
    if version is None:
        _line("policy", "there is none, so nothing is removed; `darner retention policy preset default` makes one")
        return
    said = f"version {version}"
    _line("policy", f"{said}: {kept(policy)}" if policy and "rules" in policy else said)
    _line("due now", f"{counted(found['due'])}{' or more' if found.get('due_or_more') else ''} to be removed")
    if found.get("holds"):
        _line("holds", f"{found['holds']:,}; `darner retention holds ls` lists them")


# Room.


def _say_growth(growth: Json, now: float) -> None:
    figures = growth.get("figures") or {}
    _say_tiers(growth.get("jobs"), figures.get("archive"), now)
    _say_room(figures)
    stage = (growth.get("ladder") or {}).get("stage", "calm")
    shorten = f", shortened to {growth['shorten']} if it must be" if growth.get("shorten") else ""
    _line("budget", f"{growth.get('budget') or 'none'}{shorten}")
    since = f", since {when(growth['ladder']['since'], now)}" if stage != "calm" else ""
    _line("stage", f"{stage}: {_STAGES.get(stage, stage)}{since}")
    points = [(str(one["at"]), float(one["used"])) for one in growth.get("series") or []]
    for line in chart(points):
        say(f"  {line}")
    _say_forecast(growth)
    for one in growth.get("advice") or []:
        _line("advice", one if isinstance(one, str) else str(one.get("text") or one))


def _say_tiers(jobs: Json | None, archive: Json | None, now: float) -> None:
    if not jobs:
        return
    tiers, sizes = jobs.get("tiers") or {}, jobs.get("tier_bytes") or {}
    about = "" if jobs.get("exact", True) else "about "
    said = [f"{tier} {about}{count:,}" + (f" ({sized(sizes[tier])})" if sizes.get(tier) else "") for tier, count in tiers.items()]
    if archive and archive.get("jobs"):
        said.append(f"archive {archive['jobs']:,} ({sized(archive['bytes'])})")
    counted_at = f"; counted {ago(jobs['at'], now)}" if jobs.get("at") else ""
    _line("jobs", (", ".join(said) or "none") + counted_at)


def _say_room(figures: Json) -> None:
    database, disk = figures.get("database") or {}, figures.get("disk")
    said = []
    if database:
        free = f", of it {sized(database['reclaimable'])} free" if database.get("reclaimable") else ""
        said.append(f"database {sized(database['bytes'])}{free}")
        if database.get("log"):
            said.append(f"its log {sized(database['log'])}")
    if disk:
        said.append(f"disk {sized(disk['free'])} free of {sized(disk['bytes'])}")
    if said:
        _line("room", "; ".join(said))


def _say_forecast(growth: Json) -> None:
    trend = growth.get("growth") or {}
    if trend.get("reason"):
        _line("growth", trend["reason"])
    elif trend.get("per_day") is not None:
        week = f"; the next 7 days add {sized(trend['week_p50'])}, hardly more than {sized(trend['week_p90'])}"
        _line("growth", f"{sized(trend['per_day'])} a day{week}")
    for one in growth.get("limits") or []:
        outlook = one.get("outlook") or {}
        _line("limit", f"{one['name']}: {sized(one['used'])} of {sized(one['most'])}, {_reached(outlook)}")


def _reached(outlook: Json) -> str:
    if outlook.get("reason"):
        return "no forecast yet"
    if outlook.get("p50") is None and outlook.get("p90") is None:
        return "not reached within ten years"
    middle = f"reached in {_days(outlook['p50'])} as likely as not" if outlook.get("p50") is not None else "likely not reached"
    return f"{middle}, hardly before {_days(outlook['p90'])}" if outlook.get("p90") is not None else middle


def _days(days: float) -> str:
    return f"{days:.1f} days" if days < 10 else f"{days:,.0f} days"  # noqa: PLR2004


# Archive, export, suggestions, runs.


def _say_archive(archive: Json) -> None:
    _line("archive", f"{counted(archive['jobs'])}, {sized(archive['bytes'])} in {counted(archive['segments'], 'file')}")
    for problem in archive.get("problems") or []:
        _line("", str(problem))


def _sink(sink: Json, now: float) -> str:
    said = f"{sink['name']}: {counted(sink['pending'])} waiting"
    if sink.get("oldest_at"):
        said += f", the oldest came {ago(sink['oldest_at'], now)}"
    if sink.get("state") == "not configured":
        return f"{said}; no such sink is configured"
    failing = sink.get("failing")
    if failing:
        return f"{said}; failing, first {ago(failing.get('since'), now)}: {failing['error']}"
    return f"{said}; {sink['refused']:,} of them refused: {sink['last_error']}" if sink.get("refused") else said


def _say_suggestion(found: Json) -> None:
    sooner = found["preview"]["diff"]["rows_sooner"]
    _line("suggested", str(found["title"]))
    _line("", f"It would forget {counted(sooner)} sooner. Look: darner retention preview --preset {found['preset']}")


def _say_runs(found: Json) -> None:
    from darner.app.cli.retention.runs import say_runs

    runs: Sequence[Json] = _listed(found.get("runs")) or ([found["last_run"]] if found.get("last_run") else [])
    if runs:
        say("last runs")
        say_runs(runs, indent="  ")
