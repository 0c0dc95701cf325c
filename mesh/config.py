"""Configuration: one frozen dataclass per component, read from the environment, every mistake reported together.

A field `drain_deadline_s` of the router is the variable HEADRACE_ROUTER_DRAIN_DEADLINE_S. Nested dataclasses share
their parent's prefix. Fields without a default are required. A variable with the prefix that matches no field is a
mistake too: a typo must not fall back silently.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

T = TypeVar("T")
_UNSET = object()
_LEVELS = ("debug", "info", "warning", "error", "critical")


class ConfigErrors(Exception):
    """Everything that is wrong with a configuration; each problem names its variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(["configuration refused:", *(f"  {p}" for p in problems)]))
        self.problems = problems


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """Annotates a str whose text is checked: `parse` gives what the field holds, or raises ValueError with why not."""

    parse: Callable[[str], str]


def _level(text: str) -> str:
    if text.lower() not in _LEVELS:
        raise ValueError(f"{text!r} is no level; one of {', '.join(_LEVELS)}")
    return text.lower()


# How much is logged.
LogLevel = Annotated[str, Checked(_level)]


class Secret:
    """A value that never shows itself: not in logs, reprs or errors."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __bool__(self) -> bool:
        return bool(self._value)


def load(cls: type[T], prefix: str, env: Mapping[str, str]) -> T:
    """Read `cls`, a frozen dataclass, from the variables of `env` that start with `prefix` (with its underscore).

    Types: str, int, float (finite), bool, Path, Secret, Literal, `X | None`, tuples of those (comma-separated), each
    optionally Annotated with msgspec.Meta bounds; str Annotated with Checked, as LogLevel and the types of mesh.address
    are. An empty variable stands for an empty default. A dataclass's own `__post_init__` may raise ValueError for what
    spans fields.
    Raises ConfigErrors. Opens nothing.
    """
    problems: list[str] = []
    known: set[str] = set()
    value = _read(cls, prefix, env, known, problems)
    problems += [f"{name}: no such setting" for name in sorted(env) if name.startswith(prefix) and name not in known]
    if problems or value is None:
        raise ConfigErrors(problems)
    return value


def _read(cls: type[T], prefix: str, env: Mapping[str, str], known: set[str], problems: list[str]) -> T | None:
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    before = len(problems)
    for spec in dataclasses.fields(cls):  # type: ignore[arg-type]  # callers pass dataclasses
        kind = hints[spec.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            nested = _read(kind, prefix, env, known, problems)
            if nested is not None:
                values[spec.name] = nested
            continue
        name = prefix + spec.name.upper()
        known.add(name)
        if name in env and not (env[name] == "" and spec.default == ""):
            value = _convert(env[name], kind, name, problems)
            if value is not _UNSET:
                values[spec.name] = value
        elif name not in env and spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            problems.append(f"{name}: required")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        problems.append(f"{prefix}*: {error}")
        return None


def _convert(text: str, kind: Any, name: str, problems: list[str]) -> Any:
    bare = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
    for note in typing.get_args(kind)[1:] if bare is not kind else ():
        if isinstance(note, Checked):
            return _parse(note, text, name, problems)
    if _holds(bare, Secret):
        return Secret(text)
    if text == "" and _holds(bare, type(None)):
        return None
    raw: Any = text
    if typing.get_origin(bare) is tuple:
        raw = [part.strip() for part in text.split(",") if part.strip()]
    try:
        value = msgspec.convert(raw, kind, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        problems.append(f"{name}: {error}")
        return _UNSET
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{name}: {text!r} is not a finite number")
        return _UNSET
    return value


def _parse(checked: Checked, text: str, name: str, problems: list[str]) -> Any:
    try:
        return checked.parse(text)
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return _UNSET


def _holds(kind: Any, member: type) -> bool:
    return kind is member or member in typing.get_args(kind)


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(str(value))
    raise TypeError(f"settings cannot hold {kind}")
