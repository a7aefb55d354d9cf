"""Every command that the documentation shows as `$ darner …` runs and ends with 0, in the order in which a reader meets it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from darner.testing.cluster import UpCluster
from darner.testing.origin import CountingOrigin

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^ *```console\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
TUTORIAL_ORIGIN = "http://127.0.0.1:9000/model.bin"


def commands_of(page: Path) -> list[str]:
    lines = (line.strip() for block in _BLOCK.findall(page.read_text()) for line in block.splitlines())
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ darner ")]


SHOWN = [page for page in PAGES if commands_of(page)]


@pytest.fixture(scope="module")
def system(shared_cluster: UpCluster) -> Iterator[tuple[UpCluster, str]]:
    """A running system with one job in its history, and an origin in place of the documentation's."""
    with CountingOrigin() as origin:
        origin.add("/model.bin", 8 * 1024 * 1024)
        url = origin.url("/model.bin")
        assert shared_cluster.run("preheat", url).returncode == 0
        yield shared_cluster, url


def test_the_documentation_shows_commands() -> None:
    assert len(SHOWN) >= 4


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_runs(page: Path, system: tuple[UpCluster, str]) -> None:
    cluster, url = system
    for command in commands_of(page):
        words = [url if word == TUTORIAL_ORIGIN else word for word in shlex.split(command)]
        done = cluster.run(*words[1:])
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
