"""The options that every command knows, wherever they stand, and what they mean: which manager, which token, how to print."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darner.core.errors import DarnerError, InvalidInputError
from darner.core.secret import Secret

FLAGS = ("--json", "--yes")
VALUES = ("--manager", "--token", "--data-dir")
PRODUCTION_SOCKET = "/var/run/darner/daemon.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """Global options as given."""

    manager: str | None = None
    token: Secret | None = None
    data_dir: Path | None = None
    json: bool = False
    yes: bool = False

    def directory(self) -> Path:
        """The data directory that `up` uses and other commands look into."""
        return self.data_dir or default_data_dir()

    def cluster(self) -> dict[str, Any] | None:
        """The running `darner up` of the data directory, or None."""
        from darner.app.up import cluster

        return cluster.read(self.directory())

    def manager_url(self) -> str:
        """The manager's base URL. Raises DarnerError when none is known."""
        url = self.manager or os.environ.get("DARNER_MANAGER") or ((running := self.cluster()) and running["manager"]["http"])
        if not url:
            raise DarnerError(
                f"no manager is known: `darner up` is not running in {self.directory()}; start it, or give --manager URL "
                "(DARNER_MANAGER), or --data-dir"
            )
        if not str(url).startswith(("http://", "https://")):
            raise InvalidInputError(f"--manager {url!r}: expected http://… or https://…", field="manager")
        return str(url).rstrip("/")

    def manager_token(self) -> Secret | None:
        """The token for the manager: given, from the environment, or the running system's own."""
        if self.token:
            return self.token
        if text := os.environ.get("DARNER_TOKEN"):
            return Secret(text)
        running = self.cluster()
        if running and self.manager in (None, running["manager"]["http"]):
            try:
                return Secret(Path(running["token_file"]).read_text().strip())
            except OSError:
                return None
        return None

    def daemon_socket(self, endpoint: str | None) -> str:
        """The daemon's socket: given, else the running system's first ordinary peer, else the production path."""
        if endpoint:
            return endpoint.removeprefix("unix://").removeprefix("unix:")
        running = self.cluster()
        if running:
            ordinary = [daemon for daemon in running["daemons"] if not daemon["seed"]] or running["daemons"]
            return str(ordinary[0]["socket"])
        return PRODUCTION_SOCKET


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/darner`, else `~/.local/share/darner`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "darner"


def hoist(arguments: list[str]) -> list[str]:
    """Move global options in front of the subcommand, so that they work on both sides of it; all after `--` stays."""
    front: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word == "--":
            rest += arguments[index:]
            break
        if word in FLAGS or word.startswith(tuple(f"{name}=" for name in VALUES)):
            front.append(word)
        elif word in VALUES and index + 1 < len(arguments):
            front += arguments[index : index + 2]
            index += 1
        else:
            rest.append(word)
        index += 1
    return [*front, *rest]


def command_of(arguments: Sequence[str]) -> str:
    """The command that hoisted arguments name, or nothing."""
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word in VALUES:
            skip = True
        elif not word.startswith("-"):
            return word
    return ""
