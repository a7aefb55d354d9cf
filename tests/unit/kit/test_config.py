"""One configuration tree from defaults, a file and the environment."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from darner.core.secret import Secret
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    name: str = setting("", "Its name.")
    wait_s: float = setting(1.0, "How long.", unit="duration")
    word: Secret | None = setting(None, "What nobody sees.", wrap=Secret)
    headers: dict[str, Secret] = setting({}, "What nobody sees, by name.", wrap=Secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    items: tuple[Item, ...] = setting((), "Some.")


def test_a_list_of_sections_has_all_that_a_section_has(tmp_path: Path) -> None:
    path = written(tmp_path, "items: [{name: a, wait: 2m, headers: {x: y}}, {name: b}]")
    loaded = load(Listing, path, {"DARNER_ITEMS__1__WORD": "hidden", "DARNER_ITEMS__0__WAIT": "3m"})
    assert loaded.value.items == (
        Item(name="a", wait_s=180.0, headers={"x": Secret("y")}),
        Item(name="b", word=Secret("hidden")),
    )
    assert (loaded.sources["items.1.word"], loaded.sources["items.1.name"]) == ("DARNER_ITEMS__1__WORD", str(path))
    assert "hidden" not in shown(loaded.value.items, None)
    whole = load(Listing, None, {"DARNER_ITEMS": "[{name: c}]"})
    assert whole.value.items == (Item(name="c"),)
    assert load(Listing, None, {}).value.items == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("items: 3", "items must be a list of mappings"),
        ("items: [3]", "items.0 must be a mapping"),
        ("items: [{}, {nam: a}]", "unknown key 'items.1.nam'; the nearest known key is 'items.1.name'"),
        ("items: [{wait: soon}]", "items.0.wait.*is not a duration"),
        ("items: [{word: 7}]", "items.0.word: expected a text, got int"),
        ("items: [{headers: {a: [hidden]}}]", "items.0.headers: expected a mapping of texts, got dict$"),
    ],
)
def test_a_mistake_in_a_list_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(Listing, written(tmp_path, text), {})
