"""The tree of commands."""

from pathlib import Path
from typing import Annotated

import typer

from darner import __version__
from darner.app.cli import config, fleet, get, jobs, preheat, processes, retention, task, token
from darner.app.cli.globals import Globals
from darner.core.secret import Secret

EPILOG = "Global options (--manager, --token, --data-dir, --json, --yes) work before and after the command."


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="darner",
        help="Peer-to-peer distribution of files and container images, with a job history whose retention you control.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_globals)
    for room in (processes, get, preheat):
        room.register(app)
    for room, name in (
        (jobs, "jobs"),
        (retention, "retention"),
        (task, "task"),
        (fleet, "fleet"),
        (token, "token"),
        (config, "config"),
    ):
        app.add_typer(room.build(), name=name)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"darner {__version__}")
        raise typer.Exit


def _globals(
    context: typer.Context,
    *,
    manager: Annotated[
        str | None, typer.Option(help="The manager's URL (DARNER_MANAGER); default: the running `darner up`.")
    ] = None,
    token_text: Annotated[str | None, typer.Option("--token", help="Access token (DARNER_TOKEN).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Directory of `darner up`; default: $XDG_DATA_HOME/darner.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Answer every confirmation with yes.")] = False,
    version: Annotated[  # noqa: ARG001  (acts in its callback, before a command is asked for)
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = Globals(manager=manager, token=Secret(token_text) if token_text else None, data_dir=data_dir, json=json, yes=yes)
