"""Records without secrets: what must not outlive a job's hot time, and must never reach an archive or an export.

The jobs room stores requests redacted already; here the same is done again to everything, error texts and results too, because
what is archived stays for years and what is exported leaves the house. A text is looked at closely only if it holds a word or a
sign that a secret could follow: most do not, and whole documents are passed by their text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from darner.core.errors import InvalidInputError
from darner.core.secret import MASK, is_secret_header
from darner.core.url import masked, redacted
from darner.history.record import JobRecord

# Names are bounded, so that no text, however long and odd, takes more than one walk over it.
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s\"'<>\\]+")
_LOADED = re.compile(r"://[^/\s]*@|[?#]")
# Names whose values are secrets, in the query strings of S3, GCS, OSS, OBS, COS and Azure too; `auth` covers Authorization.
_NAME = (
    r"(?:[A-Za-z0-9_-]{0,40}(?:password|passwd|passphrase|secret|token|signature|credential|session|cookie|authorization|api[_-]?key"
    r"|access[_-]?key(?:[_-]?id)?)[A-Za-z0-9_-]{0,40}|(?:q-)?ak|sig|pwd)"
)
# A whole header, up to the end of its line or of the text that quotes it.
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie)(\\?[\"']?\s*:\s*\\?[\"']?)(?![\s•])([^\r\n\"'\\]+)", re.IGNORECASE
)
_PAIR = re.compile(rf"(?<![A-Za-z0-9_-])({_NAME})(\\?[\"']?\s*(?:=|:|%3D)\s*\\?[\"']?)(?!•)([^\s,;&\"'\\]+)", re.IGNORECASE)
_SCHEME = re.compile(r"\b(bearer|basic|negotiate|digest)\s+(?!•)([A-Za-z0-9+/=._~-]{6,})", re.IGNORECASE)
# Every secret that is told from its surroundings follows one of these; in a document, keys tell secrets too (`core.secret`).
_HINTS = (
    "pass",
    "secret",
    "token",
    "sig",
    "cred",
    "sess",
    "cook",
    "auth",
    "key",
    "ak=",
    "ak%3d",
    "pwd",
    "bearer",
    "basic",
    "negotiate",
)
_HINTS_OF_TEXTS = (*_HINTS, "digest ")

# The columns of `job` in which people or origins write.
_SHORT = 512
_TEXTS = ("summary", "error", "bio", "hold_reason", "tag", "application", "labels")


def redact_record(record: JobRecord) -> JobRecord:
    """The record with secrets as `•••` and URLs without user, password and query values. Doing it twice changes nothing more."""
    return replace(
        record,
        job=redact_job(record.job),
        args=redact_args(record.args),
        result=None if record.result is None else _inside(record.result),
        parts=tuple(_inside(part) for part in record.parts),
        events=tuple(_inside(event) for event in record.events),
    )


def redact_job(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of `job`, redacted."""
    return {**columns, **{name: redact_text(columns[name]) for name in _TEXTS if columns.get(name)}}


def redact_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """A request, redacted; `redacted: true` says that something is missing, so that nobody takes it for the whole (as at POST)."""
    kept = _inside(args)
    return kept if kept == args else {**kept, "redacted": True}


def redact_json(text: str | bytes, *, args: bool = False) -> Any:  # noqa: ANN401  (JSON, or its text as it is)
    """A stored document, redacted, for orjson to write again; one that can hold no secret is not even parsed."""
    if is_clean(text.decode() if isinstance(text, bytes) else text):
        return orjson.Fragment(text)
    value = orjson.loads(text)
    return redact_args(value) if args else _value("", value)


def is_clean(document: str) -> bool:
    """Whether a JSON document holds nothing that could lead to a secret. Quick; false for some that hold none."""
    if "?" in document or "@" in document or "#" in document:
        return False
    return not _hints(document, _HINTS)


def redact_text(text: str) -> str:
    """A text that people or programs wrote, redacted."""
    if "://" in text and ("?" in text or "@" in text or "#" in text):
        text = _URL.sub(_url, text)
    if ("=" in text or ":" in text or " " in text or "%" in text) and _hints(text, _HINTS_OF_TEXTS):
        return _told_again(text) if len(text) <= _SHORT else _told(text)
    return text


def _hints(text: str, hints: Sequence[str]) -> bool:
    lowered = text.lower()
    for hint in hints:  # noqa: SIM110  (twice as fast as any())
        if hint in lowered:
            return True
    return False


def redact_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of a part or of a timeline's line, redacted; what is no text stays as it is."""
    return {name: redact_text(value) if isinstance(value, str) else value for name, value in row.items()}


def _inside(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(key, value) for key, value in values.items()}


def _value(key: str, value: Any) -> Any:  # noqa: ANN401  (JSON)
    kind = type(value)
    if kind is str:
        return MASK if value and _is_secret(key) else redact_text(value)
    if kind is dict:
        # All of `credentials: {…}` is secret, whatever the names inside.
        return {name: _value(key if _is_secret(key) else name, inner) for name, inner in value.items()}
    if kind is list or kind is tuple:
        return [_value(key, inner) for inner in value]
    return _value(key, dict(value)) if isinstance(value, Mapping) else value


@lru_cache(maxsize=4096)
def _told_again(text: str) -> str:
    """The same few errors are told of very many jobs."""
    return _told(text)


def _told(text: str) -> str:
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    return _PAIR.sub(rf"\1\2{MASK}", _SCHEME.sub(rf"\1 {MASK}", text))


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    # `filtered_query_params` names parameters, it does not carry them.
    return not name.startswith("filtered") and (is_secret_header(name) or "access_key" in name.lower())


def _url(found: re.Match[str]) -> str:
    url = found.group(0)
    if not _LOADED.search(url):
        return url
    try:
        return redacted(url)
    except InvalidInputError:
        return masked(url)
