"""What is printed: for terminals that know few characters, for programs, and never steering the terminal."""

import io
import json
import sys

import pytest

from darner.app.cli.output import note, print_json, say, table


@pytest.fixture
def ascii_out(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """A terminal that knows ASCII alone."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    return raw


def test_a_terminal_that_knows_few_characters_gets_others(ascii_out: io.BytesIO) -> None:
    say("warm 7d → 9d … für")
    note("→")
    assert ascii_out.getvalue() == b"warm 7d -> 9d ... f?r\n->\n"


def test_json_loses_nothing_on_its_way(ascii_out: io.BytesIO) -> None:
    print_json({"words": "7d → 9d"})
    assert json.loads(ascii_out.getvalue()) == {"words": "7d → 9d"}


def test_what_others_typed_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\rc\x9bd\te\nf")
    assert capsys.readouterr().out == "a?[2Jb?c?d\te\nf\n"


def test_a_cell_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A", "B"), [("one\ntwo", 3)])
    assert capsys.readouterr().out == "A        B\none two  3\n"
