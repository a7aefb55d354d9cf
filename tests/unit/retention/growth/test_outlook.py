import pytest

from darner.core.job import Tier
from darner.retention.growth.advice import archive_advice, ladder_advice
from darner.retention.growth.budget import parse_budget
from darner.retention.growth.ladder import GIB, Stage
from darner.retention.growth.outlook import ARCHIVE_DISK, outlook, reading
from darner.retention.growth.report import POINTS, thinned
from darner.retention.growth.values import HOUR_MS, Counts, Disk, Sample, Seen, Sizes
from darner.retention.policy import HOUR_MS as POLICY_HOUR_MS
from darner.retention.policy import Age, Policy, Rule, Stay
from darner.retention.presets import default_policy

NOW = 1_790_000_000_000


def samples(*, per_day: int, days: int = 20, archive_disk: bool = False) -> list[Sample]:
    """Each hour of so many days, the last one NOW; 100 GiB at last, half of it the archive's."""
    found = []
    for hour in range(days * 24, -1, -1):
        less = per_day * hour // 24
        sizes = Sizes(bytes=55 * GIB - less, reclaimable=5 * GIB, log=1)
        disk = Disk(bytes=200 * GIB, free=60 * GIB + less)
        found.append(
            Sample(
                at=NOW - hour * HOUR_MS,
                sizes=sizes,
                counts=Counts(),
                seen=Seen(),
                disk=disk,
                archive_bytes=50 * GIB,
                archive_disk=Disk(bytes=80 * GIB, free=3 * GIB + less) if archive_disk else None,
            )
        )
    return found


def test_what_counts_is_what_is_in_use_and_an_archive_beside_it() -> None:
    last = samples(per_day=GIB)[-1]
    assert last.used == 100 * GIB
    assert Sample.from_json(last.to_json()) == last
    assert Sample.from_json({**last.to_json(), "archive_local": False, "added_later": 1}).used == 50 * GIB


def test_the_nearest_limit_decides() -> None:
    seen = outlook(samples(per_day=GIB), parse_budget("keep at most 120 GiB"), now_ms=NOW)
    assert [(one.name, one.used // GIB, one.most // GIB) for one in seen.limits] == [("budget", 100, 120), ("disk", 140, 200)]
    assert [round(one.outlook.p50 or 0) for one in seen.limits] == [20, 60]
    assert seen.days == pytest.approx(20, abs=1)
    free = outlook(samples(per_day=GIB), parse_budget("keep 10 % of the disk free"), now_ms=NOW)
    assert [(one.name, one.most // GIB, round(one.outlook.p50 or 0)) for one in free.limits] == [("disk", 180, 40)]


def test_a_disk_of_the_archive_alone_is_told_and_does_not_drive_the_ladder() -> None:
    found = samples(per_day=GIB, archive_disk=True)
    seen = outlook(found, None, now_ms=NOW)
    assert [(one.name, round(one.outlook.p50 or 0)) for one in seen.limits] == [("disk", 60), (ARCHIVE_DISK, 3)]
    assert seen.days == pytest.approx(60, abs=2)
    assert "The archive's disk has 3.0 GiB of 80.0 GiB left" in archive_advice(found[-1].archive_disk)[0]
    assert archive_advice(Disk(bytes=80 * GIB, free=40 * GIB)) == archive_advice(None) == []


def test_a_reading_says_what_could_help() -> None:
    disk = Disk(bytes=100 * GIB, free=50 * GIB)
    budget = parse_budget("keep 10 % of the disk free", shorten=True)
    now = reading(used=1, disk=disk, budget=budget, policy=default_policy(archive=True), seen=None, full=False)
    assert (now.limit, now.keep_free, now.folds, now.archives, now.shortens) == (None, 10 * GIB, False, True, True)
    long = (Stay(tier=Tier.HOT, until=Age(text="24h", ms=24 * POLICY_HOUR_MS)), Stay(tier=Tier.WARM))
    hot = Policy(rules=(Rule(name="long", stays=long),))
    now = reading(used=1, disk=None, budget=parse_budget("20 GiB"), policy=hot, seen=None, full=False)
    assert (now.limit, now.disk, now.folds, now.archives, now.shortens) == (20 * GIB, None, True, False, False)


def test_advice_comes_when_the_gentle_steps_are_used_up() -> None:
    sample = Sample(at=NOW, sizes=Sizes(bytes=9, reclaimable=1), counts=Counts(tier_bytes={"hot": 10, "warm": GIB}), seen=Seen())
    assert ladder_advice(Stage.ARCHIVE, sample, opted_in=False) == []
    said = " ".join(ladder_advice(Stage.REFUSE, sample, opted_in=False))
    assert "warm jobs: about 1.0 GiB" in said
    assert "--shorten" in said
    assert "low importance are refused" in said
    assert "--shorten" not in " ".join(ladder_advice(Stage.SHORTEN, sample, opted_in=True))


@pytest.mark.parametrize("count", [0, 1, POINTS, POINTS + 1, 9_600])
def test_a_series_is_thinned_evenly_to_its_ends(count: int) -> None:
    ids = list(range(100, 100 + count))
    found = thinned(ids)
    assert len(found) == min(count, POINTS)
    assert found[:1] == ids[:1]
    assert found[-1:] == ids[-1:]
    assert found == sorted(set(found))
