"""The manager's client over HTTP: searches that stop on their way, routes that are not there, answers that are none."""

import json
from collections.abc import AsyncIterator, Callable

import pytest

from darner.client.rest import INCOMPLETE, SEARCHED_TO, ManagerRest, NoRouteError
from darner.core.errors import NotFoundError, UnavailableError
from darner.testing.httpd import LoopbackServer, Reply, Request

Answer = Callable[[Request], Reply]


class Manager:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answer: Answer = lambda _: as_json([])

    def __call__(self, request: Request) -> Reply:
        self.asked.append(request)
        return self.answer(request)


def as_json(value: object, *, status: int = 200, searched_to: int | None = None) -> Reply:
    header = {"Content-Type": "application/json"} | ({SEARCHED_TO: str(searched_to)} if searched_to else {})
    return Reply.of(json.dumps(value).encode(), status=status, header=header)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[ManagerRest, Manager]]:
    manager = Manager()
    with LoopbackServer(manager) as server:
        client = ManagerRest(server.base_url)
        yield client, manager
        await client.close()


async def test_a_search_that_stopped_on_its_way_is_carried_on_to_the_limit(pair: tuple[ManagerRest, Manager]) -> None:
    client, manager = pair
    pages = {None: ([{"id": 90}, {"id": 80}], 70), "70": ([], 40), "40": ([{"id": 30}], None)}

    def answer(request: Request) -> Reply:
        jobs, searched_to = pages[request.query.get("before_id")]
        return as_json(jobs[: int(request.query["per_page"])], searched_to=searched_to)

    manager.answer = answer
    found = [job["id"] async for page in client.walk_jobs(10, missing=print, text="x") for job in page]
    assert found == [90, 80, 30]
    assert [request.query["per_page"] for request in manager.asked] == ["10", "8", "8"]
    assert {request.query["text"] for request in manager.asked} == {"x"}
    assert [job["id"] async for page in client.walk_jobs(2, missing=print, text="x") for job in page] == [90, 80]


async def test_what_a_list_lacks_is_told(pair: tuple[ManagerRest, Manager]) -> None:
    client, manager = pair
    manager.answer = lambda _: Reply.of(b"[]", header={INCOMPLETE: "Archived jobs are missing."})
    lacks: list[str] = []
    assert [page async for page in client.walk_jobs(5, missing=lacks.append)] == [[]]
    assert lacks == ["Archived jobs are missing."]


async def test_a_route_that_is_not_there_is_told_from_a_thing_that_is_not_there(pair: tuple[ManagerRest, Manager]) -> None:
    client, manager = pair
    manager.answer = lambda _: as_json({"detail": "Not Found"}, status=404)
    with pytest.raises(NoRouteError, match="another version"):
        await client.retention.archive()
    manager.answer = lambda _: as_json({"detail": "There is no run 7."}, status=404)
    with pytest.raises(NotFoundError, match=r"There is no run 7\.") as told:
        await client.retention.one_run(7)
    assert not isinstance(told.value, NoRouteError)


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"7"])
async def test_an_answer_that_is_no_object_is_not_taken_for_one(pair: tuple[ManagerRest, Manager], body: bytes) -> None:
    client, manager = pair
    manager.answer = lambda _: Reply.of(body)
    with pytest.raises(UnavailableError):
        await client.retention.status()
