"""The only place that decides which piece comes from which parent; no I/O, no clock, no randomness of its own.

Invariants (`check`): a piece is fetched from one parent at a time and only from one that offered it; never more fetches than the
limit; a parent that lied is not used again; what has arrived is not fetched again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from darner.daemon.events import (
    AllHere,
    CloseParent,
    Fetch,
    IdleChanged,
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
from darner.daemon.rules import pick_parent, piece_order


@dataclass(slots=True)
class _Parent:
    idle: int
    offered: set[int] = field(default_factory=set)
    promising: bool = True
    """It may still offer more."""
    load: int = 0
    """Fetches running now; shares the idle bandwidth among them."""


class Pull:
    """One task's download from parents."""

    def __init__(self, *, limit: int, draw: Callable[[], float], ordered: bool = False, rotation: int = 0) -> None:
        """`limit`: fetches at the same time; `draw`: numbers in [0, 1); `rotation`: where an unordered download starts."""
        self._limit = max(limit, 1)
        self._draw = draw
        self._ordered = ordered
        self._rotation = rotation
        self._count = 0
        self._wanted_known = False
        self._missing: set[int] = set()
        self._flying: dict[int, str] = {}
        self._parents: dict[str, _Parent] = {}
        self._liars: set[str] = set()
        self._asked = False

    @property
    def parent_ids(self) -> frozenset[str]:
        """The parents in use."""
        return frozenset(self._parents)

    @property
    def missing(self) -> frozenset[int]:
        """Pieces that are not here yet."""
        return frozenset(self._missing)

    @property
    def flying(self) -> int:
        """Fetches that run now."""
        return len(self._flying)

    @property
    def starving(self) -> bool:
        """Other parents were asked for and have not been named yet."""
        return self._asked

    def apply(self, event: PullEvent) -> list[PullInstruction]:  # noqa: C901, PLR0912  (one case per event, each trivial)
        """Take in what happened; returns what to do about it, in order."""
        done: list[PullInstruction] = []
        match event:
            case PiecesWanted(numbers=numbers):
                self._missing = set(numbers)
                self._count = max(numbers, default=-1) + 1
                self._wanted_known = True
            case ParentsGiven(parents=parents):
                done += self._replace_parents(dict(parents))
            case PieceOffered(parent_id=parent_id, number=number):
                if parent_id in self._parents:
                    self._parents[parent_id].offered.add(number)
            case IdleChanged(parent_id=parent_id, idle=idle):
                if parent_id in self._parents:
                    self._parents[parent_id].idle = idle
            case OffersEnded(parent_id=parent_id):
                if parent_id in self._parents:
                    self._parents[parent_id].promising = False
            case ParentFailed(parent_id=parent_id, lied=lied):
                done += self._drop(parent_id, lied=lied)
            case PieceArrived(number=number):
                self._land(number)
                self._missing.discard(number)
            case PieceMissed():
                done += self._miss(event)
            case Stalled():
                for parent in self._parents.values():
                    parent.promising = False
        return done + self._next()

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        assert len(self._flying) <= self._limit, "more fetches than allowed"  # noqa: S101
        assert not self._liars & set(self._parents), "a liar is in use"  # noqa: S101
        assert set(self._flying) <= self._missing, "a piece that is here is being fetched"  # noqa: S101
        for parent_id, parent in self._parents.items():
            flights = [number for number, source in self._flying.items() if source == parent_id]
            assert parent.load == len(flights), "a parent's load is miscounted"  # noqa: S101
            assert parent.offered.issuperset(flights), "a piece is fetched from a parent that never offered it"  # noqa: S101

    def _replace_parents(self, given: dict[str, int]) -> list[PullInstruction]:
        """The new list counts; a parent that stays keeps its offers, one that had run dry is listened to again."""
        done: list[PullInstruction] = []
        for parent_id in [known for known in self._parents if known not in given]:
            done += self._drop(parent_id, lied=False)
        for parent_id, idle in given.items():
            if parent_id in self._liars:
                continue
            known = self._parents.get(parent_id)
            if known is None:
                self._parents[parent_id] = _Parent(idle, load=list(self._flying.values()).count(parent_id))
                self._parents[parent_id].offered.update(n for n, source in self._flying.items() if source == parent_id)
            elif known.promising:
                continue
            else:
                known.promising = True
            done.append(OpenParent(parent_id=parent_id))
        self._asked = False
        return done

    def _drop(self, parent_id: str, *, lied: bool) -> list[PullInstruction]:
        if lied:
            self._liars.add(parent_id)
        if self._parents.pop(parent_id, None) is None:
            return []
        return [CloseParent(parent_id=parent_id)]

    def _land(self, number: int) -> None:
        parent = self._parents.get(self._flying.pop(number, ""))
        if parent is not None:
            parent.load -= 1

    def _miss(self, event: PieceMissed) -> list[PullInstruction]:
        self._land(event.number)
        done = self._drop(event.parent_id, lied=event.lied)
        if event.number in self._missing and not self._holders(event.number):
            done.append(ReportMiss(number=event.number, parent_id=event.parent_id))
        return done

    def _holders(self, number: int) -> list[str]:
        return [parent_id for parent_id, parent in self._parents.items() if number in parent.offered]

    def _next(self) -> list[PullInstruction]:
        if not self._wanted_known:
            return self._ask("no parent could say how long the content is") if not self._parents else []
        if not self._missing:
            return [AllHere()]
        done: list[PullInstruction] = list(self._fetches()) if len(self._flying) < self._limit else []
        if self._asked or any(parent.promising for parent in self._parents.values()):
            return done
        hopeless = [number for number in self._missing if number not in self._flying and not self._holders(number)]
        if hopeless:
            done += self._ask(f"{len(hopeless)} of the missing {len(self._missing)} pieces are with none of the parents")
        return done

    def _ask(self, reason: str) -> list[PullInstruction]:
        if self._asked:
            return []
        self._asked = True
        return [NeedParents(reason=reason)]

    def _fetches(self) -> list[Fetch]:
        holders = {number: self._holders(number) for number in self._missing if number not in self._flying}
        key = piece_order(ordered=self._ordered, rotation=self._rotation, count=self._count)
        ready = sorted((number for number, held in holders.items() if held), key=lambda number: key(len(holders[number]), number))
        fetches = []
        for number in ready[: self._limit - len(self._flying)]:
            weights = {held: self._parents[held].idle / (1 + self._parents[held].load) for held in holders[number]}
            parent_id = pick_parent(weights, self._draw())
            self._flying[number] = parent_id
            self._parents[parent_id].load += 1
            fetches.append(Fetch(number=number, parent_id=parent_id))
        return fetches
