"""`darner retention budget`, `window`, `archive` and `exports`: room, hours, and where records go beside the database."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from darner.app.cli.api import ask
from darner.app.cli.jobs import confirm
from darner.app.cli.output import ago, moment, print_json, say, table
from darner.app.cli.retention.words import counted, point, sized, when
from darner.core.errors import DarnerError

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

Json = Mapping[str, Any]
T = TypeVar("T")
Sink = Annotated[str, typer.Argument(metavar="SINK", help="Name of a sink.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    budget = typer.Typer(help="How much room the history may take.", no_args_is_help=True)
    budget.command("show")(budget_show)
    budget.command("set")(budget_set)
    app.add_typer(budget, name="budget")
    window = typer.Typer(help="When sweeps may remove.", no_args_is_help=True)
    window.command("show")(window_show)
    window.command("set")(window_set)
    app.add_typer(window, name="window")
    archive = typer.Typer(help="The archive of old jobs.", no_args_is_help=True)
    archive.command("ls")(archive_ls)
    archive.command("erase")(archive_erase)
    app.add_typer(archive, name="archive")
    exports = typer.Typer(help="What waits for each sink, and why.", invoke_without_command=True)
    exports.callback()(_exports)
    exports.command("ls")(exports_ls)
    exports.command("retry")(exports_retry)
    exports.command("resend")(exports_resend)
    exports.command("drop")(exports_drop)
    app.add_typer(exports, name="exports")


def budget_show(context: typer.Context) -> None:
    """Show how much room the history may take."""
    _say_budget(context, ask(context, lambda api: api.retention.budget()))


def budget_set(
    context: typer.Context,
    budget: Annotated[str, typer.Argument(help="'keep at most 20 GiB', 'keep 10 % of the disk free', or none.")],
    shorten: Annotated[
        str | None,
        typer.Option(
            help="When the disk is nearly full, remove earlier than the rules say, but nothing younger than this: like 7d."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Say how much room the history may take. Lossless steps come first; only with --shorten is anything removed for it."""
    if (
        shorten is not None
        and not context.obj.yes
        and not confirm(f"When the disk is nearly full, jobs older than {shorten} go before their rules say so. Is that meant?")
    ):
        raise DarnerError("nothing was changed: --shorten removes jobs earlier than their rules say; if it is meant, give --yes")
    body = {"budget": budget, "shorten": shorten, "reason": reason}
    _say_budget(context, ask(context, lambda api: api.retention.set_budget(**body)))


def window_show(context: typer.Context) -> None:
    """Show when sweeps may remove."""
    _say_window(context, ask(context, lambda api: api.retention.window()))


def window_set(
    context: typer.Context,
    window: Annotated[str, typer.Argument(help="Span of the day, like 22:00-06:00; any: at any time.")],
    zone: Annotated[str, typer.Option(help="On the clock of this zone, like Europe/Berlin.")] = "UTC",
) -> None:
    """Remove only at some hours. Compressing and archiving lose nothing and go on."""
    span = None if window.lower() in {"any", "none", "always"} else window
    _say_window(context, ask(context, lambda api: api.retention.set_window(span, zone)))


def archive_ls(
    context: typer.Context, limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100_000)] = 50
) -> None:
    """List the files of the archive, newest first."""
    found = _ask_archive(context, lambda api: api.retention.segments(limit=limit))
    if context.obj.json:
        for one in found:
            print_json(one)
        return
    rows = [
        (
            one["id"],
            one["state"],
            one["rule"],
            f"{one['row_count']:,}",
            sized(one["bytes"]),
            f"{moment(one.get('min_created_at'))} to {moment(one.get('max_created_at'))}",
            one["location"],
            one.get("error") or "",
        )
        for one in found
    ]
    table(("FILE", "STATE", "RULE", "JOBS", "SIZE", "CREATED", "WHERE", "PROBLEM"), rows)


