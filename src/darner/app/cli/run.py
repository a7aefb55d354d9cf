"""Running a command: errors become one paragraph on stderr and an exit code, never a traceback."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

from darner.app.cli.output import note
from darner.core.errors import DarnerError

FAILED, USAGE, INTERRUPTED = 1, 2, 130
T = TypeVar("T")


class UsageProblem(DarnerError):  # noqa: N818  (no failure of ours, but of the words on the command line)
    """The words on the command line are wrong."""


class Interrupted(DarnerError):  # noqa: N818  (no failure, but a person's wish)
    """Ctrl-C, with what the person should know of what goes on."""


def guarded(app: typer.Typer, arguments: list[str]) -> int:
    """Run the command line; returns the exit code of the contract."""
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name="darner", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort, asyncio.CancelledError):
        code = INTERRUPTED
    except Interrupted as error:
        complain(error.message)
        return INTERRUPTED
    except UsageProblem as error:
        complain(error.message)
        return USAGE
    except DarnerError as error:
        complain(error.message)
        return FAILED
    except BrokenPipeError:
        return 0
    except OSError as error:
        complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return FAILED
    except Exception as error:
        # The parser's own exceptions: they know how to show themselves and which code they mean.
        show, exit_code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or not isinstance(exit_code, int):
            raise
        show()
        return exit_code
    if code == INTERRUPTED:  # also how the parser tells of Ctrl-C
        complain("interrupted")
    return code if isinstance(code, int) else 0


def complain(text: str) -> None:
    """One paragraph for a person."""
    note(f"darner: {text}")


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine to its end."""
    return asyncio.run(work)
