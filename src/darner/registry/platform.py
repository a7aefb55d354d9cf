"""Platforms: `OS/ARCH[/VARIANT]`, and which entry of an index fits which request."""

from dataclasses import dataclass

from darner.core.errors import InvalidInputError

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
_PARTS = (2, 3)
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Operating system, architecture, and a variant or an empty text."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Parse `OS/ARCH[/VARIANT]`; common other names of architectures are understood. Raises InvalidInputError."""
        parts = text.strip().lower().split("/")
        if len(parts) not in _PARTS or not all(parts):
            message = f"platform {text!r}: expected OS/ARCH or OS/ARCH/VARIANT, like linux/amd64 or linux/arm/v7"
            raise InvalidInputError(message, field="platform")
        return cls.named(*parts)

    @classmethod
    def named(cls, os: str, architecture: str, variant: str = "") -> "Platform":
        """The platform with the architecture's usual name."""
        return cls(
            os=os.lower(), architecture=_ARCHITECTURES.get(architecture.lower(), architecture.lower()), variant=variant.lower()
        )

    @property
    def is_unknown(self) -> bool:
        """`unknown/unknown`: what attestations carry."""
        return UNKNOWN in {self.os, self.architecture}

    def accepts(self, entry: "Platform") -> bool:
        """Whether an entry fits this request; without a variant any variant does."""
        if (self.os, self.architecture) != (entry.os, entry.architecture):
            return False
        usual = _DEFAULT_VARIANTS.get(self.architecture, "")
        return not self.variant or self.variant == (entry.variant or usual)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
