"""A secret is a value of its own type that prints as `•••`, so that logs, answers and tracebacks cannot show it by accident."""

MASK = "•••"


class Secret:
    """Text that must not be shown. `reveal()` is the only way to read it, easy to find in a review."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Wrap `text`."""
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that must send it."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> str | tuple[object, ...]:
        message = "a Secret is never pickled"
        raise TypeError(message)


_SECRET_WORDS = ("auth", "cookie", "credential", "passwd", "password", "secret", "session", "signature", "token")
_CHALLENGES = frozenset({"www-authenticate", "proxy-authenticate", "authentication-info"})


def is_secret_header(name: str) -> bool:
    """True for a header (or a field of a request) whose value must not be logged, archived or returned.

    By its name, and rather once too often: `X-Api-Key`, `Private-Token`, `X-Amz-Signature` … What a server asks for is no secret.
    """
    lowered = name.lower().replace("_", "-")
    return lowered not in _CHALLENGES and (lowered.endswith("key") or any(word in lowered for word in _SECRET_WORDS))
