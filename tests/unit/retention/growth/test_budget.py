import pytest

from darner.core.errors import InvalidInputError
from darner.retention.growth.budget import Budget, Kind, budget_from_json, budget_to_json, parse_budget

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "kind", "size", "percent", "shown"),
    [
        ("keep at most 20 GiB", Kind.AT_MOST, 20 * GIB, 0, "keep at most 20.0 GiB"),
        ("At most 20GiB", Kind.AT_MOST, 20 * GIB, 0, "keep at most 20.0 GiB"),
        ("500 MB", Kind.AT_MOST, 500_000_000, 0, "keep at most 476.8 MiB"),
        ("keep 10 % of the disk free", Kind.KEEP_FREE, 0, 10, "keep 10 % of the disk free"),
        ("keep 12.5% free", Kind.KEEP_FREE, 0, 12.5, "keep 12.5 % of the disk free"),
        ("keep 50 GiB free", Kind.KEEP_FREE, 50 * GIB, 0, "keep 50.0 GiB of the disk free"),
    ],
)
def test_budgets_are_read_as_people_write_them(text: str, kind: Kind, size: int, percent: float, shown: str) -> None:
    found = parse_budget(text)
    assert found == Budget(kind=kind, bytes=size, percent=percent)
    assert found is not None
    assert found.text == shown
    assert budget_from_json(budget_to_json(found)) == found


@pytest.mark.parametrize("text", ["none", "", " None "])
def test_no_budget(text: str) -> None:
    assert parse_budget(text) is None
    assert budget_from_json(budget_to_json(None)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a lot", "write it like"),
        ("keep at most 1 MiB", "too little"),
        ("keep 0 % free", "1 to 90"),
        ("keep 99% of the disk free", "1 to 90"),
        ("-20 GiB", "write it like"),
        ("20 GiB 30 GiB", "write it like"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as refused:
        parse_budget(text)
    assert refused.value.field == "budget"


def test_shortening_is_opted_into_with_a_floor() -> None:
    found = parse_budget("20 GiB", shorten="14d")
    assert found is not None
    assert found.shorten is not None
    assert found.shorten.ms == 14 * 86_400_000
    assert budget_from_json(budget_to_json(found)) == found
    for wrong in ("1h", "soon", "keep"):
        with pytest.raises(InvalidInputError) as refused:
            parse_budget("20 GiB", shorten=wrong)
        assert refused.value.field == "shorten"
    with pytest.raises(InvalidInputError):
        parse_budget("none", shorten=True)
