"""`darner retention`: what is kept, for how long, and why."""

import time
from typing import Annotated, Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.output import ago, get_path, moment, print_json, say, table
from darner.core.errors import DarnerError


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="What is kept, for how long, and why.", no_args_is_help=True)
    policy = typer.Typer(help="The policy in force.", no_args_is_help=True)
    policy.command("show")(policy_show)
    policy.command("set")(policy_set)
    policy.command("history")(policy_history)
    app.add_typer(policy, name="policy")
    app.command("status")(status)
    app.command("run")(run)
    app.command("pause")(pause)
    app.command("resume")(resume)
    root.add_typer(app, name="retention")


def policy_show(context: typer.Context) -> None:
    """Show the policy in force."""
    _print_policy(context, ask(context, lambda api: api.retention_policy()))


def policy_set(
    context: typer.Context,
    keep: Annotated[str, typer.Option(help="How long the record of an ended job is kept, like 36h; 1h at least.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the policy's version.")] = "",
) -> None:
    """Change how long the records of ended jobs are kept."""
    _print_policy(context, ask(context, lambda api: api.set_retention_policy(keep, reason)))


def policy_history(context: typer.Context) -> None:
    """List the versions of the policy: who changed it, when and why."""
    versions = ask(context, lambda api: api.retention_history())
    if context.obj.json:
        for one in versions:
            print_json(one)
        return
    rows = [
        (one["version"], moment(one.get("created_at")), one.get("created_by") or "-", _kept(one), one.get("reason") or "")
        for one in versions
    ]
    table(("VERSION", "SINCE", "BY", "KEPT", "WHY"), rows)


def pause(context: typer.Context) -> None:
    """Remove nothing by the clock until resumed."""
    _print_status(context, ask(context, lambda api: api.pause_retention(paused=True)))


def resume(context: typer.Context) -> None:
    """Let the sweeper work by the clock again."""
    _print_status(context, ask(context, lambda api: api.pause_retention(paused=False)))


def status(context: typer.Context) -> None:
    """Show what the sweeper does and did."""
    _print_status(context, ask(context, lambda api: api.retention_status()))


def run(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Sweep now."""
    found = ask(context, lambda api: api.run_retention(dry_run=dry_run))
    if context.obj.json:
        print_json(found)
        return
    verb = "would remove" if dry_run else "removed"
    count = get_path(found, "report", "total", default=0) if dry_run else found["removed"]
    say(f"run {found['id']} ({found['state']}, policy version {found['policy_version']}): {verb} {count} job records")
    for rule in get_path(found, "report", "rules", default=[]):
        for state in rule["states"]:
            between = f"ended {moment(state['oldest_finished_at'])} to {moment(state['newest_finished_at'])}"
            say(f"  rule {rule['rule']}, {state['state']}: {state['count']}, {between}")
    if found.get("error"):
        raise DarnerError(found["error"])


def _kept(version: dict[str, Any]) -> str:
    return ", ".join(f"{rule['name']} {rule['hot']}" for rule in version["rules"])


def _print_status(context: typer.Context, found: dict[str, Any]) -> None:
    if context.obj.json:
        print_json(found)
        return
    doing = "sweeping" if found["running"] else "paused" if found["paused"] else "waiting"
    say(f"sweeper    {doing}, next sweep {ago(found.get('next_run_at'), time.time())}")
    say(f"policy     version {found['policy_version']}")
    say(f"due now    {found['due']} job records")
    last = found.get("last_run")
    if last:
        kind = "dry run" if last["dry_run"] else "sweep"
        say(f"last run   {kind} {last['id']}, {last['state']}, {moment(last['started_at'])}, removed {last['removed']}")
        if last.get("error"):
            say(f"           {last['error']}")


def _print_policy(context: typer.Context, policy: dict[str, Any]) -> None:
    if context.obj.json:
        print_json(policy)
        return
    say(f"policy version {policy['version']}, by {policy.get('created_by') or '-'}, {ago(policy.get('created_at'), time.time())}")
    table(
        ("RULE", "KEPT", "COUNTED FROM", "THEN"),
        [(rule["name"], rule["hot"], rule["basis"], rule["then"]) for rule in policy["rules"]],
    )
