"""What is printed: for terminals that know few characters, for programs, and never steering the terminal."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from darner.app.cli.output import note, print_json, say, table


@contextmanager
def ascii_terminal() -> Iterator[io.BytesIO]:
    """A terminal that knows ASCII alone."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream, redirect_stdout(stream), redirect_stderr(stream):
        yield raw


def test_a_terminal_that_knows_few_characters_gets_others() -> None:
    with ascii_terminal() as out:
        say("warm 7d → 9d … für")
        note("→")
        assert out.getvalue() == b"warm 7d -> 9d ... f?r\n->\n"


def test_json_loses_nothing_on_its_way() -> None:
    with ascii_terminal() as out:
        print_json({"words": "7d → 9d"})
        assert json.loads(out.getvalue()) == {"words": "7d → 9d"}


def test_what_others_typed_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\rc\x9bd\te\nf")
    assert capsys.readouterr().out == "a?[2Jb?c?d\te\nf\n"


def test_a_cell_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A", "B"), [("one\ntwo", 3)])
    assert capsys.readouterr().out == "A        B\none two  3\n"
