"""The `darner` command: reads arguments, calls one room, prints. Decides nothing.

Exit codes: 0 done, 1 failed (the reason on stderr), 2 wrong usage, 130 interrupted. Global options work before and after the
subcommand. Each command's heavy imports happen when it runs, so that `darner get` starts fast.
"""

import sys

from darner.app.cli.globals import hoist

INTERRUPTED = 130


def main() -> None:
    """Run one command and exit."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    from darner.app.cli.root import build
    from darner.app.cli.run import guarded

    hoisted = hoist(arguments)
    return guarded(build(hoisted), hoisted)
