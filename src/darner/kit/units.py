"""Durations (`6h`, `90m`, `7d`, `1h30m`, ISO-8601 `PT6H`) and sizes (`64MiB`, `4mib`, `10GB`) as people write them.

GB is decimal, GiB binary, as in upstream's configuration files. Raises ValueError with the accepted forms.
"""

import re

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d|w)", re.ASCII)
_ISO = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.IGNORECASE | re.ASCII)
_ISO_SECONDS = (604800.0, 86400.0, 3600.0, 60.0, 1.0)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?i?b?)", re.IGNORECASE | re.ASCII)
_PREFIXES = "kmgtp"


def parse_duration(text: str) -> float:
    """Seconds of `6h`, `1h30m`, `500ms`, `PT6H`. A bare number is refused: its unit would be a guess."""
    cleaned = text.strip()
    iso = _ISO.fullmatch(cleaned)
    if iso and any(iso.groups()):
        return sum(float(value) * scale for value, scale in zip(iso.groups(), _ISO_SECONDS, strict=True) if value)
    parts = _DURATION_PART.findall(cleaned)
    if not parts or "".join(number + unit for number, unit in parts) != cleaned:
        message = f"{text!r} is not a duration; write it like 6h, 90m, 7d, 1h30m or PT6H"
        raise ValueError(message)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_size(text: str) -> int:
    """Bytes of `64MiB`, `10GB`, `4mib`, `512`."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        message = f"{text!r} is not a size; write it like 64MiB, 10GB or 512"
        raise ValueError(message)
    unit = found[2].lower().removesuffix("b")
    base = 1024 if unit.endswith("i") else 1000
    power = _PREFIXES.index(unit[0]) + 1 if unit else 0
    return int(float(found[1]) * base**power)


def format_size(size: float) -> str:
    """`64.0 MiB`; bytes without a fraction."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:  # noqa: PLR2004
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_duration(seconds: float) -> str:
    """`6h`, `1d12h`, `90s` → `1m30s`; at most two units, the smallest being seconds (or ms below one second)."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    rest, parts = round(seconds), []
    for unit, scale in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, scale)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])
