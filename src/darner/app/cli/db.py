"""`darner db`: the metadata database, without a manager: whether it is as it should be, its schema, its size."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from darner.app.cli.globals import Globals
from darner.app.cli.output import note, print_json, say, table
from darner.app.cli.run import UsageProblem
from darner.core.errors import DarnerError, NotFoundError
from darner.db import Database, migrate, schema_of
from darner.db.checks import Level, check
from darner.db.sizes import sizes
from darner.kit.config import ConfigError, load
from darner.kit.units import format_size

PATIENCE_S = 5.0
Url = Annotated[
    str | None, typer.Option("--database", help="URL of the database; default: that of the last `darner up` in the data directory.")
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The manager's YAML file, which names the database.")]


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="The metadata database: check it, upgrade it, measure it.", no_args_is_help=True)
    app.command("check")(check_database)
    app.command("upgrade")(upgrade)
    app.command("size")(size)
    root.add_typer(app, name="db")


def check_database(
    context: typer.Context,
    database: Url = None,
    config: Config = None,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the integrity of an SQLite file, which reads all of it.")] = False,
) -> None:
    """Look at everything that Darner needs of the database; ends with 1 if something is wrong. Changes nothing."""
    options: Globals = context.obj
    with _opened(options, database, config) as db:
        found = check(db, fast=fast)
        name = db.name
    failed = any(one.level == Level.FAIL for one in found)
    if options.json:
        print_json({"database": name, "ok": not failed, "findings": [asdict(one) for one in found]})
    else:
        note(name)
        table(("", "WHAT", "FOUND"), [(one.level.upper(), one.name, one.value) for one in found])
        for one in found:
            if one.hint:
                say(f"{one.level}: {one.name}: {one.hint}")
    if failed:
        raise typer.Exit(1)


def upgrade(
    context: typer.Context,
    database: Url = None,
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Bring the tables to this version of Darner, as the first manager that starts would."""
    options: Globals = context.obj
    with _opened(options, database, config, make=not dry_run) as db:
        before = schema_of(db)
        if before.pending and before.present and not options.json:
            note(f"There is no way back but a backup. {_backup(db)}")
        reached = before.present if dry_run else migrate(db)
    steps = list(before.pending)
    if options.json:
        print_json({"from": before.present, "to": before.newest, "steps": steps, "done": not dry_run, "schema": reached})
    elif not before.pending and not before.unknown:
        say(f"The schema is {before.present}, the newest; nothing to do.")
    elif before.unknown:  # a dry run alone comes here: `migrate` refuses
        raise DarnerError(f"The schema is {before.present}, newer than this Darner, which knows up to {before.newest}.")
    else:
        what = "would be upgraded" if dry_run else "was upgraded"
        say(f"The schema {what} from {before.present or 'nothing'} to {before.newest}: {', '.join(steps)}.")


def size(context: typer.Context, database: Url = None, config: Config = None) -> None:
    """How large each table is; rows are estimates on servers."""
    options: Globals = context.obj
    with _opened(options, database, config) as db:
        found = db.read_sync(sizes)
        name = db.name
    if options.json:
        print_json({"database": name, **asdict(found)})
        return
    note(name)
    rows = [
        (one.name, one.rows, format_size(one.bytes), format_size(one.index_bytes), format_size(one.reclaimable))
        for one in found.tables
    ]
    table(("TABLE", "ROWS", "SIZE", "OF IT INDEXES", "RECLAIMABLE"), rows)
    free = f", {format_size(found.free_bytes)} of it free" if found.free_bytes else ""
    say(f"{format_size(found.bytes)} in all{free}.")


@contextmanager
def _opened(options: Globals, url: str | None, config: Path | None, *, make: bool = False) -> Iterator[Database]:
    """The database that is meant; a missing SQLite file is made only where `make` says so."""
    found = _url(options, url, config)
    file = Path(found.removeprefix("sqlite:///"))
    if found.startswith("sqlite:///") and not make and not file.exists():
        raise NotFoundError(f"There is no database file {file}.")
    db = Database.open(found, patience_s=PATIENCE_S)
    try:
        yield db
    finally:
        db.close()


def _url(options: Globals, url: str | None, config: Path | None) -> str:
    if url is not None:
        if config is not None:
            raise UsageProblem("give --database or --config, not both")
        return url
    from darner.app.manager import ManagerConfig

    path = config or options.directory() / "config" / "manager.yaml"
    if config is None and not path.exists():
        where = f"`darner up` never ran in {options.directory()}"
        raise UsageProblem(f"no database is known: {where}; give --database URL, or --config FILE of a manager")
    try:
        return load(ManagerConfig, path, os.environ).value.database.url
    except ConfigError as error:
        raise UsageProblem(str(error)) from None


def _backup(db: Database) -> str:
    """How to make one with the database's own tool, without a password in it."""
    url = db.engine.url
    at = f"--host={url.host} --port={url.port} --user={url.username}" if url.port else f"--host={url.host} --user={url.username}"
    if db.dialect == "sqlite":
        return f"Make one: sqlite3 {url.database} '.backup {url.database}.before-upgrade'"
    if db.dialect == "postgresql":
        named = at.replace("--user=", "--username=")
        return f"Make one: pg_dump {named} --format=custom --file=darner.dump {url.database}"
    return f"Make one: mariadb-dump {at} --password --single-transaction {url.database} > darner.sql"
