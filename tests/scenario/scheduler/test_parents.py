"""Who is offered to whom, and who is not."""

from typing import Any

from tests.scenario.scheduler.script import TASK, Script, make_host

from darner.core.announce import Finished, Reschedule
from darner.core.piece import MIB
from darner.core.ranges import ByteRange
from darner.scheduler.policy.cover import covers
from darner.scheduler.records import PeerState


def loading_seed(script: Script, *waiting: str) -> None:
    """A seed that has started, and peers that load from it."""
    script.seed("s")
    script.host(*waiting)
    for name in waiting:
        script.register(name)
    if waiting:
        script.seed_registers("s")
        script.origin_started("s")
        script.started(*waiting)


def test_a_peer_that_loads_from_parents_is_a_parent_itself_once_it_has_started() -> None:
    script = Script()
    loading_seed(script, "a")
    script.register("b")
    assert set(script.parents("b")) == {"s", "a"}


def test_a_peer_that_was_answered_but_has_not_started_is_not_offered() -> None:
    script = Script()
    loading_seed(script, "a")
    script.register("b")
    script.register("c")
    assert set(script.parents("c")) == {"s", "a"}


def test_nobody_loads_from_its_own_host() -> None:
    script = Script()
    loading_seed(script, "a")
    script.register("a2", on=make_host("a").id)
    assert script.parents("a2") == ["s"]


def test_of_two_peers_of_one_host_only_one_is_offered() -> None:
    script = Script()
    loading_seed(script, "a")
    script.register("a2", on=make_host("a").id)
    script.started("a2")
    script.register("b")
    assert len(script.parents("b")) == 2
    assert "s" in script.parents("b")


def test_a_host_that_does_not_share_is_never_offered_but_may_finish() -> None:
    script = Script()
    loading_seed(script, "a")
    script.host("leech", disable_shared=True)
    script.register("leech")
    script.started("leech")
    script.register("b")
    assert set(script.parents("b")) == {"s", "a"}
    assert script.finished("leech") == ["leech: end"]
    script.register("c")
    assert "leech" not in script.parents("c")


def test_a_host_that_stops_sharing_is_offered_no_more() -> None:
    script = Script()
    loading_seed(script, "a")
    script.host("a", disable_shared=True)
    script.register("b")
    assert script.parents("b") == ["s"]


def test_others_do_not_wait_for_a_source_that_does_not_share() -> None:
    script = Script()
    script.host("leech", disable_shared=True)
    script.host("a", "b")
    assert script.register("leech") == ["leech: origin"]
    assert script.register("a") == ["a: origin"]
    assert script.register("b") == []


def test_a_host_that_is_not_known_may_load_and_is_offered_once_it_announces_itself() -> None:
    script = Script()
    script.seed("s")
    script.seed_registers("s", metadata_only=True)
    assert script.register("x", on="10.7.7.7-some-host") == ["x: parents s"]
    script.started("x")
    assert script.peer("x").host.host.ip == "10.7.7.7"
    script.register("a")
    assert script.parents("a") == ["s"]
    script.announce(make_host("x", ip="10.7.7.7"))
    script.register("b")
    assert script.parents("b") == ["s"]  # that was another host id
    known = make_host("some-host", ip="10.7.7.7")
    renamed = type(known)(id=script.peer("x").host.host.id, ip="10.7.7.7", hostname="some-host", port=4001)
    script.announce(renamed)
    script.register("c")
    assert set(script.parents("c")) == {"s", "x"}


def test_the_address_in_an_ipv6_host_id_is_understood_and_nonsense_is_not() -> None:
    script = Script()
    script.register("x", on="fd00::5-name-with-dashes")
    script.register("y", on="no address", task="b1" * 32)
    assert script.peer("x").host.host.ip == "fd00::5"
    assert script.swarms._world.hosts["no address"].host.ip == ""


# --- failures -------------------------------------------------------------------------------------


def test_a_parent_that_failed_a_peer_once_is_its_second_choice_and_twice_none() -> None:
    script = Script()
    loading_seed(script, "a")
    script.finished("a")
    script.host("b")
    script.register("b")
    script.started("b")
    assert set(script.parents("b")) == {"s", "a"}
    script.host("c")
    script.register("c", metadata_only=True)
    assert script.reschedule("b") == ["b: parents c"]
    script.started("b")
    script.reschedule("b")
    assert set(script.parents("b")) == {"a", "c", "s"}
    script.started("b")
    assert script.reschedule("b") == ["b: origin"]


def test_one_answer_counts_one_strike_however_many_pieces_failed() -> None:
    script = Script()
    loading_seed(script, "a")
    script.piece_failed("a", "s")
    script.piece_failed("a", "s")
    assert script.reschedule("a") == ["a: parents s"]
    assert script.peer("a").strikes == {make_host("s", seed=True).id: 1}


