"""`darner retention`: what is kept, for how long, and why."""

import time
from typing import Annotated, Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.output import ago, moment, print_json, say, table


def build() -> typer.Typer:
    """The subcommands."""
    app = typer.Typer(help="What is kept, for how long, and why.", no_args_is_help=True)
    policy = typer.Typer(help="The policy in force.", no_args_is_help=True)
    policy.command("show")(policy_show)
    policy.command("set")(policy_set)
    app.add_typer(policy, name="policy")
    app.command("status")(status)
    app.command("run")(run)
    return app


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


def status(context: typer.Context) -> None:
    """Show what the sweeper does and did."""
    found = ask(context, lambda api: api.retention_status())
    if context.obj.json:
        print_json(found)
        return
    for line in flat_lines(found):
        say(line)


def run(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Sweep now."""
    found = ask(context, lambda api: api.run_retention(dry_run=dry_run))
    if context.obj.json:
        print_json(found)
        return
    for line in flat_lines(found):
        say(line)


def _print_policy(context: typer.Context, policy: dict[str, Any]) -> None:
    if context.obj.json:
        print_json(policy)
        return
    say(f"policy version {policy['version']}, by {policy.get('created_by') or '-'}, {ago(policy.get('created_at'), time.time())}")
    table(
        ("RULE", "KEPT", "COUNTED FROM", "THEN"),
        [(rule["name"], rule["hot"], rule["basis"], rule["then"]) for rule in policy["rules"]],
    )


def flat_lines(value: dict[str, Any], indent: int = 0) -> list[str]:
    """Nested values as indented lines; times as people read them."""
    lines = []
    for key, inner in value.items():
        label = " " * indent + str(key).replace("_", " ")
        if isinstance(inner, dict):
            lines += [label, *flat_lines(inner, indent + 2)] if inner else []
        elif isinstance(inner, list):
            lines.append(f"{label}: {len(inner)}")
            for one in inner:
                lines += flat_lines(one, indent + 2) if isinstance(one, dict) else [" " * (indent + 2) + str(one)]
        else:
            lines.append(f"{label}: {moment(inner) if str(key).endswith('_at') else '-' if inner is None else inner}")
    return lines
