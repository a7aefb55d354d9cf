"""One configuration tree from defaults, a file and the environment."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from darner.kit.config import ConfigError, load, setting, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    task_ttl: float = setting(60.0, "How long.", unit="duration")
    quota_bytes: int = setting(0, "How much.", unit="size")
    names: tuple[str, ...] = setting((), "Which.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    storage: Inner = setting(Inner(), "Storage.")
    directory: Path | None = setting(None, "Where.")
    keep: bool = setting(default=True, doc="Whether.")


def written(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text)
    return path


def test_defaults_file_and_environment_count_in_that_order(tmp_path: Path) -> None:
    path = written(tmp_path, "storage: {taskTtl: 2h, quota: 3MiB, names: [a, b]}\nkeep: false\n")
    loaded = load(Outer, path, {"DARNER_STORAGE__TASKTTL": "7d"})
    assert loaded.value.storage == Inner(task_ttl=604800.0, quota_bytes=3 << 20, names=("a", "b"))
    assert loaded.value.keep is False
    assert loaded.value.directory is None
    assert loaded.sources["storage.taskTtl"] == "DARNER_STORAGE__TASKTTL"
    assert loaded.sources["storage.quota"] == str(path)
    assert loaded.sources["directory"] == "default"


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'storage\.taskTTl'; the nearest known key is 'storage\.taskTtl'"):
        load(Outer, written(tmp_path, "storage: {taskTTl: 2h}"), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storage: {taskTtl: soon}", "storage.taskTtl.*is not a duration"),
        ("storage: {quota: big}", "storage.quota.*is not a size"),
        ("storage: 3", "storage must be a mapping"),
        ("keep: 1", "keep: expected bool"),
        ("keep: [", "is not valid YAML"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(Outer, written(tmp_path, text), {})


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load(Outer, tmp_path / "absent.yaml", {})


def test_values_are_shown_as_one_would_write_them() -> None:
    assert [shown(7200.0, "duration"), shown(3 << 20, "size"), shown(value=True, unit=None), shown(None, None)] == [
        "2h",
        "3MiB",
        "true",
        "-",
    ]
