"""Which piece comes next from which parent, as scripts: events in, instructions out."""
# ruff: noqa: S311  (chance in tests is no secret)

import random
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner.daemon.events import (
    AllHere,
    CloseParent,
    Fetch,
    NeedParents,
    OffersEnded,
    OpenParent,
    ParentFailed,
    ParentsGiven,
    PieceArrived,
    PieceMissed,
    PieceOffered,
    PiecesWanted,
    PullEvent,
    PullInstruction,
    ReportMiss,
    Stalled,
)
from darner.daemon.rules import UNKNOWN_IDLE, idle_bandwidth, pick_parent
from darner.daemon.state import Pull


class Script:
    """Applies events one after the other, checking the invariants after each."""

    def __init__(self, *, limit: int = 2, ordered: bool = True, draw: float = 0.0) -> None:
        self.pull = Pull(limit=limit, draw=lambda: draw, ordered=ordered)

    def play(self, *events: PullEvent) -> list[PullInstruction]:
        done: list[PullInstruction] = []
        for event in events:
            done += self.pull.apply(event)
            self.pull.check()
        return done


def wanted(*numbers: int) -> PiecesWanted:
    return PiecesWanted(numbers=frozenset(numbers))


def given_parents(*names: str) -> ParentsGiven:
    return ParentsGiven(parents=tuple((name, 100) for name in names))


def offered(parent: str, *numbers: int) -> Iterator[PieceOffered]:
    return (PieceOffered(parent_id=parent, number=number) for number in numbers)


def test_parents_are_listened_to_and_offers_fetched_up_to_the_limit() -> None:
    script = Script(limit=2)
    assert script.play(given_parents("a"), wanted(0, 1, 2)) == [OpenParent(parent_id="a")]
    assert script.play(*offered("a", 0, 1, 2)) == [Fetch(number=0, parent_id="a"), Fetch(number=1, parent_id="a")]
    assert script.play(PieceArrived(number=0)) == [Fetch(number=2, parent_id="a")]
    assert script.play(PieceArrived(number=1), PieceArrived(number=2)) == [AllHere()]


def test_a_missed_piece_is_tried_on_another_parent_before_anybody_hears_of_it() -> None:
    script = Script(limit=1, draw=0.0)
    script.play(given_parents("a", "b"), wanted(0))
    assert script.play(*offered("a", 0)) == [Fetch(number=0, parent_id="a")]
    assert script.play(*offered("b", 0)) == []
    assert script.play(PieceMissed(number=0, parent_id="a")) == [CloseParent(parent_id="a"), Fetch(number=0, parent_id="b")]
    assert script.play(PieceMissed(number=0, parent_id="b")) == [
        CloseParent(parent_id="b"),
        ReportMiss(number=0, parent_id="b"),
        NeedParents(reason="1 of the missing 1 pieces are with none of the parents"),
    ]


def test_a_liar_is_never_used_again_but_one_that_went_away_may_come_back() -> None:
    script = Script()
    script.play(given_parents("liar", "gone"), wanted(0, 1), *offered("liar", 0), *offered("gone", 1))
    script.play(PieceMissed(number=0, parent_id="liar", lied=True), PieceMissed(number=1, parent_id="gone"))
    assert script.play(given_parents("liar", "gone")) == [OpenParent(parent_id="gone")]


def test_other_parents_are_asked_for_once_and_only_when_none_promises_more() -> None:
    script = Script()
    assert script.play(given_parents("a", "b"), wanted(0, 1, 2), OffersEnded(parent_id="a"))[2:] == []
    asked = script.play(ParentFailed(parent_id="b"))
    assert [type(instruction).__name__ for instruction in asked] == ["CloseParent", "NeedParents"]
    assert script.pull.starving
    assert script.play(OffersEnded(parent_id="a"), Stalled()) == []
    assert script.play(given_parents("c")) == [CloseParent(parent_id="a"), OpenParent(parent_id="c")]


