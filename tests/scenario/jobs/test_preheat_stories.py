"""Preheats as stories: what people ask, what hosts and workers do, and the one honest state at the end."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from darner.core.errors import ConflictError, DarnerError, InvalidInputError, NotFoundError, OriginError, UnavailableError
from darner.core.ids import task_id
from darner.core.job import DetailState, PartState, Tier
from darner.core.task import Headers
from darner.jobs.events import Cancel, Content, Describe, Hold, JobQuery, Release, Remove
from darner.jobs.twins import LocalBoard

Scene = Any  # tests/scenario/jobs/conftest.py; test directories are no packages

A, B = "http://o.example/a.bin", "http://o.example/b.bin"
BODY = b"darner" * 2_000_000
IMAGE = "https://registry.example/v2/app/manifests/v1"
DIGESTS = [f"sha256:{letter * 64}" for letter in "abc"]
BLOBS = [f"https://registry.example/v2/app/blobs/{digest}" for digest in DIGESTS]
LAYERS = [Content(url=url, digest=digest, size_bytes=len(BODY)) for url, digest in zip(BLOBS, DIGESTS, strict=True)]
UNAUTHORIZED = OriginError("401 Unauthorized from registry.example", status=401)
BUSY = UnavailableError("the daemon is starting")


async def test_an_image_fills_every_host_and_each_layer_has_the_mirrors_task_id(scene: Scene) -> None:
    scene.resolver.images[IMAGE] = LAYERS
    scene.resolver.headers = Headers({"Authorization": "Bearer registry-made-token"})
    daemons = [scene.daemon(name, dict.fromkeys(BLOBS, BODY), seed=name == "seed") for name in ("seed", "p1", "p2")]
    await scene.work()
    details = await scene.end_of(await scene.image(IMAGE, scope="all_peers", username="u", password="registry-pass"))
    assert details.job.state == DetailState.SUCCEEDED
    assert details.job.bytes_done == details.job.bytes_total == 9 * len(BODY)
    for daemon in daemons:
        assert set(daemon.twin.local) == {digest.removeprefix("sha256:") for digest in DIGESTS}
        assert {asked.request_header["Authorization"] for asked in daemon.asked} == {"Bearer registry-made-token"}
        assert {str(asked.digest) for asked in daemon.asked} == set(DIGESTS)
    parts = await scene.parts(details.job.id)
    assert [(part.verified, len(part.hosts)) for part in parts] == [(True, 3)] * 3


async def test_one_layer_that_fails_makes_the_job_partial_with_the_origins_words(scene: Scene) -> None:
    scene.resolver.images[IMAGE] = LAYERS
    seed = scene.daemon("seed", dict.fromkeys(BLOBS, BODY), seed=True)
    seed.failing_urls[BLOBS[1]] = UNAUTHORIZED
    await scene.work()
    details = await scene.end_of(await scene.image(IMAGE))
    assert details.job.state == DetailState.PARTIAL
    assert details.job.error == "1 of 3 parts failed: seed: 401 Unauthorized from registry.example"
    assert seed.streams == 3, "a refusal is not asked for again"
    state = details.result["job_states"][0]
    assert (state["state"], len(state["results"][0]["success_tasks"])) == ("FAILURE", 2)
    assert state["results"][0]["failure_tasks"][0]["description"] == "401 Unauthorized from registry.example"
    assert state["error"]


async def test_when_every_layer_fails_the_job_fails(scene: Scene) -> None:
    scene.resolver.images[IMAGE] = LAYERS
    scene.daemon("seed", {}, seed=True)
    await scene.work()
    details = await scene.end_of(await scene.image(IMAGE))
    assert details.job.state == DetailState.FAILED
    assert "404 Not Found" in details.job.error


async def test_a_host_that_is_just_restarting_is_asked_again(scene: Scene) -> None:
    seed = scene.daemon("seed", {A: BODY}, seed=True)
    seed.failures = [BUSY, BUSY, BUSY]
    await scene.work()
    details = await scene.end_of(await scene.preheat(A))
    assert details.job.state == DetailState.SUCCEEDED
    assert "part_again" in await scene.kinds(details.job.id)


async def test_a_host_that_never_comes_back_makes_it_partial_on_all_peers(scene: Scene) -> None:
    scene.daemon("seed", {A: BODY}, seed=True)
    bad = scene.daemon("p1", {A: BODY})
    bad.failures = [BUSY] * 1000
    await scene.work()
    details = await scene.end_of(await scene.preheat(A, scope="all_peers"))
    assert details.job.state == DetailState.PARTIAL
    assert details.job.error == "1 of 2 hosts failed: the daemon is starting"
    assert bad.streams == 8, "4 leases, 2 tries each"


async def test_a_host_that_is_away_for_longer_than_all_attempts_take_is_waited_for(scene: Scene) -> None:
    scene.config = replace(scene.config, patience_s=10.0)
    scene.engine = scene.new_engine()
    scene.board = LocalBoard(scene.engine, wait_s=0.2)
    scene.daemon("seed", {A: BODY}, seed=True)
    back = scene.daemon("p1", {A: BODY})
    back.failures = [UnavailableError("connection refused")] * 15
    await scene.work()
    details = await scene.end_of(await scene.preheat(A, scope="all_peers"))
    assert details.job.state == DetailState.SUCCEEDED
    assert back.streams > 2 * scene.config.max_attempts


async def test_a_host_of_an_earlier_attempt_that_left_is_not_forgotten(scene: Scene) -> None:
    scene.daemon("seed", {A: BODY}, seed=True)
    slow = scene.daemon("p1", {A: BODY})
    slow.hang = True
    gone = LocalBoard(scene.engine, wait_s=0.2)
    first = scene.worker("w1", board=gone)
    await first.__aenter__()
    job_id = await scene.preheat(A, scope="all_peers")
    while [len(part.hosts) for part in await scene.parts(job_id)] != [2]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    gone.up = False
    await first.__aexit__(None, None, None)
    scene.hosts.hosts.remove(slow.host)
    slow.failures = [UnavailableError("connection refused")] * 1000
    await scene.work("w2")
    details = await scene.end_of(job_id)
    assert details.job.state == DetailState.PARTIAL
    assert details.job.error == "1 of 2 hosts failed: connection refused"


@pytest.mark.parametrize("scope", ["all_peers", "single_seed_peer"])
async def test_a_scheduler_that_forgot_the_hosts_does_not_end_what_was_begun(scene: Scene, scope: str) -> None:
    """A restarted scheduler, and the worker with it: the hosts announce themselves only minutes later."""
    seed = scene.daemon("seed", {A: BODY}, seed=True)
    seed.hang = True
    gone = LocalBoard(scene.engine, wait_s=0.2)
    first = scene.worker("w1", board=gone)
    await first.__aenter__()
    job_id = await scene.preheat(A, scope=scope)
    await scene.until(job_id, lambda details: details.job.bytes_done > 0)
    gone.up = False
    await first.__aexit__(None, None, None)
    scene.hosts.hosts.clear()
    seed.hang = False
    await scene.work("w2")
    details = await scene.end_of(job_id)
    assert details.job.state == DetailState.SUCCEEDED
    assert [part.verified for part in await scene.parts(job_id)] == [True]


async def test_a_daemon_that_says_done_without_holding_the_task_does_not_count(scene: Scene) -> None:
    seed = scene.daemon("seed", {A: BODY}, seed=True)
    seed.denies_at_the_end = True
    await scene.work()
    details = await scene.end_of(await scene.preheat(A))
    assert details.job.state == DetailState.FAILED
    assert "not finished" in details.job.error


async def test_upstreams_daemon_counts_when_its_stream_named_every_byte_but_is_shown_as_unverified(scene: Scene) -> None:
    whole = scene.daemon("whole", {A: BODY}, build="2.3.5")
    cut = scene.daemon("cut", {A: BODY}, build="2.3.5")
    cut.ends_early = True
    await scene.work()
    details = await scene.end_of(await scene.preheat(A, scope="all_peers"))
    (part,) = await scene.parts(details.job.id)
    assert details.job.state == DetailState.PARTIAL
    results = {host.hostname: (host.state, host.verified) for host in part.hosts}
    assert results == {"whole": ("succeeded", False), "cut": ("failed", False)}
    cut.ends_early = False
    again = await scene.end_of(await scene.preheat(A, scope="all_peers"))
    assert again.job.state == DetailState.SUCCEEDED
    assert [part.verified for part in await scene.parts(again.job.id)] == [False]
    assert whole.streams >= 2


async def test_a_worker_killed_in_the_middle_is_replaced_and_its_late_words_change_nothing(scene: Scene) -> None:
    seed = scene.daemon("seed", {A: BODY}, seed=True)
    seed.hang = True
    dead = LocalBoard(scene.engine, wait_s=0.2)
    first = scene.worker("w1", board=dead)
    await first.__aenter__()
    job_id = await scene.preheat(A)
    await scene.until(job_id, lambda details: details.job.state == DetailState.RUNNING and details.job.bytes_done > 0)
    dead.up = False
    await first.__aexit__(None, None, None)
    seed.hang = False
    await scene.work("w2")
    details = await scene.end_of(job_id)
    assert details.job.state == DetailState.SUCCEEDED
    (part,) = await scene.parts(job_id)
    assert (part.lease_holder, part.attempts) == ("w2", 2)
    messages = [event.message for event in await scene.history.events(job_id)]
    assert any("w1 went silent" in message for message in messages)


async def test_a_worker_that_stops_properly_gives_its_part_back_at_once(scene: Scene) -> None:
    seed = scene.daemon("seed", {A: BODY}, seed=True)
    seed.hang = True
    first = scene.worker("w1")
    async with first:
        job_id = await scene.preheat(A)
        await scene.until(job_id, lambda details: details.job.state == DetailState.RUNNING and details.job.bytes_done > 0)
    (part,) = await scene.parts(job_id)
    assert (part.state, part.attempts) == (PartState.WAITING, 0)
    seed.hang = False
    await scene.work("w2")
    assert (await scene.end_of(job_id)).job.state == DetailState.SUCCEEDED


async def test_a_manager_that_is_away_for_a_moment_costs_nothing(scene: Scene) -> None:
    seed = scene.daemon("seed", {A: BODY}, seed=True)
    seed.hang = True
    await scene.work()
    job_id = await scene.preheat(A)
    await scene.until(job_id, lambda details: details.job.bytes_done > 0)
    scene.board.up = False
    seed.hang = False
    await asyncio.sleep(0.2)
    scene.board.up = True
    details = await scene.end_of(job_id, timeout_s=90)
    assert details.job.state == DetailState.SUCCEEDED


async def test_cancelling_stops_the_worker_and_ends_in_cancelled(scene: Scene) -> None:
    seed = scene.daemon("seed", {A: BODY, B: BODY}, seed=True)
    seed.hang = True
    await scene.work()
    job_id = await scene.preheat(A, B)
    await scene.until(job_id, lambda details: details.job.bytes_done > 0)
    assert (await scene.engine.act(job_id, Cancel(), by="anna")).state == DetailState.CANCELLING
    details = await scene.end_of(job_id)
    assert (details.job.state, details.job.error) == (DetailState.CANCELLED, "cancelled by a person")
    await asyncio.sleep(0.05)
    assert seed.cancelled == seed.streams
    with pytest.raises(ConflictError):
        await scene.engine.act(job_id, Cancel(), by="anna")


async def test_a_job_that_nobody_takes_can_be_cancelled_at_once(scene: Scene) -> None:
    job_id = await scene.preheat(A)
    await scene.until(job_id, lambda details: details.job.part_count == 1)
    assert (await scene.engine.act(job_id, Cancel(), by="anna")).state == DetailState.CANCELLED


async def test_a_deadline_ends_the_job_and_says_what_was_missing(scene: Scene) -> None:
    nobody = await scene.preheat(A, timeout=1_000_000_000)
    details = await scene.end_of(nobody)
    assert details.job.state == DetailState.TIMED_OUT
    assert "no worker" in details.job.error


async def test_a_scope_without_hosts_fails_with_a_reason_that_helps(scene: Scene) -> None:
    scene.daemon("p1", {A: BODY})
    await scene.work()
    no_seed = await scene.end_of(await scene.preheat(A))
    assert (no_seed.job.state, no_seed.job.error) == (
        DetailState.FAILED,
        "cluster 1 has no seed peer; start one, or choose scope all_peers",
    )
    no_ip = await scene.end_of(await scene.preheat(A, scope="all_peers", ips=["10.1.1.1"]))
    assert "10.1.1.1" in no_ip.job.error


async def test_a_registry_that_is_away_is_asked_again_and_one_that_refuses_is_not(scene: Scene) -> None:
    scene.resolver.images[IMAGE] = LAYERS[:1]
    scene.daemon("seed", dict.fromkeys(BLOBS, BODY), seed=True)
    await scene.work()
    scene.resolver.failures = [UnavailableError("connection refused")]
    assert (await scene.end_of(await scene.image(IMAGE))).job.state == DetailState.SUCCEEDED
    scene.resolver.failures = [OriginError("403 Forbidden from registry.example", status=403)]
    asked = len(scene.resolver.asked)
    refused = await scene.end_of(await scene.image(IMAGE))
    assert (refused.job.state, refused.job.error) == (DetailState.FAILED, "403 Forbidden from registry.example")
    assert len(scene.resolver.asked) == asked + 1
    assert refused.result["job_states"][0]["error"] == "403 Forbidden from registry.example"


async def test_secrets_are_nowhere_but_in_the_hands_of_the_worker(scene: Scene) -> None:
    secret_words = ["hunter2", "dat-origin-token", "SIGNED-QUERY", "some-user-name"]
    url = "http://o.example/s.bin?X-Amz-Signature=SIGNED-QUERY&v=1"
    seed = scene.daemon("seed", {url: BODY}, seed=True)
    job_id = await scene.preheat(
        url,
        headers={"Authorization": "Bearer dat-origin-token", "X-Team": "blue"},
        username="some-user-name",
        password="hunter2",
    )
    await scene.until(job_id, lambda details: details.job.part_count == 1)
    stored = scene.everything_stored()
    assert not [word for word in secret_words if word.encode() in stored]
    await scene.work()
    details = await scene.end_of(job_id)
    assert details.job.state == DetailState.SUCCEEDED
    assert seed.asked[0].url == url
    assert seed.asked[0].request_header == {"Authorization": "Bearer dat-origin-token", "X-Team": "blue"}
    shown = repr((details, await scene.parts(job_id), await scene.history.events(job_id)))
    assert not [word for word in secret_words if word in shown]
    assert details.args["headers"] == {"Authorization": "•••", "X-Team": "blue"}
    count = await scene.db.read(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM job_secret").scalar_one())
    assert count == 0, "secrets are dropped when the job ends"
    with pytest.raises(ConflictError, match="credentials"):
        await scene.engine.retry(job_id, by="anna")


async def test_a_task_is_the_same_one_that_a_later_download_asks_for(scene: Scene) -> None:
    seed = scene.daemon("seed", {A: BODY}, seed=True)
    await scene.work()
    await scene.end_of(await scene.preheat(A, tag="t", application="app", piece_length=8 * 1024**2))
    (asked,) = seed.asked
    assert (asked.tag, asked.application, asked.piece_length) == ("t", "app", 8 * 1024**2)
    assert set(seed.twin.local) == {task_id(asked)}


async def test_the_same_idempotency_key_answers_the_same_job_and_refuses_another_request(scene: Scene) -> None:
    body = {"type": "preheat", "args": {"type": "file", "url": A}}
    first = await scene.engine.create(body, owner="tester", idempotency_key="k")
    second = await scene.engine.create(body, owner="tester", idempotency_key="k")
    other = await scene.engine.create(body, owner="another", idempotency_key="k")
    assert first.job.id == second.job.id != other.job.id
    with pytest.raises(ConflictError):
        await scene.engine.create({"type": "preheat", "args": {"type": "file", "url": B}}, owner="tester", idempotency_key="k")


async def test_only_ended_jobs_that_nobody_holds_can_be_removed_and_a_hold_brings_them_back(scene: Scene) -> None:
    scene.daemon("seed", {A: BODY}, seed=True)
    job_id = await scene.preheat(A)
    with pytest.raises(ConflictError, match="cancel it first"):
        await scene.engine.act(job_id, Remove(), by="anna")
    await scene.work()
    await scene.end_of(job_id)
    await scene.engine.act(job_id, Hold("evidence"), by="anna")
    with pytest.raises(ConflictError, match="evidence"):
        await scene.engine.act(job_id, Remove(), by="anna")
    await scene.engine.act(job_id, Release(), by="anna")
    await scene.engine.act(job_id, Remove(), by="anna")
    assert await scene.history.page(JobQuery()) == []
    assert await scene.history.count(JobQuery(), at_most=9) == 0
    assert [job.id for job, _ in await scene.history.page(JobQuery(tiers=(Tier.DELETED,)))] == [job_id]
    with pytest.raises(NotFoundError, match="was removed; it can be restored"):
        await scene.engine.details(job_id)
    for action in (Remove(), Release(), Describe("x"), Cancel()):
        with pytest.raises(NotFoundError, match="was removed; it can be restored"):
            await scene.engine.act(job_id, action, by="anna")
    with pytest.raises(NotFoundError, match="was removed"):
        await scene.engine.retry(job_id, by="anna")
    assert (await scene.engine.details(job_id, removed=True)).job.tier == Tier.DELETED
    await scene.engine.act(job_id, Hold("still needed"), by="bob")
    found = (await scene.engine.details(job_id)).job
    assert (found.tier, found.held, found.hold_reason) == (Tier.HOT, True, "still needed")
    assert (await scene.kinds(job_id))[-5:] == ["held", "released", "removed", "restored", "held"]


async def test_a_job_whose_key_was_lost_fails_with_a_reason_instead_of_hanging(scene: Scene) -> None:
    class OtherKey:
        def seal(self, data: bytes) -> bytes:
            return data

        def open(self, data: bytes) -> bytes:  # noqa: ARG002
            raise DarnerError("sealed with another key")

    await scene.engine.__aexit__(None, None, None)
    job_id = await scene.preheat(A)
    scene.vault = OtherKey()
    second = scene.new_engine()
    async with second:
        details = await scene.end_of(job_id)
    assert (details.job.state, details.job.error) == (DetailState.FAILED, "sealed with another key")


async def test_an_unknown_cluster_is_named_and_nothing_is_stored(scene: Scene) -> None:
    body = {"type": "preheat", "args": {"type": "file", "url": A}, "scheduler_cluster_ids": [1, 99]}
    with pytest.raises(InvalidInputError, match="no cluster 99"):
        await scene.engine.create(body, owner="tester")
    assert await scene.db.read(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM job").scalar_one()) == 0


async def test_a_task_can_be_looked_for_and_deleted_on_every_host(scene: Scene) -> None:
    seed, peer = scene.daemon("seed", {A: BODY}, seed=True), scene.daemon("p1", {A: BODY})
    await scene.work()
    await scene.end_of(await scene.preheat(A))

    async def ask(kind: str) -> Any:
        created = await scene.engine.create({"type": kind, "args": {"url": A}}, owner="tester")
        return await scene.end_of(created.job.id)

    found = (await ask("get_task")).result["job_states"][0]["results"][0]["peers"]
    assert [(peer["hostname"], peer["host_type"], peer["IsFinished"]) for peer in found] == [("seed", "super", True)]
    assert (await ask("delete_task")).job.state == DetailState.SUCCEEDED
    assert (seed.twin.local, peer.twin.local) == ({}, {})
    assert (await ask("get_task")).result["job_states"][0]["results"][0]["peers"] == []


async def test_the_workers_hosts_reach_the_manager(scene: Scene) -> None:
    scene.daemon("seed", {}, seed=True)
    await scene.work()
    async with asyncio.timeout(5):
        while not scene.board.hosts:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [(host.hostname, host.seed) for host in scene.board.hosts[1]] == [("seed", True)]
