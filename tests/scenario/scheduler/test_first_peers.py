"""How content comes into a swarm that has none of it."""

from tests.scenario.scheduler.script import TASK, Script, make_host

from darner.core.errors import OriginError, UnavailableError
from darner.core.fleet import ApplicationInfo
from darner.core.ranges import ByteRange
from darner.core.task import Headers
from darner.scheduler.events import ApplicationsKnown


def test_the_first_peer_triggers_the_seed_and_the_others_only_wait() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b", "c")
    assert script.register("a", output_path="/data/x", timeout_s=5.0) == ["seed s: load"]
    assert script.register("b") == []
    assert script.register("c") == []
    wish = script.triggers[1].download
    assert (wish.need_back_to_source, wish.output_path, wish.timeout_s, wish.remote_ip) == (True, None, None, "10.0.0.9")


def test_waiting_peers_get_the_seed_as_soon_as_it_has_started() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    assert script.seed_registers("s") == ["s: origin"]
    assert script.origin_started("s") == ["a: parents s", "b: parents s"]
    assert script.trigger_ends() == []


def test_a_seed_that_has_the_content_already_says_so_and_is_a_parent_at_once() -> None:
    script = Script()
    script.seed("s")
    script.host("a")
    script.register("a")
    assert script.seed_registers("s", metadata_only=True, actual_content_length=9) == ["s: holder", "a: parents s"]
    assert script.started("s") == []
    assert script.finished("s") == ["s: end"]
    assert script.register("b") == ["b: parents s"]


def test_without_a_seed_exactly_one_peer_goes_to_the_origin_and_the_others_wait_for_it() -> None:
    script = Script()
    script.host("a", "b", "c")
    assert script.register("a") == ["a: origin"]
    assert script.register("b") == []
    assert script.register("c") == []
    assert script.origin_started("a") == ["b: parents a", "c: parents a"]


def test_the_peer_at_the_origin_fails_and_the_next_one_goes() -> None:
    script = Script()
    script.host("a", "b", "c")
    script.register("a")
    script.register("b")
    script.register("c")
    assert script.origin_failed("a", 503, "origin is tired") == ["a: end", "b: origin"]
    assert "origin is tired" in script.reasons["b"]
    assert script.held() == ["c"]


def test_a_broken_stream_of_the_peer_at_the_origin_counts_as_its_failure_at_once() -> None:
    script = Script()
    script.host("a", "b")
    script.register("a")
    script.register("b")
    assert script.broken("a") == ["b: origin"]


def test_a_trigger_that_fails_sends_exactly_one_waiting_peer_to_the_origin() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b", "c")
    for name in "abc":
        script.register(name)
    assert script.trigger_ends(UnavailableError("connection refused")) == ["a: origin"]
    assert script.held() == ["b", "c"]
    assert script.origin_started("a") == ["b: parents a", "c: parents a"]


def test_a_trigger_that_ends_well_although_nobody_registered_has_failed() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    assert script.trigger_ends() == ["a: origin"]


def test_a_seed_that_dies_while_others_still_wait_is_replaced_by_one_of_them() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    script.seed_registers("s")
    assert script.broken("s") == ["a: origin"]
    assert script.trigger_ends(UnavailableError("gone")) == []


def test_a_seed_host_that_leaves_before_it_registered_is_replaced() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    assert script.host_leaves(make_host("s", seed=True).id) == ["a: origin"]


def test_the_children_of_a_seed_that_dies_come_back_and_one_of_them_goes_to_the_origin() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    script.seed_registers("s")
    script.origin_started("s")
    script.started("a", "b")
    assert script.broken("s") == []
    assert script.reschedule("a") == ["a: origin"]
    assert script.reschedule("b") == []
    assert script.origin_started("a") == ["b: parents a"]


def test_a_seed_that_failed_a_task_is_not_asked_for_it_again_until_it_has_recovered() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b", "c")
    script.register("a")
    script.trigger_ends(UnavailableError("connection refused"))
    script.failed("a")
    assert script.register("b") == ["b: origin"]
    script.failed("b")
    script.now += 1
    script.checked("s", healthy=True)
    assert script.register("c") == ["seed s: load"]


def test_a_seed_that_cannot_be_reached_is_out_of_the_ring_and_another_is_asked() -> None:
    script = Script()
    script.seed("s", "t")
    script.host("a", "b")
    first = script.register("a")
    script.register("b")
    second = script.trigger_ends(UnavailableError("connection refused"))
    assert sorted(first + second) == ["seed s: load", "seed t: load"]
    assert script.trigger_ends(UnavailableError("connection refused")) == ["a: origin"]


