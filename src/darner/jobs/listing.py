"""What a list of jobs may be asked for: the query as it comes, and as the room understands it; upstream's `Link`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from darner.core.errors import InvalidInputError
from darner.core.job import DetailState, State, Tier, state_of
from darner.jobs.events import JobQuery
from darner.kit.moments import around

Word = TypeVar("Word", bound=StrEnum)
MAX_ID = 2**63 - 1
MAX_PER_PAGE = 1000
COUNT_LIMIT = 100_000
# Words of upstream's queue that its list accepts; a job here is never in them by these names.
QUEUE_WORDS: Mapping[str, tuple[DetailState, ...]] = {
    "RECEIVED": (DetailState.QUEUED,),
    "STARTED": (DetailState.RUNNING,),
    "RETRY": (),
}


class ListQuery(BaseModel):
    """Filters of the list; repeatable ones mean "any of these". `since` and `until` bound when jobs were created.

    Without `page` archived jobs are in the list too, and it goes on with `before_id`; pages by number are of the database only.
    """

    model_config = ConfigDict(extra="ignore")

    page: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    per_page: Annotated[int, Field(ge=1, le=10_000_000)] = 10
    state: list[str] = []
    detail_state: list[str] = []
    type: str = ""
    tier: list[str] = []
    since: str = ""
    until: str = ""
    text: Annotated[str, Field(max_length=200)] = ""
    cluster: Annotated[int | None, Field(ge=1, le=MAX_ID)] = None
    owner: str = ""
    before_id: Annotated[int | None, Field(ge=1, le=MAX_ID)] = None


def job_query(query: ListQuery, *, now: float) -> JobQuery | None:
    """The query of a list at `now` (unix seconds); None if its filters fit no job. Raises InvalidInputError."""
    filtered = bool([*filter(None, query.state), *filter(None, query.detail_state)])
    states: set[DetailState] = set()
    for word in filter(None, query.state):
        states |= set(_states_of(word))
    for word in filter(None, query.detail_state):
        states.add(_known(word, DetailState, "detail_state"))
    if filtered and not states:
        return None
    per_page = min(query.per_page, MAX_PER_PAGE)
    return JobQuery(
        states=tuple(sorted(states)) if len(states) < len(DetailState) else (),
        type=query.type,
        tiers=_tiers(query),
        since_ms=_moment(query.since, "since", now) if query.since else None,
        until_ms=_moment(query.until, "until", now) if query.until else None,
        text=query.text,
        cluster_id=query.cluster,
        owner=query.owner,
        before_id=query.before_id,
        offset=0 if query.before_id is not None else ((query.page or 1) - 1) * per_page,
        limit=per_page,
    )


def _tiers(query: ListQuery) -> tuple[Tier, ...]:
    """What is wanted; empty: all but removed jobs. The archive has no pages by number."""
    words = {tier.word: tier for tier in Tier}
    unknown = next((word for word in query.tier if word and word not in words), None)
    if unknown is not None:
        raise InvalidInputError(f"tier {unknown!r}: expected one of {', '.join(words)}", field="tier")
    wanted = {words[word] for word in query.tier if word}
    if query.page is None or query.before_id is not None:
        return tuple(sorted(wanted))
    if wanted == {Tier.ARCHIVE}:
        raise InvalidInputError("page: archived jobs have no pages by number; walk on with before_id", field="page")
    return tuple(sorted((wanted or {Tier.HOT, Tier.WARM}) - {Tier.ARCHIVE}))


def _states_of(word: str) -> tuple[DetailState, ...]:
    if word in QUEUE_WORDS:
        return QUEUE_WORDS[word]
    wanted = _known(word, State, "state")
    return tuple(state for state in DetailState if state_of(state) == wanted)


def _known(word: str, kind: type[Word], field: str) -> Word:
    try:
        return kind(word)
    except ValueError:
        allowed = ", ".join(kind)
        raise InvalidInputError(f"{field} {word!r}: expected one of {allowed}", field=field) from None


def _moment(text: str, field: str, now: float) -> int:
    """A bound in unix ms: a time, or how long ago."""
    return when(text, field, now=now, sign=-1)


def when(text: str, field: str, *, now: float, sign: int) -> int:
    """Unix ms of a time in RFC 3339, or of a duration before (`sign` -1) or after (1) `now` in unix seconds. InvalidInputError."""
    try:
        return round(around(text, now, sign=sign) * 1000)
    except ValueError:
        message = f"{field} {text!r}: expected a duration like 24h or a time like 2026-01-01T00:00:00Z"
        raise InvalidInputError(message, field=field) from None


def links(path: str, page: int, per_page: int, total: int) -> str:
    """Upstream's `Link` header: prev, next, first, last; unquoted rel (manager.md, section 2)."""
    last = -(-total // per_page)
    following = page if page == last else page + 1
    pages = {"prev": max(page - 1, 1), "next": following, "first": 1, "last": last}
    return ",".join(f"<{path}?page={number}&per_page={per_page}>;rel={name}" for name, number in pages.items())
