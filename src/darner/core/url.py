"""URLs as task ids see them (WHATWG rules, because upstream's ids depend on them) and as people may write them."""

import re
from collections.abc import Sequence

from ada_url import URL, URLSearchParams  # type: ignore[import-untyped,unused-ignore]

from darner.core.errors import InvalidInputError

DEFAULT_FILTERED_QUERY_PARAMS: tuple[str, ...] = (
    "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature",
    "X-Amz-Security-Token", "X-Amz-User-Agent",
    "X-Goog-Algorithm", "X-Goog-Credential", "X-Goog-Date", "X-Goog-Expires", "X-Goog-SignedHeaders", "X-Goog-Signature",
    "OSSAccessKeyId", "Expires", "Signature", "SecurityToken",
    "AccessKeyId", "X-Obs-Date", "X-Obs-Security-Token",
    "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature",
    "x-cos-security-token",
    "ns",
)  # fmt: skip
"""Query parameters that sign a URL and so never belong to a task id (rs:dragonfly-client-util/src/http/query_params.rs:21)."""

MAX_SHOWN = 200
"""Characters of a text that is not a URL in the message that says so."""
_BLOB = re.compile(r"^https?://[^/?#]+/v2/(?P<name>[^?#]+?)/blobs/(?P<digest>[^/?#]+)(?:\?[^#]*)?$")


def parse_url(text: str, *, field: str = "url") -> URL:
    """Parse by WHATWG rules. Raises InvalidInputError if it is not an absolute URL."""
    try:
        return URL(text)
    except ValueError:
        message = f"{masked(text)!r} is not a URL; expected something like https://host/path"
        raise InvalidInputError(message, field=field) from None


def normalise_url(text: str, filtered_query_params: Sequence[str] = ()) -> str:
    """The URL as it enters a task id.

    Filtered keys are removed; with none left the query goes, else the query is re-serialised as form-urlencoded in original
    order; a bare "/" path loses its slash (rs:dragonfly-client-util/src/id_generator/mod.rs:136).
    """
    url = parse_url(text)
    pairs = [(key, value) for key, value in URLSearchParams(url.search).items() if key not in set(filtered_query_params)]
    search = URLSearchParams("")
    for key, value in pairs:
        search.append(key, value)
    url.search = str(search)
    href = str(url.href)
    if href.endswith("/") and url.pathname == "/":
        href = href.rstrip("/")
    return href.removesuffix("?")


def blob_of(url: str) -> tuple[str, str] | None:
    """(repository, digest text) of a registry blob URL `scheme://host/v2/<name>/blobs/<digest>`, or None."""
    found = _BLOB.match(url)
    return (found["name"], found["digest"]) if found else None


def origin_of(url: str) -> str:
    """`scheme://host:port`, the thing that credentials must not leave."""
    return str(parse_url(url).origin)


def redacted(url: str) -> str:
    """The URL without user, password, query values and fragment: what may be logged, stored and told to others."""
    parsed = parse_url(url)
    if parsed.username or parsed.password:  # the setters refuse URLs that cannot have a user, like file:
        parsed.username = parsed.password = ""
    parsed.search = _names_only(parsed.search)
    parsed.hash = ""
    return str(parsed.href)


def _names_only(search: str) -> str:
    """A query without its values. A part without `=` may be a value itself."""
    names = [part.partition("=")[0] for part in search.removeprefix("?").split("&") if "=" in part]
    return "?" + "&".join(f"{name}=" for name in names) if names else ""


def masked(text: str) -> str:
    """What was meant as a URL and may be none, as it may be shown: without what may be a user, a password or a query."""
    return re.sub(r"[^/]*@(?!sha\d+:)", "", re.split(r"[?#]", text[:MAX_SHOWN], maxsplit=1)[0])
