"""Which sinks there are: `retention.export.sinks` in the manager's configuration. Keys: docs/reference/export.md.

One class for all kinds, because a list in a file is easiest to read flat; a key that the kind does not have is an error.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from darner.core.errors import InvalidInputError
from darner.core.secret import Secret
from darner.core.url import masked
from darner.kit.config import key_of, setting
from darner.retention.export.document import LEAST_BYTES

NDJSON, SYSLOG, WEBHOOK = "ndjson", "syslog", "webhook"
KINDS = (NDJSON, SYSLOG, WEBHOOK)
SCHEMES = {SYSLOG: ("udp", "tcp", "tls", "unix"), WEBHOOK: ("https", "http")}
PLACE = "retention.export.sinks"
MAX_RECORD = 256 * 1024
# Syslog servers keep 8 KiB of a message, its head among them, until they are told otherwise; what they cut is no JSON any more.
_SYSLOG_RECORD = 7_680
# A datagram has at most 65,507 bytes; the head of a message takes some.
_UDP_RECORD = 60 * 1024
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_FORMATS = ("ndjson", "array")
_CONFIRM = ("close", "sent")
_FACILITIES = 24
_MODES = ("0600", "0640")
_OF = "of"
# Which kinds have a key.
_FILES, _LINES, _POSTS, _SENT = (NDJSON,), (SYSLOG,), (WEBHOOK,), (SYSLOG, WEBHOOK)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SinkConfig:
    """One sink. What is None has a default that depends on the kind. Secrets do not show in its printed form."""

    name: str = setting("", "The name that rules use.")
    kind: str = setting("", "ndjson, syslog or webhook.")
    batch_jobs: int = setting(500, "The most jobs sent at once.")
    batch_size_bytes: int = setting(1 << 20, "The most bytes sent at once; a single larger record still goes.", unit="size")
    max_record_bytes: int | None = setting(
        None, "A larger document is cut and says so. Default: 256KiB; syslog 7.5KiB.", unit="size"
    )
    timeout_s: float = setting(30.0, "How long one delivery may take.", unit="duration")
    dir: Path | None = setting(None, "Where the files are; made if missing.", of=_FILES)
    max_file_bytes: int = setting(100 << 20, "A larger file is set aside and a new one begun.", unit="size", of=_FILES)
    max_files: int = setting(0, "The most files set aside before the oldest is removed; 0: all are kept.", of=_FILES)
    max_age_s: float = setting(0.0, "Files set aside for longer are removed; 0: none is.", unit="duration", of=_FILES)
    min_free_bytes: int = setting(64 << 20, "Free bytes on the disk below which nothing is written.", unit="size", of=_FILES)
    mode: str = setting("0600", "Permissions of the files: 0600 or 0640.", of=_FILES)
    url: str = setting("", "udp://, tcp:// or tls://HOST:PORT, unix://PATH; https://… of a webhook.", of=_SENT)
    ca_file: Path | None = setting(None, "More certificate authorities, PEM.", of=_SENT)
    cert_file: Path | None = setting(None, "The certificate shown to the server, PEM.", of=_LINES)
    key_file: Path | None = setting(None, "Its key, PEM.", of=_LINES)
    facility: int = setting(16, "Syslog's facility number; 16 is local0.", of=_LINES)
    host: str = setting("", "The name in the messages; default: this machine's.", of=_LINES)
    confirm: str = setting("close", "What counts as received over tcp and tls: close or sent.", of=_LINES)
    format: str = setting("ndjson", "The body: ndjson (a line per job) or array.", of=_POSTS)
    gzip: bool = setting(False, "Whether bodies are compressed.", of=_POSTS)
    headers: dict[str, Secret] = setting({}, "More headers; their values are not shown.", wrap=Secret, of=_POSTS)
    authorization: Secret | None = setting(None, "The Authorization header, like `Bearer …`.", wrap=Secret, of=_POSTS)
    authorization_file: Path | None = setting(None, "A file with the Authorization header, read anew each time.", of=_POSTS)

    def __repr__(self) -> str:
        return f"{self.name} ({self.kind}: {self.target})"

    @property
    def target(self) -> str:
        """Where it leads, without what may be secret; of a webhook even the path may be."""
        if self.kind == NDJSON:
            return str(self.dir or "")
        shown = masked(self.url)
        return "/".join(shown.split("/")[:3]) if self.kind == WEBHOOK else shown

    @property
    def record_limit(self) -> int:
        """The most bytes of one document."""
        return self.max_record_bytes or (_SYSLOG_RECORD if self.kind == SYSLOG else MAX_RECORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Where jobs go whose rule says `export`."""

    sinks: tuple[SinkConfig, ...] = setting((), "The sinks, each with name, kind and what the kind needs (see export.md).")


