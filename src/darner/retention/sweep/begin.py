"""How a sweep begins: the lease, what is in force, and whether the database and its clock can be believed."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select, update

from darner.db import Database, Lease, acquire_lease, release_lease
from darner.db.tables.retention import lease
from darner.retention import records
from darner.retention.clock import BootReading, distrust, marked
from darner.retention.config import SweepConfig
from darner.retention.policy import Policy
from darner.retention.rules import Order
from darner.retention.sql import fence, holds, marks, runs
from darner.retention.sql.classes import make_classes
from darner.retention.sql.classify import unsorted_statement
from darner.retention.sql.fence import LEASE
from darner.retention.sweep import guarding
from darner.retention.sweep.context import Sweep
from darner.retention.sweep.errors import CLOCK, REFUSED, RESTORED, SweepRefusedError
from darner.retention.values import PolicyVersion, RunState
from darner.retention.window import stored_window
from darner.retention.witness import Witness

NO_POLICY = "There is no retention policy, so nothing is removed; set one with `darner retention policy set`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Who wants a sweep. `accept_clock`: a person has looked at the clock, and it is right now.

    `confirmed`: a person has looked at what it removes, so the guard does not hold it back; `yes`: neither does the window.
    `version`: the policy that the person looked at; another one in force refuses the sweep.
    """

    trigger: str
    by: str = ""
    by_clock: bool = False
    accept_clock: bool = False
    confirmed: bool = False
    yes: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginner:
    """Begins sweeps for one process."""

    db: Database
    config: SweepConfig
    holder: str
    boot_clock: Callable[[], BootReading]
    witness: Witness
    adjust: Callable[[Policy], Policy] | None = None

    async def begin(self, ask: Ask) -> Sweep | None:
        """Take the lease and write the run's row; None when another manager sweeps. SweepRefusedError when there is no policy."""
        boot = self.boot_clock()
        sweep = await self.db.write(lambda conn: self._begin(conn, ask, boot), durable=not ask.by_clock)
        if sweep is not None:
            self.witness.note(_instance(sweep.marks), sweep.lease.epoch)
        return sweep

    def witnessed(self) -> None:
        """What was seen so far is on the disk, as after a durable commit: processes to come may know it."""
        self.witness.keep()

    async def begin_sorting(self) -> Sweep | None:
        """A sweep that sorts only and has no row; None when another manager sweeps, or there is no policy."""
        boot = self.boot_clock()
        return await self.db.write(lambda conn: self._begin_sorting(conn, boot), durable=False)

    async def look(self) -> bool:
        """Whether jobs wait to be sorted. Notes how far the database is; one that went back is paused at the next sweep."""

        def ask(conn: Connection) -> tuple[str, int, bool]:
            epoch = conn.execute(select(lease.c.epoch).where(lease.c.name == LEASE)).scalar() or 0
            return instance_of(conn), int(epoch), _unsorted(conn)

        instance, epoch, unsorted = await self.db.read(ask)
        if self.witness.went_back(instance, epoch) is None:
            self.witness.note(instance, epoch)
        return unsorted

    def _begin_sorting(self, conn: Connection, boot: BootReading) -> Sweep | None:
        policy = records.policy_in_force(conn)
        epoch = conn.execute(select(lease.c.epoch).where(lease.c.name == LEASE)).scalar() or 0
        if policy is None or self.witness.went_back(instance_of(conn), int(epoch)) is not None:
            return None
        held = acquire_lease(conn, LEASE, self.holder, ttl_s=self.config.lease_ttl_s)
        return None if held is None else self._made(conn, policy, held, 0, boot, _SORTING, {})

    def _begin(self, conn: Connection, ask: Ask, boot: BootReading) -> Sweep | None:
        policy = records.policy_in_force(conn)
        if policy is None:
            raise SweepRefusedError(NO_POLICY)
        if ask.version is not None and ask.version != policy.version:
            raise SweepRefusedError(f"The policy in force is version {policy.version}, not {ask.version}; look at it again.")
        held = acquire_lease(conn, LEASE, self.holder, ttl_s=self.config.lease_ttl_s)
        if held is None:
            return None
        found = marks.all_marks(conn)
        found[guarding.SETTLED] = guarding.pinned(conn, found)
        back = self.witness.went_back(_instance(found), held.epoch - 1)
        if back is not None:
            held = _epoch_beyond(conn, held, back)
        run_id = runs.begin_run(conn, policy_version=policy.version, trigger=ask.trigger, holder=self.holder, epoch=held.epoch)
        holds.drop_expired(conn, held.until_ms - int(self.config.lease_ttl_s * 1000))
        sweep = self._made(conn, policy, held, run_id, boot, ask, found)
        sweep.refused = self._refused(conn, sweep, ask, boot, back)
        if sweep.refused:
            runs.end_run(conn, run_id, RunState.HELD, error=sweep.refused, report={REFUSED: CLOCK if back is None else RESTORED})
            runs.drop_repeated(conn, run_id)
            release_lease(conn, held)
        return sweep

    def _refused(self, conn: Connection, sweep: Sweep, ask: Ask, boot: BootReading, back: int | None) -> str:
        """Why nothing at all may be moved; empty: it may."""
        if back is not None:
            said = (
                f"The database is in an earlier state than before (epoch {sweep.lease.epoch - 1} was seen): it seems to have been "
                "brought back from a backup. Retention is paused; look at policy and holds, then `darner retention resume`."
            )
            marks.set_mark(conn, "paused", {"paused": True, "reason": said}, by="system")
            return said
        mark = sweep.marks.get("clock", {})
        reason = None if ask.accept_clock else distrust(mark, boot, sweep.began_ms, tolerance_ms=sweep.tolerance_ms)
        if reason:
            return f"{reason} Nothing is removed until a person says that it is right (a run with accept_clock)."
        before = {} if ask.accept_clock else mark
        marks.set_mark(conn, "clock", marked(before, boot, sweep.began_ms), by=self.holder)
        return ""

    def _made(
        self,
        conn: Connection,
        policy: PolicyVersion,
        held: Lease,
        run_id: int,
        boot: BootReading,
        ask: Ask,
        found: Mapping[str, Mapping[str, Any]],
    ) -> Sweep:
        # Room that runs short makes steps come earlier; how jobs are sorted is the same (growth.adjust).
        carried_out = self.adjust(policy.policy) if self.adjust is not None else policy.policy
        order = Order(policy=carried_out, selectors=holds.selectors(conn))
        seen, window = fence.look(conn), found.get("window", {})
        return Sweep(
            db=self.db,
            lease=held,
            run_id=run_id,
            policy=policy,
            order=order,
            seen=seen,
            boot_clock=self.boot_clock,
            began=boot,
            began_ms=seen.now_ms,
            lease_ttl_ms=int(self.config.lease_ttl_s * 1000),
            tolerance_ms=int(self.config.clock_tolerance_s * 1000),
            classes=make_classes(conn, order),
            marks=found,
            window=stored_window(window),
            yes=ask.yes,
            confirmed=ask.confirmed or ask.yes,
            clock_accepted=ask.accept_clock or ask.confirmed or ask.yes,
            by_clock=ask.by_clock,
        )


_SORTING = Ask(trigger="sorting", by_clock=True)


def instance_of(conn: Connection) -> str:
    """The id that this database was given when its policy was first looked after; empty: none yet."""
    return _instance({"instance": marks.mark(conn, "instance")})


def _instance(found: Mapping[str, Mapping[str, Any]]) -> str:
    return str(found.get("instance", {}).get("id", ""))


def name_instance(conn: Connection) -> None:
    """Give the database an id that a copy of it keeps and a new one does not have."""
    if not instance_of(conn):
        marks.set_mark(conn, "instance", {"id": uuid.uuid4().hex}, by="system")


def _epoch_beyond(conn: Connection, held: Lease, epoch: int) -> Lease:
    """Epochs go on above those that were seen, or an old holder could pass the fence again."""
    conn.execute(update(lease).where(lease.c.name == held.name).values(epoch=epoch + 1))
    return replace(held, epoch=epoch + 1)


def _unsorted(conn: Connection) -> bool:
    return conn.execute(unsorted_statement()).first() is not None
