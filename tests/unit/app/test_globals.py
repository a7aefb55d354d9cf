"""Global options work on both sides of the subcommand."""

import json
from pathlib import Path

import pytest

from darner.app.cli.globals import Globals, hoist
from darner.core.errors import DarnerError
from darner.core.secret import Secret


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["jobs", "ls", "--json"], ["--json", "jobs", "ls"]),
        (["jobs", "--manager", "http://m", "ls"], ["--manager", "http://m", "jobs", "ls"]),
        (["jobs", "ls", "--manager=http://m", "--yes"], ["--manager=http://m", "--yes", "jobs", "ls"]),
        (["get", "http://x/--json", "-O", "p"], ["get", "http://x/--json", "-O", "p"]),
        (["get", "--", "--json"], ["get", "--", "--json"]),
        (["up", "--data-dir", "/d", "--peers", "3"], ["--data-dir", "/d", "up", "--peers", "3"]),
    ],
)
def test_global_options_move_to_the_front(given: list[str], expected: list[str]) -> None:
    assert hoist(given) == expected


def test_without_a_running_system_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARNER_MANAGER", raising=False)
    with pytest.raises(DarnerError, match=r"darner up.*--manager"):
        Globals(data_dir=tmp_path).manager_url()


def test_the_running_system_is_found_with_its_token_and_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARNER_MANAGER", raising=False)
    monkeypatch.delenv("DARNER_TOKEN", raising=False)
    (tmp_path / "token").write_text("dat_example\n")
    daemons = [{"name": "seed", "seed": True, "socket": "/s"}, {"name": "peer-1", "seed": False, "socket": "/p"}]
    cluster = {"manager": {"http": "http://127.0.0.1:1"}, "token_file": str(tmp_path / "token"), "daemons": daemons}
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    found = Globals(data_dir=tmp_path)
    assert found.manager_url() == "http://127.0.0.1:1"
    assert found.manager_token() == Secret("dat_example")
    assert found.daemon_socket(None) == "/p"
    assert found.daemon_socket("unix:///else") == "/else"


def test_the_local_token_is_not_sent_to_another_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARNER_TOKEN", raising=False)
    (tmp_path / "token").write_text("dat_example\n")
    cluster = {"manager": {"http": "http://127.0.0.1:1"}, "token_file": str(tmp_path / "token"), "daemons": []}
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    assert Globals(data_dir=tmp_path, manager="https://elsewhere").manager_token() is None
