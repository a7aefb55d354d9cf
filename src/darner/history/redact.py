"""Records without secrets: what must not outlive a job's hot time, and must never reach an archive or an export.

The jobs room stores requests redacted already; here the same is done again to everything, error texts and results too, because
what is archived stays for years and what is exported leaves the house.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from darner.core.errors import InvalidInputError
from darner.core.secret import MASK, is_secret_header
from darner.core.url import masked, redacted
from darner.history.record import JobRecord

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>\\]+")
_LOADED = re.compile(r"://[^/\s]*@|[?#]")
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE)
_SUSPICIOUS = re.compile("bearer|basic|passw|secret|token|signature|credential", re.IGNORECASE)
_PAIR = re.compile(
    r"\b([A-Za-z-]*(?:password|passwd|secret|token|signature|credential)[A-Za-z-]*)(\s*[=:]\s*)([^\s,;&\"']+)", re.IGNORECASE
)

# The columns of `job` in which people or origins write.
_TEXTS = ("summary", "error", "bio", "hold_reason", "tag", "application", "labels")


def redact_record(record: JobRecord) -> JobRecord:
    """The record with secrets as `•••` and URLs without user, password and query values. Doing it twice changes nothing more."""
    return replace(
        record,
        job={**record.job, **{name: _text(record.job[name]) for name in _TEXTS if record.job.get(name)}},
        args=_inside(record.args),
        result=None if record.result is None else _inside(record.result),
        parts=tuple(_inside(part) for part in record.parts),
        events=tuple(_inside(event) for event in record.events),
    )


def _inside(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(key, value) for key, value in values.items()}


def _value(key: str, value: Any) -> Any:  # noqa: ANN401  (JSON)
    if type(value) is int or value is None:
        return value
    if isinstance(value, str):
        # `filtered_query_params` names parameters, it does not carry them.
        return MASK if value and _is_secret(key) and not key.startswith("filtered") else _text(value)
    if isinstance(value, Mapping):
        return {name: _value(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_value(key, inner) for inner in value]
    return value


def _text(text: str) -> str:
    if "://" in text and ("?" in text or "@" in text or "#" in text):
        text = _URL.sub(_url, text)
    # Every secret that is told from its surroundings has one of these after its name.
    if "=" in text or ":" in text or " " in text:
        text = _told(text)
    return text


@lru_cache(maxsize=4096)
def _told(text: str) -> str:
    if _SUSPICIOUS.search(text):
        text = _PAIR.sub(rf"\1\2{MASK}", _BEARER.sub(rf"\1 {MASK}", text))
    return text


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return is_secret_header(name) or "access_key" in name.lower()


def _url(found: re.Match[str]) -> str:
    url = found.group(0)
    if not _LOADED.search(url):
        return url
    try:
        return redacted(url)
    except InvalidInputError:
        return masked(url)
