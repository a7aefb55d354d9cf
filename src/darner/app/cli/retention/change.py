"""How a change of the policy comes about: it is looked at first, agreed to when it tightens, and bound to what was looked at."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.output import print_json, say, table
from darner.app.cli.retention.preview import look, say_preview
from darner.app.cli.retention.words import bulleted, counted, rule_table
from darner.core.errors import DarnerError

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

Make = Callable[["ManagerRest", dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`candidate` for a preview; `make` sets it, given reason, base_version and preview_token."""

    candidate: Mapping[str, Any]
    make: Make
    reason: str = ""
    base_version: int | None = None


def change(context: typer.Context, wanted: Wanted, *, dry_run: bool) -> None:
    """Show what a policy would do, ask where it tightens, and make it the one in force. Raises DarnerError without consent."""
    options = context.obj
    shown = look(context, wanted.candidate)
    if not options.json:
        say_preview(shown)
    if dry_run:
        print_json(shown) if options.json else say("A dry run: nothing was changed.")
        return
    if _is_same(shown) and not wanted.reason:
        print_json({**ask(context, lambda api: api.retention.policy()), "diff": shown["diff"]}) if options.json else say(
            f"Nothing changes: version {shown['policy_version']} stays in force."
        )
        return
    if shown["diff"]["tightens"] and not options.yes:
        _agree(shown)
    base = shown["policy_version"] if wanted.base_version is None else wanted.base_version
    bound = {"reason": wanted.reason, "base_version": base, "preview_token": shown["token"]}
    made = ask(context, lambda api: wanted.make(api, bound))
    if options.json:
        print_json(made)
        return
    say(f"Version {made['version']} is in force.")
    say_rules(made)
    if shown["total"]["rows"] and not _is_same(shown):
        say(f"The next sweep removes {counted(shown['total']['rows'])}; `darner retention status` says when.")


def _is_same(shown: Mapping[str, Any]) -> bool:
    return not shown["diff"]["rules"] and not shown["diff"]["bookkeeping"]


def _agree(shown: Mapping[str, Any]) -> None:
    """Ask a person. Raises DarnerError where there is none, or the answer is no."""
    diff = shown["diff"]
    at_once = diff["removed_only_now"]
    sooner = diff["rows_sooner"]
    now = (
        f"{counted(sooner)} that {'is' if sooner == 1 else 'are'} there now"
        if sooner
        else "jobs to come, but none that is there now,"
    )
    what = f"{now} will be forgotten sooner"
    what += f", {at_once:,} of them with the next sweep" if at_once else ""
    if sys.stdin.isatty():
        if typer.confirm(f"This tightens the policy: {what}. Make it the policy?", err=True):
            return
        raise DarnerError("nothing was changed")
    raise DarnerError(f"nothing was changed: this tightens the policy ({what}); if that is meant, give --yes")


def say_rules(policy: Mapping[str, Any]) -> None:
    """The rules in a table, and what is noted about them."""
    headings, rows = rule_table(policy["rules"])
    table(headings, rows)
    bulleted((policy.get("diff") or {}).get("notes") or [], "Note:")
