"""`darner retention`: what is kept, for how long, and why."""

import typer

from darner.app.cli.retention import holds, policy, preview, room, runs, status


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="What is kept, for how long, and why.", no_args_is_help=True)
    for module in (policy, preview, status, runs, holds, room):
        module.register(app)
    root.add_typer(app, name="retention")