def check_sinks(sinks: Sequence[SinkConfig]) -> None:
    """Raise InvalidInputError that names the key of the first mistake."""
    seen: set[str] = set()
    for number, sink in enumerate(sinks):
        at = f"{PLACE}.{number}"
        if not _NAME.fullmatch(sink.name):
            raise InvalidInputError(f"{at}.name: at most 64 letters, digits, - and _ are expected.", field=f"{at}.name")
        if sink.name in seen:
            raise InvalidInputError(f"{at}.name: there is a sink {sink.name} already.", field=f"{at}.name")
        seen.add(sink.name)
        if sink.kind not in KINDS:
            message = f"{at}.kind: {sink.kind!r} of the sink {sink.name} is not one of {', '.join(KINDS)}."
            raise InvalidInputError(message, field=f"{at}.kind")
        for complaint in (_strange_key(sink), _number(sink), _word(sink), _place(sink)):
            if complaint is not None:
                key, message = complaint
                raise InvalidInputError(f"{at}.{key} (sink {sink.name}): {message}", field=f"{at}.{key}")


def _strange_key(sink: SinkConfig) -> tuple[str, str] | None:
    for field in dataclasses.fields(sink):
        kinds = field.metadata.get(_OF, KINDS)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if sink.kind not in kinds and getattr(sink, field.name) != default:
            return key_of(field), f"a sink of the kind {sink.kind} has no such key."
    return None


def _number(sink: SinkConfig) -> tuple[str, str] | None:
    for key, value, least, most in (
        ("batchJobs", sink.batch_jobs, 1, 5_000),
        ("batchSize", sink.batch_size_bytes, LEAST_BYTES, 64 << 20),
        ("maxRecord", sink.record_limit, LEAST_BYTES, _UDP_RECORD if sink.url.startswith("udp:") else MAX_RECORD),
        ("timeout", sink.timeout_s, 1, 600),
        ("maxFile", sink.max_file_bytes, 1 << 20, 1 << 40),
        ("maxFiles", sink.max_files, 0, 1_000_000),
        ("maxAge", sink.max_age_s, 0, float("inf")),
        ("minFree", sink.min_free_bytes, 0, 1 << 50),
        ("facility", sink.facility, 0, _FACILITIES - 1),
    ):
        if not least <= value <= most:
            return key, f"a value between {least} and {most} is expected."
    return None


def _word(sink: SinkConfig) -> tuple[str, str] | None:
    for key, value, allowed in (
        ("format", sink.format, _FORMATS),
        ("confirm", sink.confirm, _CONFIRM),
        ("mode", sink.mode, _MODES),
    ):
        if value not in allowed:
            return key, f"one of {', '.join(allowed)} is expected."
    if any(not name or not name.isascii() or not name.isprintable() or ":" in name or " " in name for name in sink.headers):
        return "headers", "one of the names can be no header."
    if any(set("\r\n\0") & set(value.reveal()) for value in sink.headers.values()):
        return "headers", "one of the values has a line break."
    if sink.authorization is not None and set("\r\n\0") & set(sink.authorization.reveal()):
        return "authorization", "it has a line break."
    if sink.key_file is not None and sink.cert_file is None:
        return "keyFile", "certFile is expected with it."
    if sink.authorization is not None and sink.authorization_file is not None:
        return "authorization", "either this or authorizationFile is expected."
    return None


def _place(sink: SinkConfig) -> tuple[str, str] | None:
    """Where it leads must be sayable without a look at the network or the disk."""
    if sink.kind == NDJSON:
        return None if sink.dir is not None and sink.dir.is_absolute() else ("dir", "an absolute path is expected.")
    schemes = SCHEMES[sink.kind]
    expected = f"a URL is expected that begins with {' or '.join(f'{one}://' for one in schemes)}."
    try:
        parts = urlsplit(sink.url)
        port = parts.port
    except ValueError:
        return "url", expected
    if parts.scheme not in schemes:
        return "url", expected
    if parts.scheme == "unix":
        return None if parts.path.startswith("/") and not parts.netloc else ("url", "unix:///PATH is expected.")
    if not parts.hostname or (sink.kind == SYSLOG and (not port or parts.path.strip("/") or parts.username)):
        return "url", f"{schemes[0]}://HOST:PORT is expected." if sink.kind == SYSLOG else expected
    return None
