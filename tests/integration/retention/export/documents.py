"""Documents for tests of sinks, and sinks as the configuration makes them."""

import json
from typing import Any

from darner.retention.export.config import SinkConfig, check_sinks
from darner.retention.export.values import Document


def document(number: int, text: str = "x", *, failed: bool = False) -> Document:
    """A small document."""
    facts = {"job": str(number), "type": "preheat", "state": "SUCCESS"}
    body = json.dumps({"key": f"{number}:1", "text": text}, ensure_ascii=False).encode()
    return Document(key=f"{number}:1", job_id=number, at=1_700_000_000_123, failed=failed, facts=facts, body=body)


def checked(**values: Any) -> SinkConfig:
    """A configuration that passes the check."""
    config = SinkConfig(**{"name": "log", "timeout_s": 3.0, **values})
    check_sinks([config])
    return config