def test_a_new_seed_is_waited_for_until_it_answers() -> None:
    script = Script()
    script.seed("s", checked=False)
    script.host("a", "b")
    assert script.register("a") == []
    assert script.register("b") == []
    assert script.checked("s", healthy=False) == []
    assert script.checked("s", healthy=True) == ["seed s: load"]


def test_a_new_seed_that_never_answers_is_not_waited_for_long() -> None:
    script = Script(seed_grace=3.0)
    script.seed("s", checked=False)
    script.host("a", "b")
    script.register("a")
    script.register("b")
    assert script.wait(2) == []
    assert script.wait(2) == ["a: origin"]


def test_a_peer_on_a_seed_goes_to_the_origin_itself() -> None:
    script = Script()
    script.seed("s", "t")
    script.host("a")
    assert script.register("p", on=make_host("s", seed=True).id) == ["p: origin"]
    assert script.register("a") == []
    assert script.origin_started("p") == ["a: parents p"]


def test_two_seeds_asked_to_load_by_a_person_do_not_both_go_to_the_origin() -> None:
    script = Script()
    script.seed("s", "t")
    assert script.seed_registers("s") == ["s: origin"]
    assert script.seed_registers("t") == []
    assert script.origin_started("s") == ["t: parents s"]


def test_two_downloads_of_one_host_are_not_held_for_each_other() -> None:
    script = Script()
    script.host("a")
    assert script.register("one", on=make_host("a").id) == ["one: origin"]
    assert script.register("two", on=make_host("a").id) == ["two: origin"]


# --- ranges and wishes ----------------------------------------------------------------------------


def test_a_peer_with_a_range_is_not_the_one_that_is_sent_for_the_whole_task() -> None:
    script = Script()
    script.seed("s")
    script.host("r", "a", "b")
    script.register("r", range=ByteRange(start=0, length=5_000_000))
    script.register("h", request_header=Headers({"Range": "bytes=5-9"}))
    script.register("a")
    script.register("b")
    assert script.trigger_ends() == ["a: origin"]
    assert script.held() == ["r", "h", "b"]
    assert sorted(script.origin_started("a")) == ["b: parents a", "h: parents a", "r: parents a"] or script.held() == ["h"]


def test_the_seed_is_asked_for_the_whole_even_if_the_asker_wants_a_part() -> None:
    script = Script()
    script.seed("s")
    script.register("r", range=ByteRange(start=7, length=5_000_000), request_header=Headers({"range": "bytes=7-99", "X": "1"}))
    wish = script.triggers[1].download
    assert wish.range is None
    assert wish.request_header == {"X": "1"}


def test_ranges_alone_go_to_the_origin_each_for_its_own_part() -> None:
    script = Script()
    script.host("a", "b", "c", "d")
    assert script.register("a", range=ByteRange(start=0, length=100)) == ["a: origin"]
    assert script.register("b", range=ByteRange(start=200, length=100)) == ["b: origin"]
    assert script.register("c", range=ByteRange(start=210, length=20)) == []
    assert script.register("d") == ["d: origin"]
    assert script.origin_started("b") == ["c: parents b"]


def test_a_peer_that_must_not_touch_the_origin_is_never_sent_there() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a", disable_back_to_source=True)
    script.register("b")
    assert not script.triggers[1].download.disable_back_to_source
    assert script.trigger_ends() == ["b: origin"]
    assert script.held() == ["a"]
    assert script.broken("b") == ["a: refused NotFoundError"]


# --- origin errors --------------------------------------------------------------------------------


def test_a_permanent_error_of_the_origin_reaches_all_that_wait_and_nobody_else_asks_it() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b", "c")
    for name in "abc":
        script.register(name)
    lines = script.trigger_ends(OriginError("GET …: 404 Not Found", status=404))
    assert lines == ["a: refused OriginError 404", "b: refused OriginError 404", "c: refused OriginError 404"]


def test_a_permanent_error_reported_on_the_seeds_stream_reaches_even_its_children() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a")
    script.register("b")
    script.seed_registers("s")
    script.origin_started("s")
    script.started("a")
    lines = script.origin_failed("s", 410, "gone for good")
    assert sorted(lines) == ["a: refused OriginError 410", "b: refused OriginError 410", "s: end"]
    assert "gone for good" in script.errors["a"].message


def test_after_a_permanent_error_the_seed_may_be_asked_again() -> None:
    script = Script()
    script.seed("s")
    script.register("a")
    script.trigger_ends(OriginError("no", status=404))
    assert script.register("b") == ["seed s: load"]


