"""`darner retention run`, `runs`, `pause` and `resume`: sweeps by hand, and those that were."""

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.jobs import JobId
from darner.app.cli.output import get_path, moment, print_json, say, table
from darner.app.cli.progress import ProgressLine
from darner.app.cli.retention.status import say_status
from darner.app.cli.retention.words import DID, WILL, counted, sized, when
from darner.app.cli.run import Interrupted
from darner.core.errors import DarnerError
from darner.kit.units import format_duration

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

Json = Mapping[str, Any]
RUNNING, HELD, FAILED = "RUNNING", "HELD", "FAILED"
_LOOK_S = 0.5
_BATCHES = 1000
_MOVED = (("fold", "folded"), ("archive", "archived"), ("hide", "hidden"), ("delete", "removed"))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("run")(run)
    runs = typer.Typer(help="Sweeps that were, and the one that runs.", no_args_is_help=True)
    runs.command("ls")(ls)
    runs.command("show")(show)
    runs.command("cancel")(cancel)
    runs.command("confirm")(confirm)
    app.add_typer(runs, name="runs")
    app.command("pause")(pause)
    app.command("resume")(resume)


def run(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="The clock jumped; you have looked at it, and it is right now.")
    ] = False,
    preview_token: Annotated[str | None, typer.Option(help="Of a preview: what it showed was looked at.")] = None,
) -> None:
    """Sweep now. With --yes neither the guard nor the maintenance window holds it back."""
    order = {"dry_run": dry_run, "accept_clock": accept_clock, "preview_token": preview_token, "yes": context.obj.yes}
    found = ask(context, lambda api: api.retention.run(**order))
    if dry_run:
        print_json(found) if context.obj.json else _say_dry_run(found)
        return
    _tell(context, _to_the_end(context, found))


def ls(context: typer.Context, limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000)] = 20) -> None:
    """List sweeps, newest first."""
    found = ask(context, lambda api: api.retention.runs(limit=limit))
    if context.obj.json:
        for one in found:
            print_json(one)
        return
    say_runs(found)


def show(
    context: typer.Context,
    run_id: JobId,
    batches: Annotated[bool, typer.Option("--batches", help=f"With its transactions, the first {_BATCHES}.")] = False,
) -> None:
    """Show one sweep: what it did by rule, and why it ended."""

    async def question(api: "ManagerRest") -> dict[str, Any]:
        found = dict(await api.retention.one_run(run_id))
        if batches:
            found["batches"] = await api.retention.batches(run_id, limit=_BATCHES)
        return found

    found = ask(context, question)
    if context.obj.json:
        print_json(found)
        return
    _say_run(found)


_ENDS = "ends after its batch. The next sweep goes on with the policy in force; `darner retention pause` keeps it from that"


def cancel(context: typer.Context, run_id: JobId) -> None:
    """End a running sweep after its batch; what it has done stays done."""
    found = ask(context, lambda api: api.retention.cancel_run(run_id))
    print_json(found) if context.obj.json else say(f"run {run_id} {_ENDS}")


def confirm(context: typer.Context, run_id: JobId) -> None:
    """Do what a held sweep would have removed."""
    found = ask(context, lambda api: api.retention.confirm_run(run_id))
    _tell(context, _to_the_end(context, found))


def pause(context: typer.Context, reason: Annotated[str, typer.Option(help="Why; others will wonder.")] = "") -> None:
    """Do nothing by the clock until resumed."""
    say_status(context, ask(context, lambda api: api.retention.pause(reason)))


def resume(context: typer.Context) -> None:
    """Let the sweeper work by the clock again."""
    say_status(context, ask(context, lambda api: api.retention.resume()))


def say_runs(found: Sequence[Json], *, indent: str = "") -> None:
    """Sweeps in a table."""
    rows = [
        (
            f"{indent}{one['id']}",
            moment(one["started_at"]),
            _lasted(one),
            "dry run" if one["dry_run"] else one["trigger"],
            one["state"],
            *(f"{one[field]:,}" if one[field] else "-" for _, field in _MOVED),
            sized(one["bytes"] or None),
            one.get("error") or "",
        )
        for one in found
    ]
    headings = (f"{indent}RUN", "STARTED", "TOOK", "BY", "STATE", "COMPRESSED", "ARCHIVED", "DELETED", "GONE", "SIZE", "WHY")
    table(headings, rows)


class RunLine(ProgressLine):
    """How far a sweep is, in jobs. `total` 0: nobody knows."""

    def text(self, done: int, total: int, elapsed_s: float) -> str:
        """The line itself, cut to the terminal's width."""
        if not done:
            return f"{self._label} is sorting jobs"
        rate = done / elapsed_s if elapsed_s > 0 else 0.0
        left = f", {format_duration((total - done) / rate)} left" if total > done and rate else ""
        share = f" {min(done / total, 1.0):4.0%}" if total else ""
        line = f"{self._label}{share} {counted(done)}{f' of {total:,}' if total else ''}, {rate:,.0f}/s{left}"
        return line[: shutil.get_terminal_size().columns - 1]


