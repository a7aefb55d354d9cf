"""The commands that run processes: `up`, and the production ones."""

import os
from pathlib import Path
from typing import Annotated

import typer

from darner.app.cli.globals import Globals
from darner.app.cli.run import UsageProblem
from darner.kit.config import ConfigError

Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; keys may also be given as DARNER_SECTION__KEY.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, manager, scheduler, daemon, worker):
        app.command(command.__name__)(command)


def up(
    context: typer.Context,
    peers: Annotated[int, typer.Option(help="How many ordinary daemons besides the seed.")] = 2,
    port_base: Annotated[int, typer.Option(help="First of the ports that are used.")] = 8080,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="DARNER_DATABASE__URL",
            show_envvar=False,
            help="URL of the metadata database (DARNER_DATABASE__URL); default: SQLite in the data directory.",
        ),
    ] = None,
) -> None:
    """Run the whole system on this machine, in the foreground; Ctrl-C stops it cleanly."""
    from darner.app.up.run import up as run_up

    options: Globals = context.obj
    run_up(options.directory(), peers=peers, port_base=port_base, database=database)


def manager(config: Config = None) -> None:
    """Run a manager."""
    from darner.app.manager import ManagerConfig, run_manager

    _run("manager", ManagerConfig, run_manager, config)


def scheduler(config: Config = None) -> None:
    """Run a scheduler (and a worker beside it, if its configuration says so)."""
    from darner.app.scheduler import SchedulerProcessConfig, run_scheduler

    _run("scheduler", SchedulerProcessConfig, run_scheduler, config)


def worker(config: Config = None) -> None:
    """Run a worker, which carries the parts of jobs out in one cluster."""
    from darner.app.worker import WorkerProcessConfig, run_worker

    _run("worker", WorkerProcessConfig, run_worker, config)


def daemon(
    config: Config = None,
    seed: Annotated[bool, typer.Option("--seed", help="Make it a seed peer.")] = False,
) -> None:
    """Run a daemon; `--seed` makes it a seed peer."""
    from darner.app.daemon import run_daemon
    from darner.daemon.config import DaemonConfig

    if seed:
        os.environ["DARNER_SEEDPEER__ENABLE"] = "true"
    _run("daemon", DaemonConfig, run_daemon, config)


def _run(name: str, kind, main, path: Path | None) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Load the configuration and run the process; its exit code becomes ours."""
    from darner.app.process import run
    from darner.kit.config import load

    try:
        loaded = load(kind, path, os.environ)
    except ConfigError as error:
        raise UsageProblem(str(error)) from None
    code = run(name, lambda stop, ready: main(loaded.value, stop, ready))
    raise typer.Exit(code)