def test_a_failed_peer_is_offered_no_more_from_the_moment_its_stream_broke() -> None:
    script = Script()
    loading_seed(script, "a")
    script.broken("a")
    script.register("b")
    assert script.parents("b") == ["s"]


def test_children_are_not_sent_below_themselves() -> None:
    script = Script()
    loading_seed(script, "a")
    script.register("b")
    script.started("b")
    assert set(script.parents("b")) == {"s", "a"}
    assert script.reschedule("a") == ["a: parents s"]  # b loads from a


def test_a_peer_whose_host_deleted_the_task_is_offered_no_more() -> None:
    script = Script()
    loading_seed(script, "a")
    script.finished("a")
    script.forgets(make_host("a").id)
    assert "a" not in script.task().peers
    script.register("b")
    assert script.parents("b") == ["s"]


def test_a_waiting_peer_whose_host_leaves_is_told_and_one_that_loads_is_left_alone() -> None:
    script = Script()
    script.host("a", "b", "c")
    script.register("a")
    script.register("b")
    assert script.host_leaves(make_host("b").id) == ["b: refused NotFoundError"]
    assert script.host_leaves(make_host("a").id) == []
    assert script.origin_piece("a", 0) == []
    assert script.say("a", Reschedule(), on=make_host("a").id) == ["a: refused NotFoundError"]
    assert script.say("a", Finished(), on=make_host("a").id) == ["a: end"]


# --- pieces ---------------------------------------------------------------------------------------


def test_a_peer_with_a_range_is_offered_only_to_those_whose_wishes_it_covers() -> None:
    script = Script()
    script.host("r", "a", "b", "c")
    lengths: dict[str, Any] = {"actual_content_length": 40 * MIB, "actual_piece_length": 4 * MIB}
    script.register("r", range=ByteRange(start=8 * MIB, length=8 * MIB), **lengths)
    script.origin_started("r")
    script.origin_piece("r", 2)
    script.origin_piece("r", 3)
    script.origin_finished("r")
    assert script.register("a", range=ByteRange(start=9 * MIB, length=MIB), **lengths) == ["a: parents r"]
    assert script.register("b", range=ByteRange(start=0, length=MIB), **lengths) == ["b: origin"]
    assert script.register("c", **lengths) == ["c: origin"]


def test_a_child_that_lacks_little_takes_a_partial_peer_that_has_it() -> None:
    script = Script()
    script.host("r", "a")
    lengths: dict[str, Any] = {"actual_content_length": 12 * MIB, "actual_piece_length": 4 * MIB}
    script.register("a", **lengths)
    script.origin_started("a")
    script.origin_piece("a", 0)
    script.origin_piece("a", 2)
    script.broken("a")
    script.register("r", range=ByteRange(start=5 * MIB, length=MIB), **lengths)
    script.origin_started("r")
    script.origin_piece("r", 1)
    script.origin_finished("r")
    script.register("b", **lengths)
    peer = script.peer("b")
    assert peer.missing() == 0b111
    peer.finished = 0b101
    assert covers(script.peer("r"), peer)


def test_a_range_outside_of_the_content_is_no_reason_to_fail() -> None:
    script = Script()
    script.host("a")
    lengths: dict[str, Any] = {"actual_content_length": 5 * MIB, "actual_piece_length": 4 * MIB}
    assert script.register("a", range=ByteRange(start=9 * MIB, length=0), **lengths) == ["a: origin"]


def test_a_piece_number_beyond_reason_costs_no_memory() -> None:
    script = Script()
    script.host("a")
    script.register("a")
    script.origin_started("a")
    script.origin_piece("a", (1 << 32) - 1)
    assert script.peer("a").finished == 0


# --- load -----------------------------------------------------------------------------------------


def test_the_less_loaded_of_two_parents_comes_first() -> None:
    script = Script(candidate_parent_limit=1)
    script.host("p", "q", max_tx_bandwidth=1_000_000_000)
    script.register("p", metadata_only=True)
    script.register("q", metadata_only=True)
    chosen = []
    for number in range(6):
        script.register(f"c{number}", on=f"10.0.0.1-c{number}")
        chosen += script.parents(f"c{number}")
    assert (chosen.count("p"), chosen.count("q")) == (3, 3)


def test_a_host_that_announces_that_its_line_is_full_comes_last() -> None:
    script = Script(candidate_parent_limit=1)
    script.host("p", max_tx_bandwidth=1_000_000_000, tx_bandwidth=990_000_000)
    script.host("q", max_tx_bandwidth=1_000_000_000)
    script.register("p", metadata_only=True)
    script.register("q", metadata_only=True)
    assert [script.register(f"c{n}", on=f"10.0.0.1-c{n}") for n in range(2)] == [["c0: parents q"], ["c1: parents q"]]


