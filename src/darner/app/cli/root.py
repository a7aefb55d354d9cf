"""The tree of commands."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from darner import __version__
from darner.app.cli.globals import Globals, command_of
from darner.core.secret import Secret

EPILOG = "Global options (--manager, --token, --data-dir, --json, --yes) work before and after the command."


# Which module of `darner.app.cli` brings which commands. Only the module that is asked for is imported, so that `get` starts fast.
COMMANDS = {
    "processes": ("up", "manager", "scheduler", "daemon", "worker"),
    "get": ("get",),
    "preheat": ("preheat",),
    "jobs": ("jobs",),
    "retention": ("retention",),
    "task": ("task",),
    "fleet": ("fleet",),
    "token": ("token",),
    "db": ("db",),
    "config": ("config",),
}


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line for these arguments: the one command that they name, or, if they name none, all."""
    asked = command_of(arguments)
    found = [module for module, names in COMMANDS.items() if asked in names] or list(COMMANDS)
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
    for module in found:
        import_module(f"darner.app.cli.{module}").register(app)
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
