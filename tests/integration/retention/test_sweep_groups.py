"""The last successes of a group are kept, whatever their age; and exactly they."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select, update
from tests.integration.retention.history import History
from tests.integration.retention.sweeping import engine_of, seeded, sweep

from darner.core.job import Tier
from darner.db import db_now_ms
from darner.db.tables.jobs import job, job_payload
from darner.retention.policy import Group
from darner.retention.ports import RetentionParts
from darner.retention.sql.groups import group_text

HUB = "https://registry.example.com/v2"


def keeping(count: int, per: str = "url", **more: Any) -> dict[str, Any]:
    return {"rules": [{"name": "default", "hot": "6h", "keep_last": {"count": count, "per": per}, **more}]}


@pytest.mark.parametrize(
    ("per", "args", "text"),
    [
        (Group.URL, {"url": "http://x/1"}, "http://x/1"),
        (Group.URL, {"url": "http://x/1", "urls": ["http://x/2", "http://x/1"]}, "http://x/1\nhttp://x/2"),
        (Group.URL, {"urls": ["b", "a"]}, "a\nb"),
        (Group.URL, {}, ""),
        (Group.IMAGE, {"url": f"{HUB}/team/app/manifests/v1"}, "registry.example.com/team/app"),
        (Group.IMAGE, {"url": f"{HUB}/team/app/manifests/sha256:{'0' * 64}"}, "registry.example.com/team/app"),
        (Group.IMAGE, {"url": "docker://registry.example.com/team/app:v2"}, "registry.example.com/team/app"),
        (Group.IMAGE, {"url": "http://x/no/image"}, "http://x/no/image"),
    ],
)
def test_what_jobs_are_counted_by(per: Group, args: Mapping[str, Any], text: str) -> None:
    assert group_text(per, args) == text


async def test_the_newest_of_each_group_stay_and_the_next_one_goes_when_a_newer_one_ends(history: History) -> None:
    await seeded(history.db, keeping(2))
    a = [history.add("SUCCEEDED", ended_h=hours, url="http://x/a") for hours in (90, 80, 70)]
    b = [history.add("SUCCEEDED", ended_h=hours, url="http://x/b") for hours in (60, 50)]
    failed = history.add("FAILED", ended_h=8, url="http://x/a")
    await sweep(history.db)
    assert history.left() == [*a[1:], *b]
    newer = history.add("SUCCEEDED", ended_h=1, url="http://x/a")
    await sweep(history.db)
    await sweep(history.db)
    assert history.left() == [a[2], *b, newer]
    assert failed not in history.left()
    run = await sweep(history.db)
    assert (run.examined, run.classified, run.removed) == (0, 0, 0)


async def test_tags_of_one_image_count_together(history: History) -> None:
    await seeded(history.db, keeping(1, "image"))
    keys = [
        history.add("SUCCEEDED", ended_h=hours, url=f"{HUB}/{name}/manifests/{tag}")
        for hours, name, tag in ((90, "a", "v1"), (80, "a", "v2"), (70, "b", "v1"))
    ]
    await sweep(history.db)
    assert history.left() == keys[1:]


async def test_when_a_person_removes_the_newest_the_next_one_is_kept(history: History) -> None:
    await seeded(history.db, keeping(1))
    history.db.write_sync(lambda conn: conn.execute(update(job).values(owner="x")))
    old, newest = history.add("SUCCEEDED", ended_h=5.99), history.add("SUCCEEDED", ended_h=5)
    await sweep(history.db)
    history.db.write_sync(lambda conn: hide(conn, newest))
    history.db.write_sync(lambda conn: older(conn, old))
    run = await sweep(history.db)
    assert run.removed == 0
    assert history.seen() == [old]
    await sweep(history.db)
    run = await sweep(history.db)
    assert (run.examined, history.seen()) == (0, [old])


def hide(conn: Connection, key: int) -> None:
    conn.execute(update(job).where(job.c.id == key).values(tier=int(Tier.DELETED), base_at=job.c.base_at + 18_000_000))


def older(conn: Connection, key: int) -> None:
    times = {name: job.c[name] - 3_600_000 for name in ("base_at", "finished_at")}
    conn.execute(update(job).where(job.c.id == key).values(times))


async def test_other_rules_group_anew(history: History) -> None:
    await seeded(history.db, keeping(1, "image"))
    keys = [history.add("SUCCEEDED", ended_h=9 - n, url=f"{HUB}/a/manifests/v{n}") for n in range(2)]
    async with engine_of(history.db) as engine:
        await engine.set_policy(keeping(1, "url"), by="ann")
        await engine.run(dry_run=False, by="t")
        assert history.left() == keys
        await engine.set_policy(keeping(1, "image"), by="ann")
        await engine.run(dry_run=False, by="t")
        await engine.run(dry_run=False, by="t")
        assert history.left() == keys[1:]
        await engine.set_policy({"rules": [{"name": "default", "hot": "6h"}]}, by="ann")
        await engine.run(dry_run=False, by="t")
        assert history.left() == []


async def test_a_job_whose_request_cannot_be_read_is_kept(history: History) -> None:
    await seeded(history.db, keeping(1))
    key = history.add("SUCCEEDED", ended_h=9, tier=int(Tier.WARM))
    history.db.write_sync(lambda conn: conn.execute(delete(job_payload).where(job_payload.c.job_id == key)))
    await sweep(history.db)
    assert history.left() == [key]


async def test_requests_of_warm_jobs_are_read_by_the_part_that_can(history: History) -> None:
    def read(_: Connection, ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        return {key: {"url": "http://x"} for key in ids}

    await seeded(history.db, keeping(1))
    old, new = [history.add("SUCCEEDED", ended_h=hours, tier=int(Tier.WARM)) for hours in (9, 8)]
    history.db.write_sync(lambda conn: conn.execute(delete(job_payload)))
    await sweep(history.db, parts=RetentionParts(read_args=read))
    assert history.left() == [new]
    assert old not in history.left()


@pytest.mark.parametrize("seed", range(3))
async def test_random_stories_never_lose_one_of_the_newest_and_never_keep_more(history: History, seed: int) -> None:
    dice, count = random.Random(seed), 3  # noqa: S311
    await seeded(history.db, keeping(count))
    ended: dict[int, tuple[int, int]] = {}
    async with engine_of(history.db) as engine:
        for _ in range(8):
            for _ in range(dice.randrange(1, 15)):
                group = dice.randrange(3)
                hours = dice.choice((0.5, 2, 7, 8, 8, 40))
                key = history.add("SUCCEEDED", ended_h=hours, url=f"http://x/{group}", parts=0)
                ended[key] = (group, end_of(history, key))
            if dice.random() < 0.5 and history.seen():
                gone = dice.choice(history.seen())
                history.db.write_sync(lambda conn, gone=gone: hide(conn, gone))  # type: ignore[misc]
                del ended[gone]
            for _ in range(2):
                assert (await engine.run(dry_run=False, by="t")).state == "DONE"
            left = set(history.seen())
            for group in range(3):
                members = sorted((at, key) for key, (one, at) in ended.items() if one == group)
                newest = {key for _, key in members[-count:]}
                assert newest <= left, (newest, left)
                assert not {key for at, key in members[:-count] if old(history, at)} & left
            ended = {key: facts for key, facts in ended.items() if key in left}


def old(history: History, at: int) -> bool:
    return at < history.db.read_sync(db_now_ms) - 6 * 3_600_000


def end_of(history: History, key: int) -> int:
    row = select(job.c.finished_at).where(job.c.id == key)
    return history.db.read_sync(lambda conn: int(conn.execute(row).scalar_one()))
