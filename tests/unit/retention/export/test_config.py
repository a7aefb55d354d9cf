"""Sinks in the configuration: lists of sections, mistakes named by their key, no secret in any text."""

import re
from pathlib import Path

import pytest

from darner.core.errors import InvalidInputError
from darner.core.secret import Secret
from darner.kit.config import ConfigError, key_of, load, shown
from darner.retention.export.config import KINDS, ExportConfig, SinkConfig, check_sinks
from darner.retention.export.sinks import make_sink

CANARY = "canary-5150"
ROOT = Path(__file__).parents[4]


def loaded(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> tuple[SinkConfig, ...]:
    path = tmp_path / "manager.yaml"
    path.write_text(text)
    sinks = load(ExportConfig, path, env or {}).value.sinks
    check_sinks(sinks)
    return sinks


def test_sinks_are_a_list_of_sections(tmp_path: Path) -> None:
    files, hook = loaded(
        tmp_path,
        """
        sinks:
          - {name: audit, kind: ndjson, dir: /var/log/darner, maxFile: 10MiB, maxAge: 30d, mode: "0640"}
          - name: siem
            kind: webhook
            url: https://siem.example.com/in
            headers: {X-Scope: darner}
            gzip: true
        """,
        {"DARNER_SINKS__1__AUTHORIZATION": f"Bearer {CANARY}", "DARNER_SINKS__0__BATCHJOBS": "7"},
    )
    assert (files.dir, files.max_file_bytes, files.max_age_s, files.batch_jobs) == (Path("/var/log/darner"), 10 << 20, 2_592_000, 7)
    assert (hook.gzip, hook.headers, hook.authorization) == (True, {"X-Scope": Secret("darner")}, Secret(f"Bearer {CANARY}"))
    assert loaded(tmp_path, "{}") == loaded(tmp_path, "sinks:") == ()


def test_no_text_about_a_sink_shows_a_secret(tmp_path: Path) -> None:
    (hook,) = sinks = loaded(
        tmp_path,
        f"""
        sinks:
          - name: hook
            kind: webhook
            url: https://user:{CANARY}@h.example.com/{CANARY}?key={CANARY}
            headers: {{X-Key: {CANARY}}}
            authorization: Bearer {CANARY}
        """,
    )
    for text in (repr(hook), str(hook), shown(sinks, None), hook.target, repr(hook.headers)):
        assert CANARY not in text
    assert shown(sinks, None) == "hook (webhook: https://h.example.com)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sinks: {a: 1}", "sinks must be a list"),
        ("sinks: [3]", "sinks.0 must be a mapping"),
        ("sinks: [{nam: a}]", "unknown key 'sinks.0.nam'; the nearest known key is 'sinks.0.name'"),
        ("sinks: [{batchJobs: many}]", "sinks.0.batchJobs: expected int"),
        ("sinks: [{authorization: [1]}]", "sinks.0.authorization: expected a text, got list"),
        ("sinks: [{headers: {a: 1}}]", "sinks.0.headers: expected a mapping of texts"),
    ],
)
def test_what_is_no_list_of_sections_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        loaded(tmp_path, text)


FILES = "name: a, kind: ndjson, dir: /x"
LINES = "name: a, kind: syslog, url: 'tcp://h:601'"
POSTS = "name: a, kind: webhook, url: 'https://h/'"


@pytest.mark.parametrize(
    ("sink", "field"),
    [
        ("kind: ndjson", "name"),
        ("name: 'a b', kind: ndjson", "name"),
        (f"{FILES}}}, {{{FILES}", "name"),
        ("name: a, kind: loki", "kind"),
        ("name: a", "kind"),
        ("name: a, kind: ndjson", "dir"),
        ("name: a, kind: ndjson, dir: relative", "dir"),
        (f"{FILES}, url: 'https://h/'", "url"),
        (f"{POSTS}, dir: /x", "dir"),
        (f"{POSTS}, facility: 3", "facility"),
        (f"{FILES}, maxFile: 1KiB", "maxFile"),
        (f"{FILES}, mode: '0666'", "mode"),
        (f"{FILES}, maxRecord: 1MiB", "maxRecord"),
        (f"{FILES}, maxRecord: 100", "maxRecord"),
        (f"{FILES}, batchJobs: 0", "batchJobs"),
        (f"{FILES}, timeout: 0s", "timeout"),
        ("name: a, kind: syslog, url: 'udp://h:514', maxRecord: 100KiB", "maxRecord"),
        ("name: a, kind: syslog, url: 'tcp://h'", "url"),
        ("name: a, kind: syslog, url: 'tcp://h:99999'", "url"),
        ("name: a, kind: syslog, url: 'https://h:1'", "url"),
        ("name: a, kind: syslog, url: 'unix://dev/log'", "url"),
        (f"{LINES}, confirm: hope", "confirm"),
        (f"{LINES}, facility: 24", "facility"),
        (f"{LINES}, keyFile: /k", "keyFile"),
        ("name: a, kind: webhook, url: 'ftp://h/'", "url"),
        ("name: a, kind: webhook, url: 'https:///x'", "url"),
        (f"{POSTS}, format: xml", "format"),
        (f"{POSTS}, headers: {{'a b': x}}", "headers"),
        (f'{POSTS}, headers: {{a: "x\\ny"}}', "headers"),
        (f'{POSTS}, authorization: "x\\ny"', "authorization"),
        (f"{POSTS}, authorization: x, authorizationFile: /x", "authorization"),
    ],
)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, sink: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        loaded(tmp_path, f"sinks: [{{{sink}}}]")
    number = 1 if "}, {" in sink else 0
    assert caught.value.field == f"retention.export.sinks.{number}.{field}"
    assert str(caught.value.field) in caught.value.message


@pytest.mark.parametrize("sink", [FILES, LINES, POSTS, "name: a, kind: syslog, url: 'unix:///dev/log'"])
def test_what_is_right_makes_a_sink(tmp_path: Path, sink: str) -> None:
    (config,) = loaded(tmp_path, f"sinks: [{{{sink}}}]")
    assert make_sink(config).limits.documents == 500


def test_every_key_of_a_sink_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "export.md").read_text()
    import dataclasses

    missing = [key_of(field) for field in dataclasses.fields(SinkConfig) if f"`{key_of(field)}`" not in page]
    assert missing == []
    assert all(f"`{kind}`" in page for kind in KINDS)
