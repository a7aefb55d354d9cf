import pytest

from darner.core.errors import InvalidInputError
from darner.registry import Platform


@pytest.mark.parametrize(
    ("wanted", "entry", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/x86_64", "linux/amd64", True),
        ("LINUX/aarch64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v9", True),
        ("linux/arm64/v9", "linux/arm64", False),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/amd64", "linux/386", False),
    ],
)
def test_a_platform_accepts(wanted: str, entry: str, fits: bool) -> None:
    assert Platform.parse(wanted).accepts(Platform.parse(entry)) is fits


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7"])
def test_a_platform_needs_system_and_architecture(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected OS/ARCH") as caught:
        Platform.parse(text)
    assert caught.value.field == "platform"
