"""The rule for redirects, shared by the blocking and the asynchronous client; a plain function, no I/O.

Credentials never cross an origin (scheme, host, port), and once dropped they do not come back. A redirect from https to http
is refused while credentials are on the request. More than ten hops are an error.
"""

from ada_url import URL  # type: ignore[import-untyped,unused-ignore]

from darner.core.secret import is_secret_header
from darner.core.task import Headers
from darner.core.url import redacted
from darner.net.errors import NetError

MAX_REDIRECTS = 10
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})


def next_hop(url: str, location: str | None, header: Headers) -> tuple[str, Headers]:
    """Where a redirect leads, and the request headers that may go there. Raises NetError if it must not be followed."""
    if not location:
        raise NetError(f"{redacted(url)} answered with a redirect that names no place", retryable=False)
    try:
        here, there = URL(url), URL(location, base=url)
    except ValueError:
        raise NetError(f"{redacted(url)} redirects to something that is not a URL", retryable=False) from None
    if there.protocol not in {"http:", "https:"} or not there.hostname:
        raise NetError(f"{redacted(url)} redirects to {there.protocol}//, which is not followed", retryable=False)
    there.username = there.password = there.hash = ""
    if str(there.origin) == str(here.origin):
        return str(there.href), header
    if here.protocol == "https:" and there.protocol == "http:" and any(is_secret_header(name) for name in header):
        message = (
            f"{redacted(url)} redirects from https to http while credentials are in play; refused, use the final URL without them"
        )
        raise NetError(message, retryable=False)
    kept = {name: value for name, value in header.items() if not is_secret_header(name) and name.lower() != "host"}
    return str(there.href), Headers(kept)


def too_many_redirects(url: str) -> NetError:
    """The error for a chain that does not end."""
    return NetError(f"{redacted(url)} redirects more than {MAX_REDIRECTS} times; it seems to be a loop", retryable=False)
