"""`darner task`: what one daemon holds."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from darner.app.cli.globals import Globals
from darner.app.cli.output import moment, print_json, say, table
from darner.app.cli.run import wait_for
from darner.core.ids import task_id
from darner.core.task import Download, LocalTask
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS
from darner.kit.units import format_size

if TYPE_CHECKING:
    from darner.client.dfdaemon import DaemonClient

T = TypeVar("T")
TASK_ID_LENGTH = 64
Endpoint = Annotated[str | None, typer.Option("--endpoint", "-e", help="The daemon's socket.")]
Target = Annotated[str, typer.Argument(metavar="URL-OR-ID", help="A URL, or a task's id.")]


def register(root: typer.Typer) -> None:
    """Add the subcommands."""
    app = typer.Typer(help="What this daemon holds.", no_args_is_help=True)
    app.command("ls")(ls)
    app.command("stat")(stat)
    app.command("rm")(rm)
    root.add_typer(app, name="task")


def ls(context: typer.Context, endpoint: Endpoint = None) -> None:
    """List the tasks of this daemon."""
    tasks = _ask(context, endpoint, lambda client: client.list_local_tasks())
    if context.obj.json:
        for task in tasks:
            print_json(_as_json(task))
        return
    rows = [(task.id, _size(task), _state(task), moment(task.created_at), moment(task.finished_at)) for task in tasks]
    table(("ID", "SIZE", "STATE", "CREATED", "FINISHED"), rows)


def stat(context: typer.Context, target: Target, endpoint: Endpoint = None) -> None:
    """Show one task."""
    task = _ask(context, endpoint, lambda client: client.stat_local_task(identify(target)))
    if context.obj.json:
        print_json(_as_json(task))
        return
    for name, value in _as_json(task).items():
        say(f"{name:16} {value}")


def rm(context: typer.Context, target: Target, endpoint: Endpoint = None) -> None:
    """Remove one task from this daemon."""
    found = identify(target)
    _ask(context, endpoint, lambda client: client.delete_task(found))
    if context.obj.json:
        print_json({"removed": found})
    else:
        say(f"removed {found}")


def identify(text: str) -> str:
    """The task's id of a URL as `darner get` asks for it, or the id itself."""
    if len(text) == TASK_ID_LENGTH and set(text) <= set("0123456789abcdef"):
        return text
    return task_id(Download(url=text, filtered_query_params=DEFAULT_FILTERED_QUERY_PARAMS))


def _ask(context: typer.Context, endpoint: str | None, question: "Callable[[DaemonClient], Awaitable[T]]") -> T:
    options: Globals = context.obj

    async def run() -> T:
        from darner.client.dfdaemon import DaemonClient

        client = DaemonClient(f"unix:{options.daemon_socket(endpoint)}")
        try:
            return await question(client)
        finally:
            await client.close()

    return wait_for(run())


def _state(task: LocalTask) -> str:
    if task.finished_at:
        return "finished"
    return "failed" if task.failed_at else "partial"


def _size(task: LocalTask) -> str:
    return "?" if task.content_length is None else format_size(task.content_length)


def _as_json(task: LocalTask) -> dict[str, Any]:
    return {
        "id": task.id,
        "state": _state(task),
        "content_length": task.content_length,
        "piece_length": task.piece_length,
        "uploading": task.uploading_count,
        "uploaded": task.uploaded_count,
        "created_at": moment(task.created_at),
        "updated_at": moment(task.updated_at),
        "finished_at": moment(task.finished_at) if task.finished_at else None,
    }
