"""`darner retention policy`: the policy in force, its versions, and how it is changed."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darner.app.cli import complete
from darner.app.cli.api import ask
from darner.app.cli.jobs import parse_id
from darner.app.cli.output import moment, print_json, say, table
from darner.app.cli.retention.change import Wanted, change, say_rules
from darner.app.cli.retention.reading import Given, change_rule, parse_policy, read_policy, to_yaml
from darner.app.cli.retention.words import bulleted, kept, rule_table, when
from darner.app.cli.run import UsageProblem, complain
from darner.core.errors import ConflictError, DarnerError, InvalidInputError

if TYPE_CHECKING:
    from darner.client.rest import ManagerRest

Reason = Annotated[str, typer.Option(help="Why; kept with the policy's version.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would do.")]
Version = Annotated[
    int, typer.Argument(metavar="VERSION", parser=parse_id, help="Number of a version; `policy history` lists them.")
]


def register(app: typer.Typer) -> None:
    """Add the subcommands."""
    policy = typer.Typer(help="The policy in force, its history, and how it is changed.", no_args_is_help=True)
    policy.command("show")(show)
    policy.command("set")(set_policy)
    policy.command("edit")(edit)
    policy.command("preset")(preset)
    policy.command("history")(history)
    policy.command("diff")(diff)
    policy.command("rollback")(rollback)
    app.add_typer(policy, name="policy")


def show(
    context: typer.Context,
    version: Annotated[int | None, typer.Argument(metavar="VERSION", parser=parse_id, help="An earlier version.")] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As a file for `policy set --file`.")] = False,
) -> None:
    """Show the policy in force, or one of its versions."""
    policy = ask(context, lambda api: api.retention.policy(version))
    if context.obj.json:
        print_json(policy)
    elif as_yaml:
        say(f"# version {policy['version']} of {moment(policy['created_at'])}\n{to_yaml(policy)}".rstrip())
    else:
        _say_policy(policy)


def set_policy(
    context: typer.Context,
    keep: Annotated[str | None, typer.Option(help="One rule for all jobs: kept that long after their end, like 36h.")] = None,
    file: Annotated[str | None, typer.Option(help="A whole policy in a file (YAML or JSON), - for stdin.")] = None,
    rule: Annotated[str | None, typer.Option(help="Change this rule alone.", autocompletion=complete.rules)] = None,
    hot: Annotated[str | None, typer.Option(help="Of the rule: the age until which jobs are hot; keep: for ever.")] = None,
    warm: Annotated[str | None, typer.Option(help="Of the rule: until which they are warm; none: never.")] = None,
    archive: Annotated[str | None, typer.Option(help="Of the rule: until which they are archived; none: never.")] = None,
    undo: Annotated[str | None, typer.Option(help="Of the rule: how long deleted jobs can be restored; none: not.")] = None,
    keep_last: Annotated[str | None, typer.Option(help="Of the rule: successes that stay per url or image, like 3/image.")] = None,
    export: Annotated[str | None, typer.Option(help="Of the rule: the sink that must have a job before it goes; none.")] = None,
    basis: Annotated[
        str | None, typer.Option(help="Of the rule: count from finished or created.", autocompletion=complete.bases)
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
) -> None:
    """Change how long the records of ended jobs are kept: for all, from a file, or in one rule."""
    fields = {"hot": hot, "warm": warm, "archive": archive, "undo": undo, "keep_last": keep_last, "export": export, "basis": basis}
    given = [name for name, value in (("--keep", keep), ("--file", file), ("--rule", rule)) if value is not None]
    stray = [f"--{name.replace('_', '-')}" for name, value in fields.items() if value is not None]
    if len(given) > 1:
        raise UsageProblem(f"say {given[0]} or {given[1]}, not both")
    if stray and rule is None:
        raise UsageProblem(f"{stray[0]} changes one rule; say which with --rule (`darner retention policy show` lists them)")
    if keep is not None:
        found = Given(data={"keep": keep})
    elif file is not None:
        found = read_policy(file)
    elif rule is not None:
        present = ask(context, lambda api: api.retention.policy())
        found = Given(data=change_rule(present, rule, fields), base_version=present["version"])
    else:
        raise UsageProblem("say what to keep: --keep 36h for all jobs, --rule NAME --warm 14d for some, or --file policy.yaml")
    change(context, _written(found, reason), dry_run=dry_run)


def edit(context: typer.Context, reason: Reason = "", dry_run: DryRun = False) -> None:
    """Change the policy in your editor ($VISUAL or $EDITOR)."""
    if not sys.stdin.isatty():
        raise DarnerError("an editor needs a terminal; use `darner retention policy set --file -`")
    present = ask(context, lambda api: api.retention.policy())
    before = to_yaml(present)
    text = f"# Version {present['version']}. Rules are asked in order, the first that fits a job decides. Save and quit to go on.\n"
    text += before
    while True:
        text = _edited(text)
        try:
            found = parse_policy(text, "the text")
            if to_yaml(found.data) == before:
                say("Nothing was changed.")
                return
            change(context, _written(Given(data=found.data, base_version=present["version"]), reason), dry_run=dry_run)
            return
        except InvalidInputError as error:
            complain(error.message)
        except ConflictError as error:
            raise ConflictError(f"{error.message} What you wrote is in {_rescued(text)}") from None
        if not typer.confirm("Edit again?", default=True, err=True):
            raise DarnerError("nothing was changed")


def preset(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Which one; none lists them.", autocompletion=complete.presets)
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
) -> None:
    """Make a preset the policy; without a name, list the presets."""
    if name is None:
        _list_presets(context)
        return

    async def make(api: "ManagerRest", bound: dict[str, Any]) -> dict[str, Any]:
        return await api.retention.set_policy({"preset": name}, **bound)

    change(context, Wanted(candidate={"preset": name}, make=make, reason=reason), dry_run=dry_run)


def history(context: typer.Context, limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000)] = 50) -> None:
    """List the versions of the policy: who changed it, when and why."""
    versions = ask(context, lambda api: api.retention.versions(limit=limit))
    if context.obj.json:
        for one in versions:
            print_json(one)
        return
    rows = [
        (one["version"], moment(one["created_at"]), one["created_by"] or "-", one["origin"], kept(one), one["reason"] or "")
        for one in versions
    ]
    table(("VERSION", "SINCE", "BY", "ORIGIN", "KEPT", "WHY"), rows)


def diff(
    context: typer.Context,
    before: Version,
    after: Annotated[
        int | None, typer.Argument(metavar="VERSION", parser=parse_id, help="Another; none: the one in force.")
    ] = None,
) -> None:
    """Say what changed from one version to another."""
    found = ask(context, lambda api: api.retention.diff(before, after))
    if context.obj.json:
        print_json(found)
        return
    effect = {
        "same": "no job is forgotten sooner or later",
        "tightened": "tightened",
        "loosened": "loosened",
        "mixed": "tightened for some jobs, loosened for others",
    }
    bulleted(found["words"], f"From version {found['from']} to {found['to']}: {effect.get(found['effect'], found['effect'])}.")


def rollback(context: typer.Context, version: Version, reason: Reason = "", dry_run: DryRun = False) -> None:
    """Make an earlier version the policy again, as a new version."""

    async def make(api: "ManagerRest", bound: dict[str, Any]) -> dict[str, Any]:
        return await api.retention.rollback(version, **bound)

    change(context, Wanted(candidate={"version": version}, make=make, reason=reason), dry_run=dry_run)


def _written(found: Given, reason: str) -> Wanted:
    async def make(api: "ManagerRest", bound: dict[str, Any]) -> dict[str, Any]:
        return await api.retention.set_policy(found.data, **bound)

    return Wanted(candidate={"policy": found.data}, make=make, reason=reason, base_version=found.base_version)


def _edited(text: str) -> str:
    """The text after a person edited it. Raises DarnerError when the editor could not be run or failed."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="darner-policy-") as directory:
        path = Path(directory) / "policy.yaml"
        path.write_text(text)
        try:
            code = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode  # noqa: S603  (the person's own)
        except (OSError, ValueError) as error:
            raise DarnerError(f"cannot run the editor {editor!r} ({error}); set $EDITOR") from None
        if code:
            raise DarnerError(f"the editor {editor!r} ended with {code}; nothing was changed")
        return path.read_text()


