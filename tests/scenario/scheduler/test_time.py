"""What happens by itself as time passes."""

from tests.scenario.scheduler.script import TASK, Script, make_host

from darner.core.announce import Finished
from darner.scheduler.events import HostsSwept, PeersSwept, TasksSwept


def test_a_seed_that_never_registers_is_waited_for_as_long_as_patience_lasts() -> None:
    script = Script(patience=60.0)
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    assert script.wait(60) == []
    assert script.wait(2) == ["trigger 1: cancelled", "a: origin"]
    assert script.held() == ["b"]


def test_a_seed_that_registered_but_does_not_start_is_replaced_too() -> None:
    script = Script(patience=60.0)
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    script.wait(10)
    script.seed_registers("s")
    assert script.wait(60) == []
    assert script.wait(2) == ["trigger 1: cancelled", "a: origin"]


def test_a_peer_sent_to_the_origin_that_does_not_start_is_replaced_and_may_still_become_a_parent() -> None:
    script = Script(patience=60.0)
    script.host("a", "b", "c")
    script.register("a")
    script.register("b")
    script.register("c")
    assert script.wait(61) == ["b: origin"]
    assert script.held() == ["c"]
    assert script.origin_started("a") == ["c: parents a"]


def test_a_source_that_makes_progress_is_waited_for_even_by_those_who_cannot_be_served_yet() -> None:
    script = Script(patience=60.0, seed_load_limit=1)
    script.seed("s")
    script.host("a", "b")
    script.seed_registers("s", metadata_only=True)
    script.register("a", priority=6)
    script.started("a")
    script.host("a", disable_shared=True)
    assert script.register("b") == []
    for number in range(10):
        script.wait(30)
        script.piece("a", number, "s")
        assert script.held() == ["b"]
    assert script.wait(61) == ["b: origin"]


def test_a_loading_peer_without_progress_is_not_offered() -> None:
    script = Script(parent_patience=360.0)
    script.host("a", "b", "c")
    script.register("a")
    script.origin_started("a")
    script.wait(300, tick_s=10)
    assert script.register("b") == ["b: parents a"]
    script.wait(61, tick_s=10)
    assert script.register("c") == ["c: origin"]


def test_a_stuck_peer_is_forgotten_after_half_an_hour_without_a_piece() -> None:
    script = Script()
    script.host("a")
    script.register("a")
    script.origin_started("a")
    script.now += 1790
    sweep(script)
    assert "a" in script.task().peers
    script.now += 20
    sweep(script)
    assert script.task().peers == {}
    assert script.say("a", Finished(), on=make_host("a").id) == ["a: end"]


def test_failed_peers_are_forgotten_at_the_next_sweep_and_empty_tasks_later() -> None:
    script = Script()
    script.host("a")
    script.register("a")
    script.failed("a")
    sweep(script)
    assert script.task().peers == {}
    sweep_tasks(script)
    assert TASK not in script.swarms._world.tasks


def test_a_task_that_a_seed_is_being_asked_for_is_not_forgotten() -> None:
    script = Script()
    script.seed("s")
    script.register("a")
    script.broken("a")
    sweep(script)
    sweep_tasks(script)
    assert script.seed_registers("s") == ["s: origin"]


def test_a_holder_of_which_nothing_was_heard_for_a_day_is_forgotten() -> None:
    script = Script()
    script.host("a")
    script.register("a", metadata_only=True)
    for _ in range(24):
        script.now += 3599
        script.host("a")
        sweep(script)
    assert "a" in script.task().peers
    script.now += 30
    sweep(script)
    assert script.task().peers == {}


def test_a_host_that_missed_two_announcements_is_forgotten_unless_one_of_its_streams_lives() -> None:
    script = Script()
    script.host("a", "b")
    script.register("a", metadata_only=True)
    script.register("b")
    script.started("b")
    script.now += 601
    sweep_hosts(script)
    assert list(script.swarms._world.hosts) == [make_host("b").id]
    script.broken("b")
    sweep_hosts(script)
    assert script.swarms._world.hosts == {}


def test_a_crowded_task_loses_finished_peers_that_serve_nobody() -> None:
    script = Script(peers_per_task=3)
    script.host("a", "b", "c", "d")
    script.register("a", metadata_only=True)
    script.register("b", metadata_only=True)
    script.register("c", metadata_only=True)
    script.register("d")
    script.started("d")
    sweep(script)
    assert set(script.task().peers) == {"a", "b", "c", "d"}
    script.register("e", metadata_only=True)
    sweep(script)
    assert set(script.task().peers) == {"a", "b", "c", "d"}


def sweep(script: Script) -> None:
    script.do(PeersSwept())


def sweep_tasks(script: Script) -> None:
    script.do(TasksSwept())


def sweep_hosts(script: Script) -> None:
    script.do(HostsSwept())
