"""A database that was put back to an earlier state is noticed."""

from pathlib import Path

from darner.retention.witness import Witness


def test_an_epoch_below_one_that_was_seen() -> None:
    one = Witness(None)
    assert one.went_back("a", 0) is None
    one.note("a", 7)
    assert one.went_back("a", 7) is None
    assert one.went_back("a", 8) is None
    assert one.went_back("a", 6) == 7
    one.note("a", 3)
    assert one.went_back("a", 6) == 7


def test_another_database_is_not_compared() -> None:
    one = Witness(None)
    one.note("a", 7)
    assert one.went_back("b", 0) is None
    one.note("b", 1)
    assert one.went_back("b", 0) == 1


def test_processes_to_come_are_told(tmp_path: Path) -> None:
    file = tmp_path / "x.db-sweeps"
    one = Witness(file)
    one.note("a", 7)
    assert Witness(file).went_back("a", 1) is None
    one.keep()
    assert Witness(file).went_back("a", 1) == 7
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_broken_or_unwritable_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for text in ("", "{", "[]", "7", '{"instance": "a"}', '{"instance": "a", "epoch": "x"}'):
        file.write_text(text)
        assert Witness(file).went_back("a", 0) is None
    gone = Witness(tmp_path / "missing" / "x")
    gone.note("a", 1)
    gone.keep()