def test_a_parent_in_the_same_data_centre_comes_first() -> None:
    script = Script(candidate_parent_limit=1)
    script.host("p", idc="north")
    script.host("q", idc="South")
    script.register("p", metadata_only=True)
    script.register("q", metadata_only=True)
    script.host("c", idc="south")
    assert script.register("c") == ["c: parents q"]


def test_a_full_host_is_waited_for_and_not_bypassed() -> None:
    script = Script(load_limit=2)
    script.host("p", "c")
    script.host("a", "b", disable_shared=True)
    script.register("p", metadata_only=True)
    script.register("a")
    script.register("b")
    assert script.register("c") == []
    script.finished("a")
    assert script.wait(1) == ["c: parents p"]


def test_a_parent_whose_pieces_have_become_much_slower_is_second_choice() -> None:
    script = Script(candidate_parent_limit=1)
    loading_seed(script, "a")
    for number in range(4):
        script.piece("a", number, "s", cost_s=0.01)
    script.piece("a", 4, "s", cost_s=5.0)
    script.host("b", "c")
    assert script.register("b") == ["b: parents s"]
    assert script.register("c") == ["c: parents s"]


# --- waves ----------------------------------------------------------------------------------------


def test_many_waiting_peers_are_released_in_waves_that_grow_with_the_parents() -> None:
    script = Script(wave=8)
    script.seed("s")
    names = [f"p{number:03}" for number in range(300)]
    script.host(*names)
    for name in names:
        script.register(name)
    script.seed_registers("s")
    lines = script.origin_started("s")
    sizes = []
    while lines:
        sizes.append(len(lines))
        released = [line.partition(":")[0] for line in lines]
        lines = script.started(*released)
    assert sizes == [8, 64, 228]
    seed = script.peer("s")
    assert len(seed.children) < 150
    assert all(name in script.told for name in names)


def test_a_piece_report_releases_nobody() -> None:
    script = Script(wave=1)
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    script.seed_registers("s")
    assert script.origin_started("s") == ["a: parents s"]
    assert script.origin_piece("s", 0) == []
    assert script.piece("a", 0, "s") == []
    assert script.held() == ["b"]


def test_a_wave_that_does_not_start_does_not_stop_the_next() -> None:
    script = Script(wave=2)
    script.seed("s")
    names = [f"p{number}" for number in range(6)]
    script.host(*names)
    for name in names:
        script.register(name)
    script.seed_registers("s")
    assert len(script.origin_started("s")) == 2
    assert len(script.wait(1)) == 2
    assert len(script.wait(1)) == 2


# --- states ---------------------------------------------------------------------------------------


def test_a_running_peer_may_turn_to_the_origin_and_is_then_a_parent_of_its_own() -> None:
    script = Script()
    loading_seed(script, "a")
    script.broken("s")
    assert script.origin_started("a") == []
    assert script.peer("a").state is PeerState.BACK_TO_SOURCE
    script.host("b")
    assert script.register("b") == ["b: parents a"]


def test_repeated_and_late_messages_are_taken_as_they_come() -> None:
    script = Script()
    loading_seed(script, "a")
    assert script.started("a", "a") == []
    assert script.finished("a") == ["a: end"]
    assert script.finished("a") == ["a: end"]
    assert script.started("a") == []
    assert script.reschedule("a") == []
    assert script.failed("a") == ["a: end"]
    assert script.finished("nobody") == ["nobody: end"]
    assert script.started("nobody") == []


def test_a_registration_that_is_repeated_on_the_stream_only_teaches() -> None:
    script = Script()
    loading_seed(script, "a")
    assert script.register("s", actual_content_length=77, actual_piece_length=4 * MIB, task=TASK) == []
    assert script.task().content_length == 77


def test_a_peer_id_that_has_ended_may_register_anew() -> None:
    script = Script()
    loading_seed(script, "a")
    script.broken("a")
    assert script.register("a") == ["a: parents s"]


def test_nobody_gets_a_sixth_answer_and_the_fifth_is_the_origin() -> None:
    script = Script()
    script.seed("s", "t", "u", "v", "w")
    for name in "stuvw":
        script.seed_registers(name, metadata_only=True)
    script.host("a")
    script.register("a")
    for _ in range(3):
        assert script.reschedule("a")[0].startswith("a: parents")
    assert script.reschedule("a") == ["a: origin"]
    assert script.reschedule("a") == ["a: refused UnavailableError"]


def test_the_fifth_answer_may_be_parents_for_one_who_must_not_go_to_the_origin() -> None:
    script = Script()
    script.seed(*"stuvwxyz")
    for name in "stuvwxyz":
        script.seed_registers(name, metadata_only=True)
    script.register("a", disable_back_to_source=True)
    for _ in range(4):
        assert script.reschedule("a")[0].startswith("a: parents")
    assert script.reschedule("a") == ["a: refused UnavailableError"]