def _rescued(text: str) -> str:
    """A file that holds what somebody wrote, so that it is not lost."""
    with tempfile.NamedTemporaryFile("w", prefix="darner-policy-", suffix=".yaml", delete=False) as file:
        file.write(text)
        return file.name


def _list_presets(context: typer.Context) -> None:
    found = ask(context, lambda api: api.retention.presets())
    if context.obj.json:
        for one in found:
            print_json(one)
        return
    for one in found:
        say(f"{one['name']}: {one['about']}")
        headings, rows = rule_table(one["rules"])
        table([f"  {headings[0]}", *headings[1:]], [[f"  {row[0]}", *row[1:]] for row in rows])
        say()
    say("Look first: darner retention policy preset NAME --dry-run")


def _say_policy(policy: Mapping[str, Any]) -> None:
    by = f" by {policy['created_by']}" if policy.get("created_by") else ""
    say(f"policy version {policy['version']}, {when(policy['created_at'], time.time())}{by} ({policy['origin']})")
    if policy.get("reason"):
        say(f"why    {policy['reason']}")
    say_rules(policy)
    books = policy.get("bookkeeping") or {}
    if books:
        said = ", ".join(f"{name} {age}" for name, age in books.items())
        say(f"Ages are those until which jobs stay; the first rule that fits decides. Own records: {said}.")
