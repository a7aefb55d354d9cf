"""`darner retention preview`: what a policy would do, before it does it."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.complete import presets
from darner.app.cli.output import moment, print_json, say, table
from darner.app.cli.progress import told_on_terminal
from darner.app.cli.retention.reading import named, read_policy
from darner.app.cli.retention.words import WILL, bulleted, counted, sized
from darner.app.cli.run import UsageProblem
from darner.core.errors import InvalidInputError

Json = Mapping[str, Any]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("preview")(preview)


def preview(
    context: typer.Context,
    preset: Annotated[str | None, typer.Option(help="Look at a preset.", autocompletion=presets)] = None,
    file: Annotated[str | None, typer.Option(help="Look at a policy in a file (YAML or JSON), - for stdin.")] = None,
    version: Annotated[int | None, typer.Option(help="Look at an earlier version.", min=1)] = None,
    keep: Annotated[str | None, typer.Option(help="Look at one rule for all jobs, like 36h.")] = None,
) -> None:
    """Show what the next sweep would do under the policy in force, or under another one; changes nothing."""
    given = {"--preset": preset, "--file": file, "--version": version, "--keep": keep}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageProblem(f"say {names[0]} or {names[1]}, not both")
    candidate: dict[str, Any] = {}
    if preset is not None:
        candidate = {"preset": preset}
    elif version is not None:
        candidate = {"version": version}
    elif keep is not None:
        candidate = {"policy": {"keep": keep}}
    elif file is not None:
        candidate = {"policy": read_policy(file).data}
    shown = look(context, candidate)
    if context.obj.json:
        print_json(shown)
        return
    say_preview(shown)
    if preset is not None:
        say(f"To make it the policy: darner retention policy preset {preset}")
    elif version is not None:
        say(f"To make it the policy: darner retention policy rollback {version}")
    elif not candidate and shown["total"]["rows"]:
        say(f"To remove it now: darner retention run --preview-token {shown['token']}")


def look(context: typer.Context, candidate: Json) -> dict[str, Any]:
    """A preview from the manager. InvalidInputError names the rule."""
    # A long history takes some seconds.
    with told_on_terminal("looking at all jobs …"):
        try:
            return ask(context, lambda api: api.retention.preview(candidate))
        except InvalidInputError as error:
            policy = candidate.get("policy")
            raise named(error, policy if isinstance(policy, Mapping) else {}) from None


def say_preview(shown: Json) -> None:
    """A preview for a person: what changes in words, what moves in figures."""
    diff, against = shown["diff"], shown["policy_version"]
    same = not diff["rules"] and not diff["bookkeeping"]
    if not same:
        bulleted(diff["words"], f"Against version {against}, which is in force:" if against else "There is no policy yet:")
    under = f"Under version {against}, which is in force," if same else "Under this policy"
    entries = [one for one in shown["rules"] if one["rows"]]
    if entries:
        say(f"{under} the next sweep does, of {counted(shown['jobs'], 'ended job')} in the database:")
        table(("  RULE", "DOES", "FROM", "JOBS", "SIZE", "ENDED"), [_row(one) for one in entries])
    else:
        say(f"{under} the next sweep has nothing to do.")
    _say_totals(shown, same=same)
    bulleted(shown.get("notes") or [], "Note:")


def _row(entry: Json) -> tuple[object, ...]:
    newest = moment(entry["newest"])
    between = newest if entry["oldest"] in {None, entry["newest"]} else f"{moment(entry['oldest'])} to {newest}"
    does = WILL.get(entry["action"], entry["action"])
    return (f"  {entry['rule']}", does, entry["tier"], f"{entry['rows']:,}", sized(entry["bytes"]), between)


def _say_totals(shown: Json, *, same: bool) -> None:
    diff, total = shown["diff"], shown["total"]
    if total["rows"] or diff["removed_in_force"]:
        now = "" if same else f"; as things are, {diff['removed_in_force']:,} would be"
        say(f"Removed: {counted(total['rows'])}, {sized(total['bytes'])}{now}.")
    shifts = [
        f"{diff[key]:,} will be forgotten {word}" for key, word in (("rows_sooner", "sooner"), ("rows_later", "later")) if diff[key]
    ]
    if shifts and not same:
        say(f"Of the jobs that are there now, {' and '.join(shifts)} than as things are.")
