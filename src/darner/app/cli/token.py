"""`darner token`: personal access tokens."""

from typing import Annotated

import typer

from darner.app.cli.api import ask
from darner.app.cli.jobs import parse_id
from darner.app.cli.output import moment, note, print_json, say, table
from darner.app.cli.run import UsageProblem


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="Personal access tokens.", no_args_is_help=True)
    app.command("create")(create)
    app.command("ls")(ls)
    app.command("revoke")(revoke)
    root.add_typer(app, name="token")


def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[
        list[str], typer.Option(help="What it may do: admin, job, cluster, retention, worker, scheduler; repeatable.")
    ],
    expires: Annotated[str | None, typer.Option(help="When it ends, like 90d; default: never.")] = None,
) -> None:
    """Make a token; its text is shown once."""
    if not scope:
        raise UsageProblem("--scope is missing")
    made = ask(context, lambda api: api.create_token(name, scope, expires))
    if context.obj.json:
        print_json(made)
        return
    note(f"token {made['id']} ({name}), scopes {', '.join(made['scopes'])}, ends {moment(made.get('expired_at'))}; shown only now:")
    say(made["token"])


def ls(context: typer.Context) -> None:
    """List tokens; never their text."""
    tokens = ask(context, lambda api: api.tokens())
    if context.obj.json:
        for one in tokens:
            print_json(one)
        return
    table(
        ("ID", "NAME", "BEGINS", "SCOPES", "STATE", "EXPIRES", "LAST USED"),
        [
            (
                one["id"],
                one["name"],
                one["prefix"],
                ",".join(one["scopes"]),
                one["state"],
                moment(one.get("expired_at")),
                moment(one.get("last_used_at")),
            )
            for one in tokens
        ],
    )


def revoke(context: typer.Context, token_id: Annotated[int, typer.Argument(metavar="ID", parser=parse_id)]) -> None:
    """Make a token useless from now on."""
    ask(context, lambda api: api.revoke_token(token_id))
    if context.obj.json:
        print_json({"revoked": token_id})
    else:
        say(f"revoked token {token_id}")
