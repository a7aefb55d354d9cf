"""Origin errors that callers may want to tell apart, and the sentences for HTTP statuses."""

from collections.abc import Mapping

from darner.core.errors import OriginError
from darner.core.task import Headers
from darner.core.url import redacted

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_ADVICE = {
    400: "the request was not understood; check the URL and headers",
    401: "it wants a login; check the Authorization header",
    403: "access is denied; check the credentials, or whether a signed URL has expired",
    404: "there is no such content; check the URL",
    410: "the content is gone; check the URL",
    416: "the range lies outside the content",
    429: "it wants fewer requests; try again later",
}
_NOT_SHOWN = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "set-cookie", "set-cookie2",
        "location", "content-location", "link", "refresh",  # URLs, which may be signed
    }
)  # fmt: skip


class OriginChangedError(OriginError):
    """The content at the origin changed while it was being read."""


class FetchStoppedError(OriginError):
    """Reading was stopped by the one who asked for it."""


def end_to_end(header: Mapping[str, str]) -> Headers:
    """The headers of an answer that may be kept and shown: without those of the connection, cookies and URLs."""
    return Headers({name: value for name, value in header.items() if name.lower() not in _NOT_SHOWN})


def status_error(url: str, status: int, header: Mapping[str, str]) -> OriginError:
    """The error for an answer that is not the content."""
    advice = _ADVICE.get(
        status, "it cannot serve it now; try again later" if status in RETRYABLE_STATUSES else "this was not expected"
    )
    message = f"the origin answered {status} for {redacted(url)}: {advice}"
    shown = end_to_end(header).without("content-length", "content-encoding")
    return OriginError(message, status=status, header=shown, retryable=status in RETRYABLE_STATUSES)
