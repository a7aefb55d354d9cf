"""What an origin answered, as it travels in the trailer `grpc-status-details-bin`.

Upstream puts JSON of errordetails.v2.Backend there, not a google.rpc.Status (messages.md, section 5.5). Flows in: an
OriginError. Flows out: bytes, and back; bytes that are no such JSON read as None. Refuses to carry secret headers, and more
than fits into the trailers that clients accept.
"""

import json

from darner.core.errors import OriginError
from darner.core.secret import is_secret_header

MAX_MESSAGE_LENGTH = 1024
MAX_DETAILS_BYTES = 4096


def backend_details(error: OriginError) -> bytes:
    """JSON of Backend, at most MAX_DETAILS_BYTES: headers are left out, last ones first, until it fits."""
    header = {name: value for name, value in error.header.items() if not is_secret_header(name)}
    while True:
        document: dict[str, object] = {"message": error.message[:MAX_MESSAGE_LENGTH], "header": header, "status_code": error.status}
        if error.retryable:
            document["retryable"] = True
        data = json.dumps(document, ensure_ascii=False).encode(errors="replace")
        if len(data) <= MAX_DETAILS_BYTES or not header:
            return data
        header.popitem()


def origin_error_from_details(data: bytes) -> OriginError | None:
    """The error that `backend_details`, here or upstream, wrote; None for anything else."""
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or "status_code" not in document:
        return None
    status, header = document["status_code"], document.get("header")
    texts = header if isinstance(header, dict) else {}
    return OriginError(
        str(document.get("message") or "") or None,
        status=status if isinstance(status, int) and not isinstance(status, bool) else None,
        header={str(name): str(value) for name, value in texts.items()},
        retryable=document.get("retryable") is True,
    )
