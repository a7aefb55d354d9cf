"""One leased part from its order to its last report: finds the target hosts, works on all of them, keeps the lease alive."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from darner.core.errors import DarnerError, InvalidInputError
from darner.core.host import Host
from darner.core.ids import task_id
from darner.core.job import Scope
from darner.core.work import HostState, Outcome, PartOrder, WorkReport
from darner.jobs.config import WorkerConfig
from darner.jobs.ports import DaemonDialer, HostSource, WorkBoard
from darner.jobs.rules import targets
from darner.jobs.worker.host import HostRun, carry_out
from darner.kit.clock import Clock
from darner.kit.log import get_logger
from darner.kit.retry import backoff

SHOWN_HOSTS = 50
LOOK_EVERY_S = 0.5
FAREWELL_S = 3.0
FINISH_FOR_S = 600.0
_log = get_logger("worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every part works with. `started_at`: when the worker started, monotonic seconds."""

    config: WorkerConfig
    board: WorkBoard
    hosts: HostSource
    dial: DaemonDialer
    clock: Clock
    started_at: float


class PartRun:
    """`run` once."""

    def __init__(self, order: PartOrder, tools: Tools, turn: asyncio.Semaphore) -> None:
        """`turn` limits how many parts of the same job are worked on at the same time."""
        self._order = order
        self._tools = tools
        self._turn = turn
        self._runs: list[HostRun] = []
        self._known = asyncio.Event()
        self._error = ""
        self._retryable = False
        self._lost = False

    async def run(self) -> None:
        """Carry the part out and tell how it ended. Cancelled, it gives the part back."""
        work = asyncio.create_task(self._work())
        beat = asyncio.create_task(self._beat())
        try:
            done, _ = await asyncio.wait({work, beat}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _stop(work, beat)
            with suppress(DarnerError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._tools.board.finish(self._order.lease_id, WorkReport(outcome=Outcome.RELEASED))
            raise
        told_to_stop = work not in done
        await _stop(work, beat)
        if self._lost:
            _log.info("a part was given to somebody else", job_id=self._order.job_id, part_id=self._order.part_id)
        elif told_to_stop:
            await self._finish(self._report(outcome=Outcome.CANCELLED))
        else:
            failure = work.exception()
            if failure is not None:
                self._error, self._retryable = f"the worker failed ({type(failure).__name__}: {failure})"[:300], True
            await self._finish(self._report(outcome=Outcome.DONE))

    async def _work(self) -> None:
        async with self._turn:
            found = await self._targets()
            self._runs = [HostRun(host=host) for host in found]
            self._known.set()
            gate = asyncio.Semaphore(self._order.target.concurrent_peer_count)
            async with asyncio.TaskGroup() as group:
                for run in self._runs:
                    group.create_task(self._host(run, gate))

    async def _host(self, run: HostRun, gate: asyncio.Semaphore) -> None:
        async with gate:
            await carry_out(run, self._order, self._tools.dial, self._tools.config, self._tools.clock)

    async def _targets(self) -> Sequence[Host]:
        """The hosts; none, with the reason noted, if none appears in time.

        A scheduler that has just started does not know all hosts yet, upstream's for minutes. So for "all" hosts the list must have
        settled, and the hosts of an earlier attempt are asked whether the scheduler knows them again or not.
        """
        clock, config = self._tools.clock, self._tools.config
        ends = clock.monotonic() + config.hosts_wait_s
        found: Sequence[Host] = ()
        same_since = clock.monotonic()
        while True:
            before, found = found, await self._fitting()
            if {host.id for host in before} != {host.id for host in found}:
                same_since = clock.monotonic()
            now = clock.monotonic()
            if now >= ends or (found and (self._is_settled(now) or now - same_since >= config.settle_s)):
                return found
            await clock.sleep(LOOK_EVERY_S)

    async def _fitting(self) -> Sequence[Host]:
        try:
            known = await self._tools.hosts.list_hosts()
        except DarnerError as error:
            self._error, self._retryable = f"the scheduler does not tell its hosts: {error.message}", True
            return ()
        found = targets(self._order.target, known, task_id(self._order.download))
        there = {host.id for host in known}
        earlier = [host.host() for host in self._order.earlier if host.host_id not in there and host.port]
        if self._order.target.scope != Scope.SINGLE_SEED_PEER or not found:
            found = [*found, *earlier]
        self._error, self._retryable = ("", False) if found else (self._nobody(known), not known)
        return found

    def _is_settled(self, now: float) -> bool:
        young = now - self._tools.started_at < self._tools.config.young_s
        return self._order.target.scope == Scope.SINGLE_SEED_PEER or not young

    def _nobody(self, known: Sequence[Host]) -> str:
        rule, cluster = self._order.target, self._order.cluster_id
        if not known:
            return f"the scheduler of cluster {cluster} knows no host at all; is a daemon running?"
        if rule.scope != Scope.ALL_PEERS and not any(host.is_seed for host in known):
            return f"cluster {cluster} has no seed peer; start one, or choose scope all_peers"
        wanted = f" and ips {', '.join(rule.ips[:5])}" if rule.ips else ""
        return f"no host of cluster {cluster} fits scope {rule.scope}{wanted}"

    async def _beat(self) -> None:
        """Tell progress and keep the lease; returns when the part is to be stopped."""
        clock = self._tools.clock
        sent, sent_at, named = WorkReport(), clock.monotonic(), False
        while True:
            await self._pause(until_known=not named)
            # Once, as soon as they are known, all hosts are named, however many: the next attempt may need to know.
            report = self._report(all_hosts=self._known.is_set() and not named)
            if report == sent and clock.monotonic() - sent_at < self._order.lease_s / 3:
                continue
            try:
                verdict = await self._tools.board.progress(self._order.lease_id, report)
            except DarnerError as error:
                # The work goes on: the manager may be back before the lease has run out.
                _log.info("progress could not be told", job_id=self._order.job_id, reason=error.message)
                continue
            sent, sent_at, named = report, clock.monotonic(), self._known.is_set()
            if not verdict.accepted:
                self._lost = True
            if verdict.cancel or not verdict.accepted:
                return

    async def _pause(self, *, until_known: bool) -> None:
        config, clock = self._tools.config, self._tools.clock
        if until_known and not self._known.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(config.progress_interval_s):
                    await self._known.wait()
        else:
            await clock.sleep(config.progress_interval_s)

    def _report(self, *, outcome: Outcome | None = None, all_hosts: bool = False) -> WorkReport:
        runs = self._runs
        lengths = [run.content_length for run in runs if run.content_length is not None]
        shown = runs if outcome is not None or all_hosts or len(runs) <= SHOWN_HOSTS else []
        return WorkReport(
            size_bytes=max(lengths) if lengths else None,
            target_count=len(runs),
            bytes_done=sum(run.bytes_done for run in runs),
            piece_count=sum(run.piece_count for run in runs),
            pieces_done=sum(len(run.pieces) for run in runs),
            hosts=tuple(run.result() for run in shown),
            outcome=outcome,
            error=self._error,
            retryable=self._retryable,
        )

    async def _finish(self, report: WorkReport) -> None:
        """Tell the end until the manager has heard it."""
        clock = self._tools.clock
        ends = clock.monotonic() + FINISH_FOR_S
        good = sum(host.state == HostState.SUCCEEDED for host in report.hosts)
        _log.info("part done", job_id=self._order.job_id, part_id=self._order.part_id, hosts=len(report.hosts), succeeded=good)
        for wait_s in backoff(first_s=0.1, cap_s=2.0):
            try:
                await self._tools.board.finish(self._order.lease_id, report)
                return
            except DarnerError as error:
                _log.warning("the end of a part could not be told", job_id=self._order.job_id, reason=error.message)
                if isinstance(error, InvalidInputError) or clock.monotonic() > ends:
                    return
            await clock.sleep(wait_s)


async def _stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
