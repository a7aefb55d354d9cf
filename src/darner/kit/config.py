"""Configuration: one frozen dataclass tree per process, filled from defaults, one YAML file and the environment, in that order.

Keys are camelCase in the file (upstream's spelling) and snake_case in the code. An unknown key is an error that names the
nearest known one; every key can be given as `PREFIX_SECTION__KEY`. `Loaded.sources` says where each value came from.
Field metadata: `{"unit": "duration"}` or `{"unit": "size"}` makes text like `6h` or `64MiB` valid; `{"doc": …}` documents it;
`{"wrap": …}` makes something else of a text, or of each text in a mapping (a type that does not show secrets). A field may be a
tuple of such dataclasses: a list of mappings in the file, whose items are named by number.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from darner.kit.units import format_duration, format_size, parse_duration, parse_size

T = TypeVar("T")


class ConfigError(ValueError):
    """The configuration is not valid; the message names the key and what would be."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A configuration and, per dotted key, where its value came from (`default`, the file, or the variable)."""

    value: T
    sources: Mapping[str, str]


def setting(default: Any, doc: str, *, unit: str | None = None, **more: Any) -> Any:  # noqa: ANN401
    """A configuration field: default, what it means, and its unit (`duration` or `size`); more metadata, like `wrap`."""
    metadata = {"doc": doc, "unit": unit, **more}
    if isinstance(default, list | dict) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def camel(name: str) -> str:
    """`cache_dir` → `cacheDir`."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def key_of(field: "dataclasses.Field[Any]") -> str:
    """The key of a field in the file: camelCase, without the unit that the code writes into a name (`lease_s` → `lease`)."""
    suffix = {"duration": "_s", "size": "_bytes"}.get(field.metadata.get("unit") or "", "")
    return camel(field.name.removesuffix(suffix) if suffix else field.name)


def shown(value: Any, unit: str | None) -> str:  # noqa: ANN401
    """A value as one would write it in the file: durations and sizes with their unit."""
    if value is None:
        return "-"
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return ", ".join(str(one) for one in value)
    if unit == "duration" and isinstance(value, int | float) and not isinstance(value, bool):
        return format_duration(value)
    if unit == "size" and isinstance(value, int) and value >= 1024 and value % 1024 == 0:  # noqa: PLR2004
        return format_size(value).replace(".0 ", "").replace(" ", "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def load(kind: type[T], path: Path | None, env: Mapping[str, str], *, prefix: str = "DARNER") -> Loaded[T]:
    """Read the file (if given) and the environment over the defaults of `kind`. Raises ConfigError."""
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(path.read_text()) or {}
        except OSError as error:
            message = f"cannot read the configuration {path}: {error.strerror}"
            raise ConfigError(message) from None
        except yaml.YAMLError as error:
            message = f"{path} is not valid YAML: {' '.join(str(error).split())}"
            raise ConfigError(message) from None
    sources: dict[str, str] = {}
    return Loaded(_build(kind, data, _Place(file=str(path), env=env, prefix=prefix, sources=sources), ()), sources)


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    env: Mapping[str, str]
    prefix: str
    sources: dict[str, str]


def _build(kind: Any, data: Any, place: _Place, at: tuple[str, ...]) -> Any:  # noqa: ANN401
    where = ".".join(at) or "the top level"
    if not isinstance(data, dict):
        message = f"{place.file}: {where} must be a mapping of keys to values"
        raise ConfigError(message)
    fields = {key_of(field): field for field in dataclasses.fields(kind)}
    for key in data:
        if key not in fields:
            near = difflib.get_close_matches(str(key), list(fields), n=1, cutoff=0.0)
            unknown, known = ".".join((*at, str(key))), ".".join((*at, *near))
            message = f"{place.file}: unknown key {unknown!r}; the nearest known key is {known!r}"
            raise ConfigError(message)
    hints = typing.get_type_hints(kind)
    values = {}
    for key, field in fields.items():
        inner = (*at, key)
        if dataclasses.is_dataclass(hints[field.name]):
            values[field.name] = _build(hints[field.name], data.get(key) or {}, place, inner)
            continue
        variable = "__".join([f"{place.prefix}_{inner[0].upper()}", *(part.upper() for part in inner[1:])])
        if variable in place.env:
            raw, source = yaml.safe_load(place.env[variable]), variable
        elif key in data:
            raw, source = data[key], place.file
        else:
            place.sources[".".join(inner)] = "default"
            continue
        place.sources[".".join(inner)] = source
        values[field.name] = _given(raw, hints[field.name], field.metadata, dataclasses.replace(place, file=source), inner)
    return kind(**values)


def _given(raw: Any, hint: Any, metadata: Mapping[str, Any], place: _Place, at: tuple[str, ...]) -> Any:  # noqa: ANN401
    where = f"{place.file}: {'.'.join(at)}"
    if (item := _item_of(hint)) is not None:
        return _items(item, raw, place, at)
    if (wrap := metadata.get("wrap")) is not None:
        return _wrapped(raw, wrap, where, mapping=typing.get_origin(hint) is dict)
    return _value(raw, hint, metadata, where)


def _item_of(hint: Any) -> Any:  # noqa: ANN401
    """The dataclass of which a field is a tuple, or None."""
    arguments = typing.get_args(hint)
    found = typing.get_origin(hint) is tuple and arguments and dataclasses.is_dataclass(arguments[0])
    return arguments[0] if found else None


def _items(kind: Any, raw: Any, place: _Place, at: tuple[str, ...]) -> tuple[Any, ...]:  # noqa: ANN401
    if raw is None:
        return ()
    if not isinstance(raw, list):
        message = f"{place.file}: {'.'.join(at)} must be a list of mappings"
        raise ConfigError(message)
    # A number in a variable's name is one of the list's own, so that secrets need not be in the file.
    return tuple(_build(kind, one, place, (*at, str(number))) for number, one in enumerate(raw))


def _wrapped(raw: Any, wrap: Callable[[str], Any], where: str, *, mapping: bool) -> Any:  # noqa: ANN401
    if mapping and isinstance(raw, dict) and all(isinstance(text, str) for text in (*raw, *raw.values())):
        return {name: wrap(text) for name, text in raw.items()}
    if not mapping and isinstance(raw, str):
        return wrap(raw)
    message = f"{where}: expected {'a mapping of texts' if mapping else 'a text'}, got {type(raw).__name__}"
    raise ConfigError(message)


def _value(raw: Any, hint: Any, metadata: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        origin = typing.get_origin(hint)
    try:
        if metadata.get("unit") == "duration" and isinstance(raw, str):
            return parse_duration(raw)
        if metadata.get("unit") == "size" and isinstance(raw, str):
            return parse_size(raw)
    except ValueError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from None
    if origin in (list, tuple) and isinstance(raw, list):
        return tuple(raw) if origin is tuple else raw
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if hint is Path and isinstance(raw, str):
        return Path(raw)
    plain = origin or hint
    if not isinstance(raw, plain) or (plain is int and isinstance(raw, bool)):
        given = repr(raw) if plain in {int, float, bool} else type(raw).__name__  # other settings may hold secrets
        message = f"{where}: expected {getattr(plain, '__name__', plain)}, got {given}"
        raise ConfigError(message)
    return raw