def test_a_parent_that_only_promises_is_believed_until_the_download_stalls() -> None:
    script = Script()
    assert script.play(given_parents("a"), wanted(0)) == [OpenParent(parent_id="a")]
    assert [type(instruction).__name__ for instruction in script.play(Stalled())] == ["NeedParents"]


def test_before_the_length_is_known_the_loss_of_all_parents_asks_for_others() -> None:
    script = Script()
    assert [type(done).__name__ for done in script.play(given_parents("a"), ParentFailed(parent_id="a"))] == [
        "OpenParent",
        "CloseParent",
        "NeedParents",
    ]


def test_the_rarest_piece_comes_first_when_nobody_reads_in_order() -> None:
    script = Script(limit=1, ordered=False)
    script.play(given_parents("a", "b"), wanted(0, 1, 2), *offered("a", 0, 1, 2))
    script.play(*offered("b", 0, 1))
    first = script.play(PieceArrived(number=0))
    assert first == [Fetch(number=2, parent_id="a")]


def test_a_parent_that_drops_out_of_the_list_is_closed_and_one_that_stays_keeps_its_offers() -> None:
    script = Script(limit=1)
    script.play(given_parents("a", "b"), wanted(0, 1), *offered("a", 0, 1))
    assert script.play(given_parents("a", "c")) == [CloseParent(parent_id="b"), OpenParent(parent_id="c")]
    assert script.play(PieceArrived(number=0)) == [Fetch(number=1, parent_id="a")]


@pytest.mark.parametrize(("maximum", "used", "idle"), [(0, 5, UNKNOWN_IDLE), (100, 30, 70), (100, 99, 10), (100, 500, 10)])
def test_a_parent_weighs_what_it_has_left(maximum: int, used: int, idle: int) -> None:
    assert idle_bandwidth(maximum, used) == idle


def test_parents_are_picked_in_proportion_to_their_weight() -> None:
    draw = random.Random(7)
    picked = [pick_parent({"a": 1.0, "b": 3.0}, draw.random()) for _ in range(4000)]
    assert 0.70 < picked.count("b") / len(picked) < 0.80


@given(st.integers(0, 2**32), st.integers(1, 5), st.booleans())
def test_whatever_happens_every_piece_that_stays_with_an_honest_parent_arrives(  # noqa: C901  (one small world)
    seed: int, limit: int, ordered: bool
) -> None:
    chance = random.Random(seed)
    pull = Pull(limit=limit, draw=chance.random, ordered=ordered, rotation=3)
    pieces = range(12)
    flying: list[Fetch] = []
    names = [f"p{number}" for number in range(3)]
    fresh = count(3)

    def take(instructions: list[PullInstruction]) -> bool:
        pull.check()
        for instruction in instructions:
            match instruction:
                case Fetch():
                    flying.append(instruction)
                case OpenParent(parent_id=parent_id):
                    opened.append(parent_id)
                case NeedParents():
                    names.append(f"p{next(fresh)}")
                    opened.append("?")
                case AllHere():
                    return True
        return False

    opened: list[str] = []
    done = take(pull.apply(wanted(*pieces))) or take(pull.apply(given_parents(*names)))
    for _ in range(3000):
        if done:
            break
        if opened:
            parent = opened.pop()
            if parent == "?":
                done = take(pull.apply(given_parents(*names[-3:])))
                continue
            for number in pieces:
                if chance.random() < 0.7:
                    done = done or take(pull.apply(PieceOffered(parent_id=parent, number=number)))
            done = done or take(pull.apply(OffersEnded(parent_id=parent)))
        elif flying:
            order = flying.pop(chance.randrange(len(flying)))
            if chance.random() < 0.15:
                lied = chance.random() < 0.5
                done = take(pull.apply(PieceMissed(number=order.number, parent_id=order.parent_id, lied=lied)))
            else:
                done = take(pull.apply(PieceArrived(number=order.number)))
        else:
            pytest.fail("nothing flies, nothing is asked for, and pieces are missing")
    assert done
