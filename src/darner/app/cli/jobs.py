"""`darner jobs`: the history, hot and archived alike, and what can be done with a job."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darner.app.cli import complete
from darner.app.cli.api import ask
from darner.app.cli.output import ago, get_path, moment, print_json, say, table
from darner.app.cli.progress import ProgressLine
from darner.app.cli.run import FAILED, Interrupted, UsageProblem, complain
from darner.core.errors import DarnerError, NotFoundError
from darner.core.job import END_STATES, DetailState, State, Tier
from darner.kit.units import format_duration, format_size

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest


# What a move to a tier is called.
NEXT = {Tier.WARM.word: "compressed", Tier.ARCHIVE.word: "archived", Tier.DELETED.word: "deleted"}


def parse_id(text: str) -> int:
    """A job's or token's id. Raises BadParameter."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) < 2**63:
        raise typer.BadParameter(f"{text!r} is not an id; expected a whole number from 1 on")
    return int(text)


JobId = Annotated[int, typer.Argument(metavar="ID", parser=parse_id)]


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="Job history, and what can be done with a job.", no_args_is_help=True)
    for command in (ls, show, watch, cancel, retry, hold, release, rm, restore):
        app.command(command.__name__)(command)
    root.add_typer(app, name="jobs")


def ls(
    context: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(help="PENDING, SUCCESS, FAILURE, or a detail state; repeatable.", autocompletion=complete.states),
    ] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Job type, like preheat.", autocompletion=complete.types)] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(complete.TIERS)}; repeatable; default: all but deleted.", autocompletion=complete.tiers),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only jobs made within this time, like 24h, or since a moment.")] = None,
    until: Annotated[str | None, typer.Option(help="Only jobs made before this long ago, or before a moment.")] = None,
    text: Annotated[str | None, typer.Option(help="Only jobs with this text in what they are about, or in their error.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 20,
) -> None:
    """List jobs, newest first."""
    filters: dict[str, Any] = {"type": kind, "text": text, "since": since, "until": until, **split_states(state or [])}
    filters["tier"] = [known_tier(word) for word in tier or []]
    wanted = {key: value for key, value in filters.items() if value}

    async def question(api: "ManagerRest") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for page in api.walk_jobs(limit, missing=complain, **wanted):
            found += page
            for job in page if context.obj.json else ():
                print_json(job)
        return found

    jobs = ask(context, question)
    if context.obj.json:
        return
    print_jobs(jobs)


def show(
    context: typer.Context,
    job_id: JobId,
    events: Annotated[bool, typer.Option("--events", help="With its timeline.")] = False,
) -> None:
    """Show one job: what was asked, how it went, when it is forgotten."""

    async def question(api: "ManagerRest") -> dict[str, Any]:
        job: dict[str, Any] = dict(await api.job(job_id, removed=True))
        if events:
            job["events"] = list(await api.job_events(job_id, removed=True))
        return job

    job = ask(context, question)
    if context.obj.json:
        print_json(job)
        return
    print_job(job)
    for event in job.get("events", []):
        say(f"  {moment(event['at'])}  {event['kind']:16} {event.get('message') or ''}".rstrip())


def watch(context: typer.Context, job_id: JobId) -> None:
    """Follow a job to its end; exit 0 only on SUCCESS."""
    started = time.monotonic()
    job = follow(context, job_id)
    if not context.obj.json or not succeeded(job):
        print_outcome(job, time.monotonic() - started)
    if not succeeded(job):
        raise typer.Exit(FAILED)


def cancel(context: typer.Context, job_id: JobId) -> None:
    """Stop a job."""
    _one(context, ask(context, lambda api: api.cancel_job(job_id)), f"job {job_id} is being cancelled")


def retry(context: typer.Context, job_id: JobId) -> None:
    """Make a new job like an ended one, and watch it; exit 0 only on SUCCESS."""
    job = ask(context, lambda api: api.retry_job(job_id))
    if not context.obj.json:
        say(f"job {job['id']}: job {job_id} again")
    watch(context, job["id"])


def hold(
    context: typer.Context,
    job_id: JobId,
    reason: Annotated[str, typer.Option(help="Why it must be kept.")],
    until: Annotated[str | None, typer.Option(help="Released by itself after 30d, or at a time like 2027-01-31T00:00:00Z.")] = None,
) -> None:
    """Keep a job's record until it is released."""
    held = ask(context, lambda api: api.hold_job(job_id, reason, until))
    _one(context, held, f"job {job_id} is held{_for(until)}: {reason}")


def _for(until: str | None) -> str:
    """How long, as it was typed."""
    return "" if not until else f" until {until}" if until[:4].isdigit() and "-" in until else f" for {until}"


def release(context: typer.Context, job_id: JobId) -> None:
    """Give a held job back to the policy."""
    _one(context, ask(context, lambda api: api.release_job(job_id)), f"job {job_id} is released")


def rm(context: typer.Context, job_id: JobId) -> None:
    """Remove the record of an ended job; for a while it can be restored."""
    if not context.obj.yes and not confirm(f"Remove the record of job {job_id}?"):
        raise DarnerError("not removed: a confirmation is needed; answer yes, or give --yes")

    async def question(api: "ManagerRest") -> dict[str, Any] | None:
        await api.delete_job(job_id)
        try:
            return await api.job(job_id, removed=True)
        except NotFoundError:
            return None

    left = ask(context, question)
    until = get_path(left or {}, "retention", "moves_at", default=None)
    said = f"removed job {job_id}"
    if left is not None:
        said += f"; until {moment(until)} it can be restored: darner jobs restore {job_id}" if until else "; it can be restored"
    _one(context, {"removed": job_id, "restorable_until": until}, said)


def restore(context: typer.Context, job_id: JobId) -> None:
    """Bring a removed or archived job's record back; it is held from then on."""
    from darner.app.cli.retention.holds import print_restored

    print_restored(context, job_id, ask(context, lambda api: api.restore_job(job_id)))


def confirm(question: str) -> bool:
    """Ask on the terminal; without one the answer is no."""
    import sys

    return sys.stdin.isatty() and typer.confirm(question, err=True)


def follow(context: typer.Context, job_id: int) -> dict[str, Any]:
    """Show a job's progress until it has ended; returns it. With `--json`, one line per change."""
    as_json = context.obj.json

    async def question(api: "ManagerRest") -> dict[str, Any]:
        line = ProgressLine(f"job {job_id}", shown=False if as_json else None)
        last: object = None
        job: dict[str, Any] = {}
        try:
            async for change in api.watch_job(job_id):
                job = dict(change)
                told = {key: job.get(key) for key in ("id", "state", "detail_state", "bytes_done", "bytes_total", "error")}
                if as_json and told != last:
                    print_json(told)
                last = told
                line.show(job.get("bytes_done") or 0, job.get("bytes_total") or 0)
        finally:
            line.close()
        return job

    try:
        return ask(context, question)
    except KeyboardInterrupt:
        hint = f"`darner jobs watch {job_id}` follows it again, `darner jobs cancel {job_id}` stops it"
        raise Interrupted(f"interrupted; job {job_id} goes on: {hint}") from None


def succeeded(job: Mapping[str, Any]) -> bool:
    """Whether the job ended in SUCCESS."""
    return job.get("state") == State.SUCCESS


def print_outcome(job: Mapping[str, Any], seconds: float) -> None:
    """How it ended, in a line: on stdout when it went well, else on stderr with the reason."""
    said = f"job {job['id']}: {job['state']} ({job['detail_state']}) after {format_duration(seconds)}"
    if not succeeded(job):
        complain(f"{said}; {job.get('error') or 'no reason was given'}")
        return
    count = job.get("part_count") or 0
    say(f"{said}, {format_size(job.get('bytes_total') or 0)} in {count} part{'' if count == 1 else 's'}")


def print_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Jobs for a person, in a table."""
    now = time.time()
    headings = ("ID", "TYPE", "STATE", "DETAIL", "CREATED", "TOOK", "TIER", "FORGOTTEN", "WHAT")
    rows = [
        (
            job["id"],
            job["type"],
            job["state"],
            job["detail_state"],
            ago(job["created_at"], now),
            took(job),
            job.get("tier") or "-",
            forgotten(job, now),
            job.get("summary") or "",
        )
        for job in jobs
    ]
    table(headings, rows)


def print_job(job: Mapping[str, Any]) -> None:
    """One job for a person."""
    now = time.time()
    say(f"job {job['id']}  {job['type']}  {job['state']} ({job['detail_state']})")
    lines = [
        ("what", job.get("summary")),
        ("error", job.get("error")),
        ("created", moment(job.get("created_at"))),
        ("finished", moment(job.get("finished_at"))),
        ("took", took(job)),
        ("parts", f"{job.get('part_done', 0)} of {job.get('part_count', 0)} done, {job.get('part_failed', 0)} failed"),
        ("bytes", f"{format_size(job.get('bytes_done') or 0)} of {format_size(job.get('bytes_total') or 0)}"),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted((job.get("labels") or {}).items()))),
        ("importance", None if job.get("importance") == "normal" else job.get("importance")),
        *_kept_lines(job, now),
    ]
    for name, value in lines:
        if value not in (None, "", "-"):
            say(f"  {name:10} {value}")


def _kept_lines(job: Mapping[str, Any], now: float) -> list[tuple[str, str]]:
    """Which rule decides about a record, where it rests, what comes next, and when it is forgotten or why not."""
    from darner.app.cli.retention.words import when

    kept = job.get("retention")
    if not isinstance(kept, Mapping):
        return []
    at, moves_at, following = kept.get("forgotten_at"), kept.get("moves_at"), kept.get("next_tier")
    tier = str(kept.get("tier") or job.get("tier") or "-")
    if moves_at:
        tier += f", {NEXT.get(str(following), f'{following}') if following else 'gone for good'} {when(moves_at, now)}"
    return [
        ("rule", str(kept.get("rule") or "none fits")),
        ("tier", tier),
        ("forgotten", when(at, now) if at else "not as things are"),
        ("why", str(kept.get("reason") or "-")),
    ]


def took(job: Mapping[str, Any]) -> str:
    """How long a job took, or has been running."""
    if not job.get("created_at"):
        return "-"
    end = datetime.fromisoformat(job["finished_at"]).timestamp() if job.get("finished_at") else time.time()
    return format_duration(max(end - datetime.fromisoformat(job["created_at"]).timestamp(), 0.0))


def forgotten(job: Mapping[str, Any], now: float) -> str:
    """When the record goes, in a few words, or what keeps it."""
    kept = job.get("retention")
    if not isinstance(kept, Mapping):
        return "-"
    at, moves_at = kept.get("forgotten_at"), kept.get("moves_at")
    if kept.get("tier") == Tier.DELETED.word:
        return f"gone {ago(moves_at, now)}" if moves_at else "deleted"
    if job.get("held"):
        return "held"
    if at:
        return ago(at, now) if datetime.fromisoformat(at).timestamp() > now else "with the next sweep"
    return "-" if not job.get("finished_at") else "kept"


def known_tier(text: str) -> str:
    """A tier's word. Raises UsageProblem for anything else."""
    word = text.lower()
    if word not in complete.TIERS:
        raise UsageProblem(f"--tier {text}: expected one of {', '.join(complete.TIERS)}")
    return word


def split_states(states: list[str]) -> dict[str, list[str]]:
    """Upstream's words and detail states as the two filters of the API. Raises UsageProblem for anything else."""
    found: dict[str, list[str]] = {"state": [], "detail_state": []}
    for text in states:
        word = text.upper()
        if word in State.__members__:
            found["state"].append(word)
        elif word in DetailState.__members__:
            found["detail_state"].append(word)
        else:
            known = ", ".join([*State.__members__, *(state.value for state in sorted(END_STATES))])
            raise UsageProblem(f"--state {text}: expected one of {known}, QUEUED, RUNNING, CANCELLING")
    return found


def _one(context: typer.Context, answer: Any, said: str) -> None:  # noqa: ANN401
    if context.obj.json:
        print_json(answer)
    else:
        say(said)
