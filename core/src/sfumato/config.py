"""TOML and `key=value` into typed attrs classes, with errors that name file, table, key, what was expected and the
nearest name. Strict: an int where an int is wanted, never the text "3"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import ForbiddenExtraKeysError

from sfumato.errors import ConfigError, did_you_mean

T = TypeVar("T")


def _strict(kind: type, accepts: tuple[type, ...], rejects: tuple[type, ...] = ()) -> Any:
    def hook(value: Any, wanted: Any) -> Any:
        if not isinstance(value, accepts) or isinstance(value, rejects):
            raise TypeError(f"expected {_english(kind)}, got {value!r} ({type(value).__name__})")
        return wanted(value)  # `wanted` may be a subclass, an enum of texts say

    return hook


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is cast(Any, Literal)


def _optional(kind: Any) -> Any:
    """Return X where a type is `X | None` and X takes no text of its own, else None."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else ()
    others = [m for m in members if m is not NoneType]
    if len(others) != 1 or len(members) != 2:
        return None
    return None if others[0] in (str, Any) or (_is_literal(others[0]) and "none" in get_args(others[0])) else others[0]


def _one_of(value: Any, wanted: Any) -> Any:
    allowed = get_args(wanted)
    if value not in allowed:
        hint = did_you_mean(value, [a for a in allowed if isinstance(a, str)]) if isinstance(value, str) else ""
        raise ValueError(f"expected one of {', '.join(map(repr, allowed))}; got {value!r}.{hint}")
    return value


def _english(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


@lru_cache(maxsize=1)
def converter() -> cattrs.Converter:
    """Return the strict converter that all settings and records pass through."""
    c = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    c.register_structure_hook(bool, _strict(bool, (bool,)))
    c.register_structure_hook(int, _strict(int, (int,), (bool,)))
    c.register_structure_hook(float, _strict(float, (int, float), (bool,)))
    c.register_structure_hook(str, _strict(str, (str,)))
    c.register_structure_hook(Path, lambda v, _: Path(_strict(str, (str, Path))(v, str)))
    c.register_structure_hook_func(_is_literal, _one_of)
    # TOML has no null: "none" stands for it wherever it could not be meant as a text.
    c.register_structure_hook_func(
        lambda kind: _optional(kind) is not None,
        lambda value, kind: None if value is None or value == "none" else c.structure(value, _optional(kind)),
    )
    c.register_unstructure_hook(Path, str)
    c.register_unstructure_hook_func(lambda t: isinstance(t, type) and issubclass(t, Enum), lambda v: v.value)
    return c


def structure(settings: Mapping[str, Any], cls: type[T], where: str) -> T:
    """Return an instance of `cls` from a table of settings.

    The text "none" unsets a setting that may be unset. Raises ConfigError naming `where` (file and table), the key, what
    was expected and what was got.
    """
    try:
        return converter().structure(dict(settings), cls)
    except Exception as error:
        raise ConfigError("\n".join(_explain(error, where, ""))) from error


def unstructure(value: Any) -> Any:
    """Return plain dicts, lists, numbers and strings: what JSON can hold."""
    return converter().unstructure(value)


def _explain(error: BaseException, where: str, key: str) -> Iterable[str]:
    """Yield one line for each thing that is wrong."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = [f.name for f in attrs.fields(cast(Any, error.cl)) if f.init]
        for name in sorted(error.extra_fields):
            shown = f"{key}.{name}" if key else name
            yield f"{where}: unknown key {shown!r}.{did_you_mean(name, known)} Known keys: {', '.join(known) or 'none'}."
        return
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _explain(inner, where, _deeper(inner, key))
        return
    text = str(error.args[0]) if error.args and isinstance(error.args[0], str) else str(error)
    yield f"{where}: key {key!r}: {text}" if key else f"{where}: {text}"


def _deeper(error: BaseException, key: str) -> str:
    """Return the key with the attribute or index that cattrs noted on the exception."""
    for note in getattr(error, "__notes__", ()):
        if (name := getattr(note, "name", None)) is not None:
            return f"{key}.{name}" if key else str(name)
        if isinstance(index := getattr(note, "index", None), int):
            return f"{key}[{index}]"
    return key


def parse_assignments(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """Return settings from `key=value` texts; a value is read as TOML, and as plain text when it is not TOML.

    Dots make tables: `-s limits.steps=10`. Raises ConfigError naming the option for a text without `=`.
    """
    import tomllib  # here and below: a worker starts without it

    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{option} wants key=value, got {pair!r}. Example: {option} beta=0.5")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text
        table = settings
        *parents, last = name.strip().split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{option} {pair!r}: {parent!r} is already a value, not a table.")
        table[last] = value
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's tables; raises ConfigError with file, line and column when it cannot be read."""
    import tomllib

    try:
        with path.open("rb") as handle:
            return tomllib.load(handle)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file. Give a TOML experiment file or a task name.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