def _to_the_end(context: typer.Context, found: dict[str, Any]) -> dict[str, Any]:
    """Wait for a sweep that still runs; a bar on a terminal."""
    if found["state"] != RUNNING:
        return found

    async def question(api: "ManagerRest") -> dict[str, Any]:
        line, now = RunLine(f"run {found['id']}"), found
        # A preview walks all jobs, so it is asked for only where somebody watches.
        total = _moved(now) + await _left(api) if sys.stderr.isatty() and not context.obj.json else 0
        try:
            while now["state"] == RUNNING:
                line.show(_moved(now), total)
                await asyncio.sleep(_LOOK_S)
                now = await api.retention.one_run(found["id"])
        finally:
            line.close()
        return now

    try:
        return ask(context, question)
    except KeyboardInterrupt:
        run_id = found["id"]
        hint = f"`darner retention runs show {run_id}` shows it, `darner retention runs cancel {run_id}` ends it"
        raise Interrupted(f"interrupted; run {run_id} goes on: {hint}") from None


async def _left(api: "ManagerRest") -> int:
    shown = await api.retention.preview()
    return sum(int(one["rows"]) for one in shown["rules"] if one["action"] != "expire")


def _moved(found: Json) -> int:
    return sum(int(found[field]) for _, field in _MOVED)


def _tell(context: typer.Context, found: Json) -> None:
    """How a sweep ended. Raises DarnerError if it was held back or failed."""
    held = found["state"] == HELD
    if context.obj.json:
        print_json(found)
    else:
        say(_ended(found))
    if held:
        raise DarnerError(_why_held(found))
    if found["state"] == FAILED:
        raise DarnerError(f"run {found['id']} failed: {found['error']}")


def _ended(found: Json) -> str:
    did = [f"{DID[action]} {found[field]:,}" for action, field in _MOVED if found[field]]
    said = f"run {found['id']} {found['state']} after {_lasted(found)}: {', '.join(did) or 'nothing to do'}"
    said += f", {sized(found['bytes'])}" if found["bytes"] else ""
    stopped = found.get("error") if found["state"] not in {HELD, FAILED} else ""
    return f"{said}. {stopped}" if stopped else f"{said}."


def _why_held(found: Json) -> str:
    run_id, error = found["id"], str(found["error"]).strip()
    if get_path(found, "report", "held", default=None) is not None:
        return f"{error} Look: darner retention preview. If it is meant: darner retention runs confirm {run_id}"
    if get_path(found, "report", "refused") == "clock":
        return f"{error} If the clock is right: darner retention run --accept-clock"
    return error


def _lasted(found: Json) -> str:
    from datetime import UTC, datetime

    began = datetime.fromisoformat(found["started_at"])
    ended = datetime.fromisoformat(found["finished_at"]) if found.get("finished_at") else datetime.now(UTC)
    return format_duration(max((ended - began).total_seconds(), 0.0))


def _say_dry_run(found: Json) -> None:
    report = found.get("report") or {}
    said = f"run {found['id']}, a dry run under policy version {found['policy_version']}"
    entries = report.get("rules") or []
    if not entries:
        say(f"{said}: nothing to do.")
        return
    say(f"{said}: would remove {counted(report['total'])}.")
    rows = [
        (f"  {one['rule']}", WILL.get(one["action"], one["action"]), one["tier"], one_state["state"], f"{one_state['count']:,}",
         f"{moment(one_state['oldest_finished_at'])} to {moment(one_state['newest_finished_at'])}")
        for one in entries
        for one_state in one["states"]
    ]  # fmt: skip
    table(("  RULE", "WOULD", "FROM", "STATE", "JOBS", "ENDED"), rows)


def _say_run(found: Json) -> None:
    now = time.time()
    say(f"run {found['id']}  {found['state']}  {'dry run' if found['dry_run'] else found['trigger']}")
    lines = [
        ("policy", f"version {found['policy_version']}"),
        ("started", when(found["started_at"], now)),
        ("took", _lasted(found)),
        ("sorted", counted(found["classified"])),
        ("looked at", counted(found["examined"])),
        ("why", _why_held(found) if found["state"] == HELD else found.get("error") or ""),
    ]
    for name, value in lines:
        if value:
            say(f"  {name:10} {value}")
    if found["dry_run"]:
        _say_dry_run(found)
        return
    rows = [
        (f"  {one['rule'] or '-'}", DID.get(one["action"], one["action"]), f"{one['rows']:,}", sized(one["bytes"]), one["batches"])
        for one in found.get("rules") or []
    ]
    if rows:
        table(("  RULE", "DID", "JOBS", "SIZE", "TRANSACTIONS"), rows)
    for one in found.get("batches") or []:
        did = f"{DID.get(one['action'], one['action'])} {counted(one['removed'])}"
        say(f"  {moment(one['at'])}  {one['rule'] or '-'}: {did}, {sized(one['bytes'])}, ids {one['ids_digest'][:12]}")
