import asyncio

from darner.client.twins import SchedulerTwin
from darner.core.errors import UnavailableError
from darner.core.fleet import SchedulerInfo, SchedulerQuery
from darner.core.hashring import schedulers_in_order
from darner.core.host import Host
from darner.core.ids import HostId
from darner.daemon.schedulers import Directory

ME = Host(id=HostId("me"), ip="10.0.0.9", hostname="me", port=4000)
TASK = "5844f" + "0" * 59


class Clock:
    """Sleeps pass at once; `until` bounds them."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await asyncio.sleep(0)


class Scheduler(SchedulerTwin):
    """Counts announcements; forgets everybody on `restart`."""

    def __init__(self) -> None:
        super().__init__()
        self.announced = 0

    def restart(self) -> None:
        self.serving = True
        self.hosts.clear()

    async def announce_host(self, host: Host, interval_s: float) -> None:
        await super().announce_host(host, interval_s)
        self.announced += 1


class Manager:
    def __init__(self, *infos: SchedulerInfo) -> None:
        self.infos, self.up, self.asked = list(infos), True, 0

    async def list_schedulers(self, query: SchedulerQuery) -> list[SchedulerInfo]:
        assert query.ip == ME.ip
        self.asked += 1
        if not self.up:
            raise UnavailableError
        return self.infos


def info(number: int, cluster: int = 1) -> SchedulerInfo:
    return SchedulerInfo(id=number, hostname=f"s{number}", ip=f"10.0.0.{number}", port=8002, scheduler_cluster_id=cluster)


class World:
    def __init__(self, *infos: SchedulerInfo) -> None:
        self.clock, self.manager = Clock(), Manager(*infos)
        self.schedulers = {f"{each.ip}:{each.port}": Scheduler() for each in infos}
        self.new: list[str] = []
        self.directory = Directory(
            host=lambda: ME, connect=self.schedulers.__getitem__, clock=self.clock, manager=self.manager, announce_s=300.0
        )

        async def on_new(address: str) -> None:
            self.new.append(address)

        self.directory.on_new = on_new

    async def pass_time(self, seconds: float) -> None:
        loop = asyncio.create_task(self.directory.run())
        until = self.clock.at + seconds
        while self.clock.at < until:  # noqa: ASYNC110  (virtual time)
            await asyncio.sleep(0)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def test_a_task_is_asked_about_around_the_ring_of_healthy_schedulers_of_one_cluster() -> None:
    world = World(info(1), info(2), info(3), info(4, cluster=2))
    world.schedulers["10.0.0.2:8002"].serving = False
    await world.directory.start()
    assert world.directory.in_order(TASK) == schedulers_in_order(TASK, ["10.0.0.1:8002", "10.0.0.3:8002"])
    assert not world.directory.answers("10.0.0.2:8002")


async def test_a_scheduler_that_comes_back_hears_of_this_host_and_of_what_it_holds() -> None:
    world = World(info(1))
    scheduler = world.schedulers["10.0.0.1:8002"]
    scheduler.serving = False
    await world.directory.start()
    assert world.directory.in_order(TASK) == []
    scheduler.serving = True
    await world.pass_time(10)
    assert list(scheduler.hosts) == ["me"]
    scheduler.serving = False
    await world.pass_time(10)
    scheduler.restart()
    await world.pass_time(10)
    assert list(scheduler.hosts) == ["me"]
    assert world.new == ["10.0.0.1:8002"] * 2


async def test_the_host_is_announced_again_every_interval_and_leaves_at_the_end() -> None:
    world = World(info(1))
    await world.directory.start()
    await world.pass_time(1000)
    assert world.schedulers["10.0.0.1:8002"].announced == 4
    await world.directory.leave()
    assert world.schedulers["10.0.0.1:8002"].hosts == {}


async def test_without_the_manager_the_schedulers_known_stay_in_use() -> None:
    world = World(info(1))
    await world.directory.start()
    world.manager.up = False
    await world.pass_time(200)
    assert world.manager.asked > 2
    assert world.directory.in_order(TASK) == ["10.0.0.1:8002"]
