"""`darner fleet`: who is in the swarm."""

import time
from typing import Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.output import ago, print_json, say, table


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="Clusters, schedulers, seed peers, peers and their health.", no_args_is_help=True)
    app.command("ls")(ls)
    app.callback()(lambda: None)
    root.add_typer(app, name="fleet")


def ls(context: typer.Context) -> None:
    """List clusters, schedulers, seed peers and peers, and their health."""
    fleet = ask(context, lambda api: api.fleet())
    if context.obj.json:
        print_json(fleet)
        return
    now = time.time()
    say("clusters")
    table(
        ("ID", "NAME", "DEFAULT"), [(one["id"], one["name"], "yes" if one.get("is_default") else "") for one in fleet["clusters"]]
    )
    say("\nschedulers")
    table(("ID", "HOST", "ADDRESS", "CLUSTER", "STATE"), [_scheduler(one) for one in fleet["schedulers"]])
    say("\nseed peers and peers")
    table(("HOST", "TYPE", "ADDRESS", "CLUSTER", "STATE", "SEEN"), [_peer(one, now) for one in fleet["peers"]])


def _scheduler(one: dict[str, Any]) -> tuple[object, ...]:
    return one["id"], one["host_name"], f"{one['ip']}:{one['port']}", one["scheduler_cluster_id"], one["state"]


def _peer(one: dict[str, Any], now: float) -> tuple[object, ...]:
    kind = "seed" if one.get("type") == "super" else "peer"
    seen = ago(one.get("updated_at"), now)
    return one["host_name"], kind, f"{one['ip']}:{one['port']}", one["scheduler_cluster_id"], one["state"], seen
