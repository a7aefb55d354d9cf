"""Which requests are valid, what of them may be shown, and which hosts a rule means. Plain functions.

`parse_request` turns a decoded request into a `JobSpec` or raises InvalidInputError naming the field. null, 0, "" and unknown keys
mean "default" (harbor.md, section 5.2). Bounds are upstream's (manager.md, section 6.2).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from darner.core.errors import (
    DarnerError,
    DigestMismatchError,
    ForbiddenAddressError,
    InvalidInputError,
    NotFoundError,
    OriginError,
    StorageFullError,
)
from darner.core.hashring import SeedRing
from darner.core.host import Host
from darner.core.job import Importance, JobType, Scope
from darner.core.piece import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH
from darner.core.secret import MASK, is_secret_header
from darner.core.task import DEFAULT_PRIORITY, Headers
from darner.core.url import DEFAULT_FILTERED_QUERY_PARAMS, masked, parse_url, redacted
from darner.core.work import TargetRule
from darner.jobs.events import FILE, IMAGE, JobSpec

SUPPORTED = (JobType.PREHEAT, JobType.DELETE_TASK, JobType.GET_TASK)
SCHEMES = ("http", "https", "s3", "gs", "abs", "oss", "obs", "cos", "hdfs", "file")
IMAGE_SCHEMES = ("http", "https", "docker", "oci")
_SECRET_ARGS = frozenset({"username", "password", "object_storage", "hdfs"})
NANOS = 1_000_000_000
MAX_SUMMARY = 512
MAX_BIO = 1000
MAX_LABELS = 16
MAX_LABEL_KEY = 63
MAX_LABEL = 128
MAX_LABELS_TEXT = 1024
_LABEL_KEY = re.compile(rf"(?=.{{1,{MAX_LABEL_KEY}}}$)[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")
MAX_URLS = 10_000
MAX_URL_LENGTH = 8192
PERMANENT_STATUSES = frozenset({400, 401, 403, 404, 405, 410, 414, 416, 451})
PASSING_STATUSES = frozenset({408, 425, 429})
SERVER_FAULT = 500


_HIDING = re.compile(r"[?#]|//[^/]*@")
_BARE_IMAGE = re.compile(r"[\w.-]+(:\d+)?/[\w./-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


class _Args:
    """Reads `args.*` of a request; an empty value counts as absent."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def raw(self, key: str) -> Any:  # noqa: ANN401
        value = self._data.get(key)
        return None if value in ("", 0, [], {}) and not isinstance(value, bool) else value

    def text(self, key: str, *, limit: int = 1024) -> str:
        value = self.raw(key)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > limit:
            raise _bad(key, value, f"a text of at most {limit} characters")
        return value

    def number(self, key: str, low: int, high: int) -> int | None:
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _bad(key, value, f"a whole number from {low} to {high}")
        return value

    def texts(self, key: str, *, limit: int) -> tuple[str, ...]:
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or len(value) > limit or not all(isinstance(item, str) and item for item in value):
            raise _bad(key, value, f"a list of at most {limit} texts")
        return tuple(value)

    def choice(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if value not in allowed:
            raise _bad(key, value, f"one of {', '.join(allowed)}")
        return str(value)

    def headers(self) -> Headers:
        value = self.raw("headers")
        if value is None:
            return Headers()
        if not isinstance(value, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
            raise InvalidInputError("args.headers: expected an object of texts", field="args.headers")
        if any(mark in text for pair in value.items() for text in pair for mark in "\r\n\0"):
            raise InvalidInputError("args.headers: a header holds a line break", field="args.headers")
        return Headers(value)


def _bad(key: str, value: Any, expected: str) -> InvalidInputError:  # noqa: ANN401
    hidden = is_secret_header(key) or key in {"username", "url", "urls"}
    shown = "nothing" if value is None else "something else" if hidden else repr(value)[:80]
    return InvalidInputError(f"args.{key}: expected {expected}, got {shown}", field=f"args.{key}")


def parse_request(body: Mapping[str, Any], *, timeout_s: float, max_timeout_s: float) -> JobSpec:
    """The checked request. `args.timeout` is whole nanoseconds, as upstream's (faces know other spellings). InvalidInputError."""
    kind = body.get("type")
    if kind not in SUPPORTED:
        known = ", ".join(SUPPORTED)
        more = " is not supported yet" if kind in set(JobType) else ""
        raise InvalidInputError(f"type {kind!r}{more}: expected one of {known}", field="type")
    data = body.get("args")
    if not isinstance(data, Mapping):
        raise InvalidInputError("args: expected an object", field="args")
    args = _Args(data)
    timeout = args.raw("timeout")
    timeout = timeout_s if timeout is None else timeout / NANOS if _is_number(timeout) else -1
    if not 1 <= timeout <= max_timeout_s:
        message = f"args.timeout: expected a duration from 1 second to {max_timeout_s / 86400:g} days"
        raise InvalidInputError(message, field="args.timeout")
    source, urls = _content(JobType(kind), args)
    return JobSpec(
        type=JobType(kind),
        source=source,
        urls=urls,
        cluster_ids=_cluster_ids(body.get("scheduler_cluster_ids")),
        target=_target(args, everywhere=kind != JobType.PREHEAT),
        timeout_s=float(timeout),
        platforms=_platforms(data.get("platforms") or data.get("platform")) if source == IMAGE else (),
        piece_length=args.number("piece_length", MIN_PIECE_LENGTH, MAX_PIECE_LENGTH),
        tag=args.text("tag"),
        application=args.text("application"),
        filtered_query_params=_filtered(args),
        headers=args.headers(),
        username=args.text("username"),
        password=args.text("password"),
        content_for_calculating_task_id=args.text("content_for_calculating_task_id"),
        priority=args.number("priority", 0, 20) or DEFAULT_PRIORITY,
        concurrent_task_count=args.number("concurrent_task_count", 1, 100) or 8,
        bio=_bio(body.get("bio")),
        labels=_labels(body.get("labels")),
        importance=_importance(body.get("importance")),
    )


def _is_number(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bio(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_BIO:
        raise InvalidInputError(f"bio: expected a text of at most {MAX_BIO} characters", field="bio")
    return value


def _labels(value: Any) -> dict[str, str]:  # noqa: ANN401
    """What people sort their jobs by. They are shown to everybody who may see the job."""
    if value in (None, "", {}):
        return {}
    if not isinstance(value, Mapping) or len(value) > MAX_LABELS:
        raise InvalidInputError(f"labels: expected an object of at most {MAX_LABELS} texts", field="labels")
    for key, text in value.items():
        if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
            message = f"labels: {str(key)[:MAX_LABEL_KEY]!r} is no name for a label; expected letters, digits and ._/- inside"
            raise InvalidInputError(message, field="labels")
        if not isinstance(text, str) or not text.isprintable() or len(text) > MAX_LABEL:
            message = f"labels.{key}: expected a text of at most {MAX_LABEL} characters, in one line"
            raise InvalidInputError(message, field=f"labels.{key}")
    if len(labels_text(value)) > MAX_LABELS_TEXT:
        raise InvalidInputError(f"labels: together they have more than {MAX_LABELS_TEXT} characters", field="labels")
    return dict(sorted(value.items()))


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as they are stored: JSON, keys sorted; empty for none."""
    return json.dumps(labels, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if labels else ""


def _importance(value: Any) -> Importance:  # noqa: ANN401
    words = {one.word: one for one in Importance}
    if value in (None, ""):
        return Importance.NORMAL
    if not isinstance(value, str) or value not in words:
        raise InvalidInputError(f"importance: expected one of {', '.join(words)}", field="importance")
    return words[value]


def _filtered(args: _Args) -> tuple[str, ...]:
    given = args.text("filtered_query_params", limit=4096)
    return tuple(part for part in given.split("&") if part) if given else DEFAULT_FILTERED_QUERY_PARAMS


def _content(kind: JobType, args: _Args) -> tuple[str, tuple[str, ...]]:
    if kind != JobType.PREHEAT:
        if args.raw("task_id") is not None:
            raise InvalidInputError("args.task_id: not supported; name the content by args.url", field="args.task_id")
        return FILE, (_url(args.text("url", limit=MAX_URL_LENGTH), "args.url", SCHEMES),)
    source = args.choice("type", (IMAGE, FILE))
    one = args.text("url", limit=MAX_URL_LENGTH)
    if source == IMAGE:
        return IMAGE, (one if _BARE_IMAGE.fullmatch(one) else _url(one, "args.url", IMAGE_SCHEMES),)
    many = args.texts("urls", limit=MAX_URLS)
    checked = [_url(url, f"args.urls.{index}", SCHEMES) for index, url in enumerate(many)]
    if one:
        checked.append(_url(one, "args.url", SCHEMES))
    if not checked:
        raise InvalidInputError("args.urls: expected at least one URL, in args.urls or args.url", field="args.urls")
    return FILE, tuple(dict.fromkeys(checked))


def _url(text: str, field: str, schemes: Sequence[str]) -> str:
    if not text:
        raise InvalidInputError(f"{field}: expected a URL", field=field)
    if len(text) > MAX_URL_LENGTH:
        raise InvalidInputError(f"{field}: a URL has at most {MAX_URL_LENGTH} characters", field=field)
    scheme = parse_url(text, field=field).protocol.rstrip(":")
    if scheme not in schemes:
        raise InvalidInputError(f"{field}: scheme {scheme!r} is not supported; known are {', '.join(schemes)}", field=field)
    return text


def _cluster_ids(value: Any) -> tuple[int, ...] | None:  # noqa: ANN401
    if value is None or value == []:
        return None
    if not isinstance(value, list | tuple) or not all(
        isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in value
    ):
        raise InvalidInputError("scheduler_cluster_ids: expected a list of cluster ids", field="scheduler_cluster_ids")
    return tuple(dict.fromkeys(value))


def _target(args: _Args, *, everywhere: bool) -> TargetRule:
    default = Scope.ALL_PEERS if everywhere else Scope.SINGLE_SEED_PEER
    return TargetRule(
        scope=Scope(args.choice("scope", list(Scope), default)),
        ips=args.texts("ips", limit=100),
        count=args.number("count", 1, 200),
        percentage=args.number("percentage", 1, 100),
        concurrent_peer_count=args.number("concurrent_peer_count", 1, 1000) or 500,
    )


def _platforms(value: Any) -> tuple[str, ...]:  # noqa: ANN401
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InvalidInputError("args.platform: expected os/arch[/variant], one or several", field="args.platform")
    for item in items:
        parts = item.split("/")
        if len(parts) not in {2, 3} or not all(parts):
            raise InvalidInputError(f"args.platform {item!r}: expected os/arch[/variant], e.g. linux/amd64", field="args.platform")
    return tuple(dict.fromkeys(items))


# What may be shown.


def shown_url(url: str) -> str:
    """The URL without user, password and query values."""
    return url if _BARE_IMAGE.fullmatch(url) or not _HIDING.search(url) else redacted(url)


def shown_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """The request's args as they are stored and returned: secrets are `•••`; `redacted: true` tells that some are."""
    given = {key: value for key, value in args.items() if key != "redacted"}
    kept = {key: _shown(key, value) for key, value in given.items()}
    return {**kept, "redacted": True} if kept != given else kept


def _shown(key: str, value: Any) -> Any:  # noqa: ANN401
    """One value without its secrets, also where nobody knows the key: callers write passwords into the strangest places."""
    if (key in _SECRET_ARGS or (is_secret_header(key) and isinstance(value, str))) and value:
        return MASK
    if isinstance(value, Mapping):
        return {name: _shown(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(key, inner) for inner in value]
    if isinstance(value, str) and "://" in value:
        try:
            return shown_url(value)
        except InvalidInputError:
            return masked(value)
    return value


def summary_of(spec: JobSpec) -> str:
    """What the job is about, for lists: at most 512 characters, nothing secret."""
    first = shown_url(spec.urls[0])
    text = first if len(spec.urls) == 1 else f"{first} and {len(spec.urls) - 1} more"
    return text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…"


# Which hosts, and whether trying again may help.


def targets(rule: TargetRule, hosts: Sequence[Host], task_id: str) -> list[Host]:
    """The hosts that a part must fill, in a stable order (scheduler.md: ips, then count, then percentage, then all)."""
    ranked = sorted({host.id: host for host in hosts}.values(), key=lambda host: host.id)
    seeds = [host for host in ranked if host.is_seed]
    if rule.scope == Scope.SINGLE_SEED_PEER:
        picked = SeedRing(host.address for host in seeds).pick(task_id)
        return [host for host in seeds if host.address == picked][:1]
    fitting = seeds if rule.scope == Scope.ALL_SEED_PEERS else ranked
    if rule.ips:
        return [host for host in fitting if host.ip in rule.ips]
    if rule.count:
        return fitting[: rule.count]
    if rule.percentage and fitting:
        return fitting[: max(1, len(fitting) * rule.percentage // 100)]
    return fitting


def may_help_to_retry(error: DarnerError) -> bool:
    """Whether the same request may succeed later. Permanent: refusals of the origin, wrong digests, full disks, bad input."""
    if isinstance(error, OriginError):
        passing = error.status is None or error.status in PASSING_STATUSES or error.status >= SERVER_FAULT
        return error.status not in PERMANENT_STATUSES and (error.retryable or passing)
    permanent = (DigestMismatchError, StorageFullError, InvalidInputError, ForbiddenAddressError, NotFoundError)
    return not isinstance(error, permanent)
