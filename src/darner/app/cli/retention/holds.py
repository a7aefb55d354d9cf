"""`darner retention holds` and `restore`: what is kept whatever the policy says, and jobs brought back."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darner.app.cli import complete
from darner.app.cli.api import ask
from darner.app.cli.jobs import JobId
from darner.app.cli.output import moment, print_json, say, table
from darner.app.cli.retention.words import matched, point, when
from darner.app.cli.run import UsageProblem

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

Json = Mapping[str, Any]
Words = list[str] | None
Until = Annotated[str | None, typer.Option(help="End by itself after 30d, or at a time like 2027-01-31T00:00:00Z.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    holds = typer.Typer(help="What is kept whatever the policy says.", no_args_is_help=True)
    holds.command("ls")(ls)
    holds.command("add")(add)
    holds.command("rm")(rm)
    app.add_typer(holds, name="holds")
    app.command("restore")(restore)


def ls(context: typer.Context) -> None:
    """List holds, on single jobs and on all that match."""
    found = ask(context, lambda api: api.retention.holds())
    if context.obj.json:
        for one in found:
            print_json(one)
        return
    now = time.time()
    rows = [
        (one["id"], held(one), moment(one["created_at"]), one["created_by"] or "-", _until(one, now), one["reason"])
        for one in found
    ]
    table(("HOLD", "JOBS", "SINCE", "BY", "UNTIL", "WHY"), rows)


def add(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; others will wonder later.")],
    job: Annotated[int | None, typer.Option(help="One job, by its id.", min=1)] = None,
    types: Annotated[Words, typer.Option("--type", help="Jobs of a type; repeatable.", autocompletion=complete.types)] = None,
    states: Annotated[
        Words, typer.Option("--state", help="In an end state; repeatable.", autocompletion=complete.end_states)
    ] = None,
    owners: Annotated[Words, typer.Option("--owner", help="Of an owner; repeatable.")] = None,
    tags: Annotated[Words, typer.Option("--tag", help="With a tag; repeatable.")] = None,
    applications: Annotated[Words, typer.Option("--application", help="Of an application; repeatable.")] = None,
    clusters: Annotated[list[int] | None, typer.Option("--cluster", help="Of a cluster; repeatable.")] = None,
    labels: Annotated[Words, typer.Option("--label", help="With a label, KEY=VALUE; repeatable.")] = None,
    importance: Annotated[Words, typer.Option(help="Of an importance; repeatable.", autocompletion=complete.importances)] = None,
    until: Until = None,
) -> None:
    """Keep one job, or all that fit, now and later. Of several options all must fit; of one that is repeated, any."""
    words: dict[str, Any] = {
        "types": types,
        "states": [word.upper() for word in states or []],
        "owners": owners,
        "tags": tags,
        "applications": applications,
        "clusters": clusters,
        "labels": parse_labels(labels or []),
        "importance": importance,
    }
    match = {name: list(value) if isinstance(value, list) else value for name, value in words.items() if value}
    if (job is None) == (not match):
        raise UsageProblem(
            "say which jobs: --job ID, or --type, --state, --owner, --tag, --application, --cluster, --label, --importance"
        )
    made = add_hold(context, reason=reason, until=until, job_id=job, match=match or None)
    if context.obj.json:
        print_json(made)
        return
    say(f"hold {made['id']}: {held(made)} kept {until_words(made)}")


def rm(context: typer.Context, hold_id: JobId) -> None:
    """Let the policy decide again about what a hold keeps."""
    found = ask(context, lambda api: api.retention.remove_hold(hold_id))
    if context.obj.json:
        print_json(found)
        return
    say(f"hold {hold_id} is ended: the policy decides about {held(found)} again")


def restore(context: typer.Context, job_id: JobId) -> None:
    """Bring a deleted or archived job back; it is held from then on."""
    print_restored(context, job_id, ask(context, lambda api: api.retention.restore(job_id)))


def print_restored(context: typer.Context, job_id: int, made: Json) -> None:
    """Say that a job is back, and what keeps it."""
    if context.obj.json:
        print_json(made)
        return
    say(f"job {job_id} is back, and held so that it stays; `darner jobs release {job_id}` gives it to the policy again")


def add_hold(
    context: typer.Context, *, reason: str, until: str | None, job_id: int | None = None, match: Json | None = None
) -> dict[str, Any]:
    """Make a hold. Raises DarnerError."""

    async def question(api: "ManagerRest") -> dict[str, Any]:
        at = None if until is None else end_of(until, str((await api.retention.status())["now"]))
        return await api.retention.add_hold(job_id=job_id, match=match, reason=reason, until=at)

    if until is not None:
        end_of(until, "1970-01-01T00:00:00Z")
    return ask(context, question)


def end_of(text: str, now: str) -> str:
    """RFC 3339 of `30d` from a moment on, or of a time. Raises UsageProblem."""
    return point(text, now, sign=1, option="--until")


def parse_labels(words: list[str]) -> dict[str, list[str]]:
    """`KEY=VALUE` by key. Raises UsageProblem."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise UsageProblem(f"--label {word}: expected KEY=VALUE")
        found.setdefault(key, []).append(value)
    return found


def held(hold: Json) -> str:
    """What a hold is on."""
    return f"job {hold['job_id']}" if hold.get("job_id") is not None else matched(hold.get("match") or {})


def until_words(hold: Json) -> str:
    """Until when a hold is."""
    return f"until {moment(hold['until'])}" if hold.get("until") else "until somebody ends it"


def _until(hold: Json, now: float) -> str:
    return when(hold["until"], now) if hold.get("until") else "-"
