"""Moments in answers."""

from typing import Any

from darner.retention.engine import moment

_NAMES = frozenset({"now", "oldest", "newest"})


def with_moments(found: dict[str, Any]) -> dict[str, Any]:
    """An answer with its times in RFC 3339: the fields `*_at`, `now`, `oldest` and `newest`, at any depth."""
    return {key: _shown(key, value) for key, value in found.items()}


def _shown(key: str, value: Any) -> Any:  # noqa: ANN401  (JSON)
    if (key in _NAMES or key.endswith("_at")) and (value is None or isinstance(value, int)):
        return moment(value)
    if isinstance(value, dict):
        return with_moments(value)
    return [with_moments(one) if isinstance(one, dict) else one for one in value] if isinstance(value, list) else value
