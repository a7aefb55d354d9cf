import pytest

from darner.core.errors import InvalidInputError
from darner.registry import parse_image_url

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://h.example/v2/a/b/manifests/v1", "https://h.example/v2/a/b/manifests/v1"),
        ("http://h.example:5000/v2/a/manifests/v1", "http://h.example:5000/v2/a/manifests/v1"),
        (f"https://h.example/v2/a/manifests/{DIGEST}", f"https://h.example/v2/a/manifests/{DIGEST}"),
        ("https://h.example/v2/manifests/manifests/v1", "https://h.example/v2/manifests/manifests/v1"),
        ("https://H.Example/v2/a/manifests/v1?ns=docker.io", "https://h.example/v2/a/manifests/v1"),
        ("docker://h.example/a:v1", "https://h.example/v2/a/manifests/v1"),
        ("oci://h.example:5000/a/b:v1", "https://h.example:5000/v2/a/b/manifests/v1"),
        ("h.example/a/b", "https://h.example/v2/a/b/manifests/latest"),
        (f"h.example/a@{DIGEST}", f"https://h.example/v2/a/manifests/{DIGEST}"),
        (f"h.example/a:v1@{DIGEST}", f"https://h.example/v2/a/manifests/{DIGEST}"),
        ("localhost:5000/a:v1", "http://localhost:5000/v2/a/manifests/v1"),
        ("localhost/a", "http://localhost/v2/a/manifests/latest"),
        ("127.0.0.1:5000/a/b:v1", "http://127.0.0.1:5000/v2/a/b/manifests/v1"),
        ("docker://[::1]:5000/a", "http://[::1]:5000/v2/a/manifests/latest"),
        ("https://localhost/v2/a/manifests/v1", "https://localhost/v2/a/manifests/v1"),
        ("nginx", "https://registry-1.docker.io/v2/library/nginx/manifests/latest"),
        ("nginx:1.27", "https://registry-1.docker.io/v2/library/nginx/manifests/1.27"),
        ("team/app:v1", "https://registry-1.docker.io/v2/team/app/manifests/v1"),
        ("docker.io/nginx", "https://registry-1.docker.io/v2/library/nginx/manifests/latest"),
        ("docker://docker.io/library/nginx:1", "https://registry-1.docker.io/v2/library/nginx/manifests/1"),
    ],
)
def test_each_accepted_form_names_one_manifest(text: str, url: str) -> None:
    assert parse_image_url(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://h.example/a:v1",
        "https://h.example/v2/a/blobs/" + DIGEST,
        "https://h.example/v2//manifests/v1",
        "https://h.example/v2/A/manifests/v1",
        "https://h.example/v2/../x/manifests/v1",
        "ftp://h.example/v2/a/manifests/v1",
        "file:///v2/a/manifests/v1",
        "h.example/Upper",
        "h.example/a:",
        "h.example/a:-bad",
        "h.example/a@sha256:short",
        "h.example/a@crc32:5",
        "h.example/a//b",
        "h.example/a:v1/b c",
        "docker://",
        "h.example:port/a",
        "https://h.example/v2/a/manifests/" + "x" * 200,
        "h.example/" + "a" * 300,
    ],
)
def test_anything_else_is_refused_with_the_field_and_the_accepted_forms(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_image_url(text)
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    "text", ["https://user:canary@h.example/v2/a/manifests/v1", "docker://user:canary@h.example/a", "user:canary@h.example/a"]
)
def test_a_password_in_a_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInputError, match="give them as credentials") as caught:
        parse_image_url(text)
    assert "canary" not in caught.value.message


def test_a_reference_reads_as_people_write_it() -> None:
    assert str(parse_image_url("http://h.example:5000/v2/a/b/manifests/v1")) == "h.example:5000/a/b:v1"
    assert str(parse_image_url(f"h.example/a@{DIGEST}")) == f"h.example/a@{DIGEST}"
    assert parse_image_url("h.example/a").blob_url(DIGEST) == f"https://h.example/v2/a/blobs/{DIGEST}"
