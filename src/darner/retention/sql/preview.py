"""What a policy would do to the jobs that are there now, in one pass over them and a few looks at samples.

The moves are those of `due_where`, the predicate that sweeps act by; only which rule decides is worked out by matches where jobs
are not sorted by the policy in question. Nothing is written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, case, func, literal, select, true
from sqlalchemy.sql import visitors

from darner.core.job import END_STATES, Tier
from darner.db.tables.jobs import job
from darner.retention.policy import FLOOR_MS, Basis, Rule
from darner.retention.rules import NOBODYS, Move, Order, deciding, moves
from darner.retention.sql.due import due_where
from darner.retention.sql.matching import Membership

SAMPLES = 20
_MOVES = 16
_NEVER = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """An order, and the numbers of its classes: empty if jobs are not sorted by it."""

    order: Order
    classes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heap:
    """Jobs that have the same in common. `move`, `before`: what the next sweep does with them, and would do under the other order.

    `shift`: -1 if they are forgotten sooner than under the other order, 1 if later. `oldest`, `newest`: ends, unix ms.
    """

    move: Move | None
    before: Move | None
    rule: str
    shift: int
    type: str
    tier: Tier
    rows: int
    oldest: int
    newest: int
    first_id: int
    last_id: int


def heaps(conn: Connection, sight: Sight, other: Sight, now_ms: int) -> list[Heap]:
    """All ended jobs in heaps, under one order and another."""
    sight, other = _whole(sight), _whole(other)
    dialect = conn.dialect.name
    asked = Membership(sight.order, sight.classes, dialect)
    against = Membership(other.order, other.classes, dialect)
    place = _place(asked)
    # Nearly all jobs have ended: no index on the state is of use.
    each = (
        select(
            _fate(asked, now_ms).label("fate"),
            _fate(against, now_ms).label("before"),
            place.label("place"),
            _forgotten(asked).label("forgotten"),
            _forgotten(against).label("forgotten_before"),
            job.c.type,
            job.c.tier,
            job.c.finished_at,
            job.c.id,
        )
        .where(func.coalesce(job.c.state, "").in_(sorted(END_STATES)), job.c.finished_at.is_not(None))
        .subquery("each_job")
    )
    sooner = case((each.c.forgotten < each.c.forgotten_before, -1), (each.c.forgotten > each.c.forgotten_before, 1), else_=0)
    shifted = select(each, sooner.label("shift")).subquery("shifted")
    keys = (shifted.c.fate, shifted.c.before, shifted.c.place, shifted.c.shift, shifted.c.type, shifted.c.tier)
    ends, ids = shifted.c.finished_at, shifted.c.id
    counted = select(*keys, func.count(), func.min(ends), func.max(ends), func.min(ids), func.max(ids)).group_by(*keys)
    return [_heap(row, sight.order, other.order) for row in conn.execute(counted)]


def sample_ids(conn: Connection, sight: Sight, move: Move, first_id: int, last_id: int, now_ms: int) -> list[int]:
    """Some of the jobs that a move would take, the first by id; all of them are between two ids."""
    sight = _whole(sight)
    member = Membership(sight.order, sight.classes, conn.dialect.name).of(move.rule, last=move.takes_last)
    taken = case((_based(move, due_where(move, member, now_ms)), 1), else_=0)
    walk = select(job.c.id, taken.label("taken")).where(job.c.id.between(first_id, last_id)).order_by(job.c.id)
    if conn.dialect.name in {"sqlite", "postgresql"}:
        walk = walk.offset(0)  # or the planner would rather collect and sort all jobs of a state than walk until some are found
    each = walk.subquery("each_job")
    return [
        int(key) for key in conn.execute(select(each.c.id).where(each.c.taken == 1).order_by(each.c.id).limit(SAMPLES)).scalars()
    ]


def _whole(sight: Sight) -> Sight:
    """With the rule for what the policy leaves out."""
    return replace(sight, order=replace(sight.order, policy=replace(sight.order.policy, rules=deciding(sight.order.policy))))


def _place(asked: Membership) -> ColumnElement[int]:
    """The index of the rule that decides; -1: none."""

    def of_rule(index: int, _: Rule) -> ColumnElement[int]:
        return literal(index, BigInteger)

    return asked.choose(of_rule, last=of_rule, kept=literal(-1, BigInteger))


def _fate(asked: Membership, now_ms: int) -> ColumnElement[int]:
    """A number for the move that would take a job now; 0: none."""
    nothing = literal(0, BigInteger)

    def among(index: int, wanted: list[tuple[int, Move]]) -> ColumnElement[int]:
        due = [(_based(one, due_where(one, true(), now_ms)), literal(index * _MOVES + n, BigInteger)) for n, one in wanted]
        return case(*due, else_=nothing) if due else nothing

    def of_rule(index: int, rule: Rule) -> ColumnElement[int]:
        return among(index, list(enumerate(moves(rule), start=1)))

    def of_last(index: int, rule: Rule) -> ColumnElement[int]:
        return among(index, [(n, one) for n, one in enumerate(moves(rule), start=1) if one.takes_last])

    return asked.choose(of_rule, last=of_last, kept=nothing)


def _based(move: Move, where: ColumnElement[bool]) -> ColumnElement[bool]:
    """Jobs that are sorted otherwise have another `base_at` than this rule would give them."""
    if move.start == Tier.DELETED:
        return where
    base = job.c.finished_at if move.rule.basis == Basis.FINISHED else job.c.created_at

    def exchange(element: Any, **_: Any) -> Any:  # noqa: ANN401  (any part of an expression)
        return base if element is job.c.base_at else None

    exchanged: ColumnElement[bool] = visitors.replacement_traverse(where, {}, exchange)
    return exchanged


def _forgotten(asked: Membership) -> ColumnElement[int]:
    """When lists stop showing a job, as things are. Held and hidden ones: the same under any order."""
    never = literal(_NEVER, BigInteger)

    def of_rule(_: int, rule: Rule) -> ColumnElement[int]:
        if rule.ends is None:
            return never
        base = job.c.finished_at if rule.basis == Basis.FINISHED else job.c.created_at
        aged, floor = base + rule.ends.ms, job.c.finished_at + FLOOR_MS
        return case((aged > floor, aged), else_=floor)

    out_of_it = (job.c.held != 0) | (job.c.tier == int(Tier.DELETED))
    return case((out_of_it, never), else_=asked.choose(of_rule, last=lambda *_: never, kept=never))


def _heap(row: Any, order: Order, other: Order) -> Heap:  # noqa: ANN401  (a row)
    fate, before, place, shift, kind, tier, count, *limits = row
    oldest, newest, first_id, last_id = (int(one) for one in limits)
    return Heap(
        move=_move(int(fate), order),
        before=_move(int(before), other),
        rule=order.policy.rules[place].name if place >= 0 and order.policy.rules[place] is not NOBODYS else "",
        shift=int(shift),
        type=kind,
        tier=Tier(tier),
        rows=int(count),
        oldest=oldest,
        newest=newest,
        first_id=first_id,
        last_id=last_id,
    )


def _move(fate: int, order: Order) -> Move | None:
    if not fate:
        return None
    return moves(order.policy.rules[fate // _MOVES])[fate % _MOVES - 1]


def removed(heap: Heap, *, before: bool = False) -> bool:
    """Whether the next sweep removes them."""
    move = heap.before if before else heap.move
    return move is not None and move.removes


def by_move(found: list[Heap]) -> Iterator[tuple[Move, list[Heap]]]:
    """The heaps that something happens to, by what happens, in the order of the rules."""
    gathered: dict[tuple[str, Tier, Tier | None], list[Heap]] = {}
    for heap in found:
        if heap.move is not None:
            gathered.setdefault((heap.move.rule.name, heap.move.start, heap.move.to), []).append(heap)
    for several in gathered.values():
        move = several[0].move
        assert move is not None  # noqa: S101  (see above)
        yield move, several
