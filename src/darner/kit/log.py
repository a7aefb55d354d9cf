"""Structured logs on stderr: one line per event, JSON for machines or coloured text for people, secrets masked.

A line at 3 a.m. says what happened (`event`), in which room (`room`), to what (ids), and what was decided.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

MASK = "•••"
_SECRET_WORDS = ("authorization", "password", "secret", "token", "cookie", "api_key")
_SAFE_KEYS = frozenset({"token_id", "token_name", "token_file"})


def configure(*, level: str = "info", json: bool = False) -> None:
    """Set up the process's log once, at its composition root."""
    renderer: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get_logger(room: str) -> Any:  # noqa: ANN401  (structlog's loggers are typed by their configuration)
    """The logger of a room."""
    return structlog.get_logger(room=room)


def mask_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: mask values whose key says that they are secret, also one level down in mappings."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = MASK
        elif isinstance(value, dict):
            event[key] = {inner: MASK if _is_secret(str(inner)) else shown for inner, shown in value.items()}
    return event


def _is_secret(key: str) -> bool:
    lowered = key.lower()
    return lowered not in _SAFE_KEYS and any(word in lowered for word in _SECRET_WORDS)