def test_refused_credentials_concern_only_those_who_showed_the_same_ones() -> None:
    script = Script()
    script.seed("s")
    script.host("a", "b")
    script.register("a", request_header=Headers({"Authorization": "wrong"}))
    script.register("b", request_header=Headers({"Authorization": "right"}))
    lines = script.trigger_ends(OriginError("401", status=401))
    assert lines == ["a: refused OriginError 401", "seed s: load"]
    assert script.triggers[2].download.request_header["Authorization"] == "right"


def test_a_passing_error_is_tried_by_one_peer_after_the_other_but_not_by_all() -> None:
    script = Script(origin_attempts=4)
    names = ["a", "b", "c", "d", "e", "f"]
    script.seed("s")
    script.host(*names)
    for name in names:
        script.register(name)
    assert script.trigger_ends(OriginError("502", status=502)) == ["a: origin"]
    assert script.origin_failed("a", 502) == ["a: end", "b: origin"]
    assert script.origin_failed("b", 502) == ["b: end", "c: origin"]
    lines = script.origin_failed("c", 502, "still tired")
    assert lines == ["d: refused OriginError 502", "e: refused OriginError 502", "f: refused OriginError 502", "c: end"]


# --- priorities -----------------------------------------------------------------------------------


def test_priorities_decide_what_the_first_peer_gets() -> None:
    script = Script()
    script.seed("s")
    assert script.register("one", priority=1) == ["one: refused ConflictError"]
    assert script.register("two", priority=2) == ["two: refused NotFoundError"]
    assert script.register("three", priority=3) == ["three: origin"]


def test_priorities_do_not_matter_once_there_is_a_parent() -> None:
    script = Script()
    script.seed("s")
    script.seed_registers("s", metadata_only=True)
    assert script.register("one", priority=1) == ["one: parents s"]
    assert script.register("two", priority=2) == ["two: parents s"]


def test_priority_zero_asks_the_applications_table_first_by_url_then_by_application() -> None:
    script = Script()
    script.seed("s")
    table = ApplicationInfo(id=7, name="shop", url="", priority=2, urls=(("[", 1), (r"/big/", 3)))
    script.do(ApplicationsKnown(applications=(table,)))
    assert script.register("a", priority=0, application="shop") == ["a: refused NotFoundError"]
    assert script.register("b", priority=0, application="shop", url="https://o.test/big/x", task="b1" * 32) == ["b: origin"]
    assert script.register("c", priority=0, application="other", task="c1" * 32) == ["seed s: load"]
    assert script.register("d", priority=6, application="shop", task="d1" * 32) == ["seed s: load"]


# --- empty and known lengths ----------------------------------------------------------------------


def test_only_a_known_length_of_zero_is_an_empty_task() -> None:
    script = Script()
    script.host("a", "b")
    assert script.register("a", actual_content_length=0) == ["a: empty"]
    assert script.started("a") == []
    assert script.finished("a") == ["a: end"]
    assert script.register("b", task="b2" * 32) == ["b: origin"]


def test_what_the_source_peer_reports_teaches_the_lengths_and_is_vouched_for() -> None:
    script = Script()
    script.host("a", "b")
    script.register("a")
    script.origin_started("a")
    script.register("b")
    script.started("b")
    script.origin_piece("a", 1, length=5)
    script.origin_piece("a", 0)
    script.piece("b", 0, "a")
    info = script.swarms.task_info(TASK, 50.0)
    assert info is not None
    assert (info.content_length, info.state, info.peer_count, info.has_available_peer) == (None, "Running", 2, True)
    assert [piece.digest for piece in info.pieces] == [f"blake3:{1:064x}", f"blake3:{2:064x}"]
    assert info.created_at == 1050.0
    script.origin_finished("a")
    info = script.swarms.task_info(TASK, 0.0)
    assert info is not None
    assert (info.content_length, info.piece_count, info.state) == (4 * 1024 * 1024 + 5, 2, "Succeeded")


def test_a_peer_that_was_not_sent_to_the_origin_vouches_for_nothing() -> None:
    script = Script()
    script.host("a", "b")
    script.register("a")
    script.origin_started("a")
    script.register("b")
    script.started("b")
    script.origin_piece("b", 0)
    info = script.swarms.task_info(TASK, 0.0)
    assert info is not None
    assert info.pieces == ()


def test_what_is_told_of_a_task_holds_no_secret_header() -> None:
    script = Script()
    script.register("a", request_header=Headers({"Authorization": "Basic x", "Accept": "y"}))
    info = script.swarms.task_info(TASK, 0.0)
    assert info is not None
    assert info.request_header == {"Accept": "y"}