def archive_erase(
    context: typer.Context,
    job_ids: Annotated[list[int], typer.Argument(metavar="ID...", help="Jobs to take out of the archive for good.")],
    reason: Annotated[str, typer.Option(help="Why; it is written down.")],
) -> None:
    """Take jobs out of the archive for good; their files are written anew without them."""
    if not context.obj.yes and not confirm(f"Erase {counted(len(job_ids))} from the archive? Nothing brings them back."):
        raise DarnerError("nothing was erased: a confirmation is needed; answer yes, or give --yes")
    found = _ask_archive(context, lambda api: api.retention.erase(job_ids, reason))
    if context.obj.json:
        print_json(found)
        return
    files = counted(int(found["segments"]), "file")
    say(f"{counted(int(found['jobs']))} cannot be found any more; the next sweep takes the bytes out of {files}")
    if found.get("missing"):
        say(f"not in the archive: {', '.join(map(str, found['missing']))}")


def _ask_archive(context: typer.Context, question: "Callable[[ManagerRest], Awaitable[T]]") -> T:
    from darner.client.rest import NoRouteError

    try:
        return ask(context, question)
    except NoRouteError:
        raise DarnerError("this manager has no archive; retention.archive.url in its configuration says where one is") from None


def _exports(context: typer.Context) -> None:
    """What waits for each sink, and why."""
    if context.invoked_subcommand is None:
        exports_ls(context)


def exports_retry(context: typer.Context, sink: Sink) -> None:
    """Try again now what a sink refused, without waiting for its turn."""
    found = ask(context, lambda api: api.retention.retry_export(sink))
    print_json(found) if context.obj.json else say(f"{counted(found['retried'])} will be told to {sink} again now")


def exports_resend(
    context: typer.Context,
    sink: Sink,
    since: Annotated[str, typer.Option(help="From this long ago, like 24h, or from a time on.")],
    until: Annotated[str, typer.Option(help="To this long ago, or to a time.")] = "0s",
) -> None:
    """Tell a sink again what it has acknowledged and then lost; as far as the jobs are still there."""

    async def question(api: "ManagerRest") -> dict[str, Any]:
        now = str((await api.retention.status())["now"])
        times = [point(text, now, sign=-1, option=option) for text, option in ((since, "--since"), (until, "--until"))]
        return await api.retention.resend_export(sink, *times)

    found = ask(context, question)
    print_json(found) if context.obj.json else say(f"{counted(found['resent'])} will be told to {sink} again")


def exports_drop(context: typer.Context, sink: Sink) -> None:
    """Let nothing wait any more for a sink that no configuration and no rule names."""
    if not context.obj.yes and not confirm(f"Jobs that wait for {sink} will never be told to it. Forget it?"):
        raise DarnerError("nothing was changed: a confirmation is needed; answer yes, or give --yes")
    found = ask(context, lambda api: api.retention.drop_export(sink))
    print_json(found) if context.obj.json else say(f"{sink} is forgotten; {counted(found['waited'])} waited for it")


def exports_ls(context: typer.Context) -> None:
    """Show what waits for each sink, and why."""
    found = ask(context, lambda api: api.retention.exports())
    if context.obj.json:
        for one in found:
            print_json(one)
        return
    if not found:
        say("No rule exports, and no sink is configured.")
        return
    now = time.time()
    rows = [
        (
            one["name"],
            one["kind"] or "-",
            one["state"],
            f"{one['pending']:,}",
            ago(one.get("oldest_at"), now),
            f"{one['delivered']:,}",
            f"{one['lost']:,}",
            (one.get("failing") or {}).get("error") or one.get("last_error") or "",
        )
        for one in found
    ]
    table(("SINK", "KIND", "STATE", "WAITING", "OLDEST", "DELIVERED", "LOST", "LAST ERROR"), rows)


def _say_budget(context: typer.Context, found: Json) -> None:
    if context.obj.json:
        print_json(found)
        return
    say(f"budget     {found.get('budget') or found.get('text') or 'none'}")
    if found.get("shorten"):
        say(f"shorten    when the disk is nearly full, but nothing younger than {found['shorten']}")
    now = time.time()
    for one in reversed(found.get("history") or []):
        why = f": {one['reason']}" if one.get("reason") else ""
        say(f"           {when(one.get('at'), now)} {one.get('by') or '-'} set {one.get('text')}{why}")


def _say_window(context: typer.Context, found: Json) -> None:
    if context.obj.json:
        print_json(found)
        return
    span = found.get("window")
    say(f"sweeps remove from {span.replace('-', ' to ')} ({found['zone']})" if span else "sweeps remove at any time")
