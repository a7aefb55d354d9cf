"""`darner config`: what is in force, and where each value came from; reading upstream's files."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from darner.app.cli.globals import Globals
from darner.app.cli.output import print_json, say, table
from darner.app.cli.run import UsageProblem
from darner.core.errors import DarnerError
from darner.core.secret import MASK
from darner.core.task import Headers
from darner.kit.config import ConfigError, key_of, load, shown

PROCESSES = ("manager", "scheduler", "daemon", "worker")
Process = Annotated[str, typer.Option("--process", "-p", help=f"Whose configuration: {', '.join(PROCESSES)}.")]


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="What is configured, and where each value came from.", no_args_is_help=True)
    app.command("show")(show)
    app.command("import")(import_file)
    root.add_typer(app, name="config")


def kind_of(process: str) -> type[Any]:
    """The configuration class of a process."""
    if process == "manager":
        from darner.app.manager import ManagerConfig

        return ManagerConfig
    if process == "scheduler":
        from darner.app.scheduler import SchedulerProcessConfig

        return SchedulerProcessConfig
    if process == "worker":
        from darner.app.worker import WorkerProcessConfig

        return WorkerProcessConfig
    if process == "daemon":
        from darner.daemon.config import DaemonConfig

        return DaemonConfig
    raise UsageProblem(f"--process {process}: expected one of {', '.join(PROCESSES)}")


def show(
    context: typer.Context,
    process: Process = "daemon",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The YAML file to read.")] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="All values, not only those that differ from the default.")
    ] = False,
) -> None:
    """Print the values in force and where each came from."""
    options: Globals = context.obj
    try:
        loaded = load(kind_of(process), config, os.environ)
    except ConfigError as error:
        raise DarnerError(str(error)) from None
    rows = [
        (key, value, loaded.sources.get(key, "default"))
        for key, value in flatten(loaded.value)
        if effective or loaded.sources.get(key, "default") != "default"
    ]
    if options.json:
        print_json([{"key": key, "value": value, "source": source} for key, value, source in rows])
        return
    table(("KEY", "VALUE", "FROM"), rows)


def import_file(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Upstream's dfdaemon.yaml, scheduler.yaml or manager.yaml.")],
    process: Process = "daemon",
    retention: Annotated[
        bool, typer.Option("--retention", help="Also make the job TTL of a manager.yaml the running manager's retention policy.")
    ] = False,
) -> None:
    """Read an upstream file: prints the configuration that Darner understands, and says what was ignored."""
    options: Globals = context.obj
    given = _yaml(path)
    kept, ignored = split_known(kind_of(process), given, ())
    told = _retention(given) if process == "manager" else None
    if told is not None:
        ignored = [key for key in ignored if key not in told["sections"]] + told.pop("unread")
        told["applied"] = _apply(context, given) if retention else None
    elif retention:
        raise UsageProblem(f"{path} says nothing about how long jobs are kept (job.gc.ttl); --retention needs --process manager")
    if options.json:
        print_json({"kept": kept, "ignored": ignored, "retention": told})
        return
    say(yaml.safe_dump(kept, sort_keys=False).rstrip())
    for key in ignored:
        say(f"# ignored: {key} (Darner has no such setting)")
    _say_retention(told, path)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise DarnerError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DarnerError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise DarnerError(f"{path} is not a configuration: keys and values are expected")
    return given


def _retention(given: dict[str, Any]) -> dict[str, Any] | None:
    """What a manager.yaml says about how long jobs are kept. A policy is no configuration: it lives in the database."""
    from darner.retention.imports import policy_from_manager_yaml
    from darner.retention.parse import policy_to_json

    found = policy_from_manager_yaml(given)
    if found is None:
        return None
    sections = sorted({field.partition(".")[0] for field in found.fields})
    unread = [key for name in sections for key in _leaves(given[name], (name,)) if key not in found.fields]
    return {"policy": policy_to_json(found.policy), "notes": list(found.notes), "sections": sections, "unread": unread}


def _leaves(value: Any, at: tuple[str, ...]) -> list[str]:  # noqa: ANN401  (YAML)
    if not isinstance(value, dict) or not value:
        return [".".join(at)]
    return [key for name, inner in value.items() for key in _leaves(inner, (*at, str(name)))]


def _apply(context: typer.Context, given: dict[str, Any]) -> int:
    """Make it the policy; its version. Nothing but the sections in question is sent: the file has passwords, too."""
    from darner.app.cli.api import ask

    sections: dict[str, Any] = {name: given[name] for name in ("job", "audit") if name in given}
    made = ask(context, lambda api: api.retention.import_policy(sections))
    return int(made["version"])


def _say_retention(told: dict[str, Any] | None, path: Path) -> None:
    if told is None:
        return
    for note in told["notes"]:
        say(f"# retention: {note}")
    if told["applied"] is not None:
        say(f"# retention: it is the policy in force now, version {told['applied']}.")
        return
    say("# retention: policies are kept in the database. To make it the running manager's policy:")
    say(f"#   darner config import {path} --process manager --retention")


def flatten(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, str]]:  # noqa: ANN401
    """Dotted keys and values of a configuration, as one would write them."""
    found: list[tuple[str, str]] = []
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        key = (*at, key_of(field))
        plain = not dataclasses.is_dataclass(inner)
        found += [(".".join(key), _shown(inner, field.metadata.get("unit")))] if plain else flatten(inner, key)
    return found


def _shown(value: Any, unit: str | None) -> str:  # noqa: ANN401
    """A value without its secrets: passwords in URLs, and headers that log in."""
    text = shown(Headers(value) if isinstance(value, dict) else value, unit)
    return re.sub(r"(://[^/@:]*):[^/@]*@", rf"\1:{MASK}@", text)


def split_known(kind: Any, given: dict[str, Any], at: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:  # noqa: ANN401
    """(what this configuration class knows, dotted keys that it does not)."""
    import typing

    hints = typing.get_type_hints(kind)
    fields = {key_of(field): hints[field.name] for field in dataclasses.fields(kind)}
    kept: dict[str, Any] = {}
    ignored: list[str] = []
    for key, value in given.items():
        hint = fields.get(str(key))
        if hint is None:
            ignored.append(".".join((*at, str(key))))
        elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
            kept[key], below = split_known(hint, value, (*at, str(key)))
            ignored += below
        else:
            kept[key] = value
    return kept, ignored
