"""`darner preheat`: make a preheat job and watch it."""

import re
import sys
import time
from typing import Annotated, Any

import typer

from darner.app.cli.api import ask
from darner.app.cli.complete import IMPORTANCES, importances
from darner.app.cli.get import check_url, parse_headers
from darner.app.cli.jobs import follow, print_outcome, succeeded
from darner.app.cli.output import print_json, say
from darner.app.cli.run import FAILED, UsageProblem
from darner.core.errors import InvalidInputError
from darner.core.job import Importance, Scope
from darner.core.url import masked
from darner.kit.units import parse_duration

TYPES = ("auto", "file", "image")
SCOPES = tuple(scope.value for scope in Scope)
_MANIFEST = re.compile(r"^https?://[^/]+/v2/.+/manifests/[^/]+$")
_BARE_IMAGE = re.compile(r"^[\w.-]+(:\d+)?/[\w./-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$")
_IMAGE_SCHEMES = ("docker://", "oci://")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("preheat")(preheat)


def preheat(  # size: one parameter per flag
    context: typer.Context,
    urls: Annotated[
        list[str], typer.Argument(metavar="URL...", help="Files, or one image (host/repo:tag, docker://…, manifest URL).")
    ],
    kind: Annotated[str, typer.Option("--type", help=f"One of {', '.join(TYPES)}.")] = "auto",
    scope: Annotated[str, typer.Option(help=f"Which hosts: {', '.join(SCOPES)}.")] = Scope.SINGLE_SEED_PEER.value,
    platform: Annotated[
        list[str] | None, typer.Option(help="OS/ARCH[/VARIANT] of an image index; repeatable; default: all.")
    ] = None,
    username: Annotated[str | None, typer.Option(help="User of the registry.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the registry's password from stdin.")] = False,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="Header for the origin, 'Key: value'; repeatable.")
    ] = None,
    cluster: Annotated[list[int] | None, typer.Option(help="Cluster id; repeatable; default: all.")] = None,
    tag: Annotated[str | None, typer.Option(help="Part of the tasks' identity.")] = None,
    application: Annotated[str | None, typer.Option(help="Part of the tasks' identity.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the job, for searches and retention rules; repeatable.")
    ] = None,
    importance: Annotated[
        str,
        typer.Option(help=f"How much it matters: {', '.join(IMPORTANCES)}; for retention rules.", autocompletion=importances),
    ] = "normal",
    timeout: Annotated[str, typer.Option(help="Give the job up after this time.")] = "60m",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return at once.")] = False,
) -> None:
    """Push content out before it is needed; watches the job and exits 0 only on SUCCESS."""
    chosen = choose_type(kind, urls)
    if scope not in SCOPES:
        raise UsageProblem(f"--scope {scope}: expected one of {', '.join(SCOPES)}")
    args: dict[str, Any] = {"type": chosen, "scope": scope, "timeout": _checked_timeout(timeout)}
    args |= {"url": urls[0]} if chosen == "image" else {"urls": urls}
    for name, value in (("tag", tag), ("application", application), ("username", username)):
        if value is not None:
            args[name] = value
    if platform:
        args["platforms" if len(platform) > 1 else "platform"] = platform if len(platform) > 1 else platform[0]
    if header:
        args["headers"] = dict(parse_headers(header))
    if password_stdin:
        args["password"] = _password(username)
    body = {"type": "preheat", "args": args, "scheduler_cluster_ids": cluster or [], **_about(label or [], importance)}
    job = ask(context, lambda api: api.create_job(body))
    if no_wait:
        print_json(job) if context.obj.json else say(str(job["id"]))
        return
    if not context.obj.json:
        say(f"job {job['id']}: preheat of {job.get('summary') or masked(urls[0])}")
    started = time.monotonic()
    ended = follow(context, job["id"])
    if not context.obj.json or not succeeded(ended):
        print_outcome(ended, time.monotonic() - started)
    if not succeeded(ended):
        raise typer.Exit(FAILED)


def _about(labels: list[str], importance: str) -> dict[str, Any]:
    """What retention rules may match on; nothing where it is the default."""
    if importance not in IMPORTANCES:
        raise UsageProblem(f"--importance {importance}: expected one of {', '.join(IMPORTANCES)}")
    pairs = [word.partition("=") for word in labels]
    wrong = next((word for word, (key, separator, _) in zip(labels, pairs, strict=True) if not key or not separator), None)
    if wrong is not None:
        raise UsageProblem(f"--label {wrong}: expected KEY=VALUE")
    about: dict[str, Any] = {"labels": {key: value for key, _, value in pairs}} if pairs else {}
    return about if importance == Importance.NORMAL.word else {**about, "importance": importance}


def choose_type(kind: str, urls: list[str]) -> str:
    """`file` or `image`. Raises UsageProblem or InvalidInputError when the URLs do not fit."""
    if kind not in TYPES:
        raise UsageProblem(f"--type {kind}: expected one of {', '.join(TYPES)}")
    if kind == "auto":
        kind = "image" if all(looks_like_image(url) for url in urls) else "file"
    if kind == "image" and len(urls) != 1:
        raise UsageProblem("an image preheat takes one image; make one job per image")
    if kind == "file":
        for url in urls:
            check_url(url)
    elif not looks_like_image(urls[0]):
        raise InvalidInputError(
            f"{masked(urls[0])!r} is not an image; expected host/repo:tag, docker://host/repo:tag or https://host/v2/repo/manifests/tag",
            field="url",
        )
    return kind


def looks_like_image(url: str) -> bool:
    """Whether it can only be an image."""
    return url.startswith(_IMAGE_SCHEMES) or bool(_MANIFEST.match(url) or _BARE_IMAGE.match(url))


def _password(username: str | None) -> str:
    if not username:
        raise UsageProblem("--password-stdin needs --username")
    return sys.stdin.readline().rstrip("\r\n")


def _checked_timeout(text: str) -> str:
    try:
        parse_duration(text)
    except ValueError as error:
        raise UsageProblem(f"--timeout: {error}") from None
    return text
