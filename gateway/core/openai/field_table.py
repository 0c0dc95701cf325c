"""The fields of requests and what each does, as the table in docs/openai-compatibility.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

from gateway.core.openai.chat_request import ChatCompletionRequest
from gateway.core.openai.completion_request import CompletionRequest

_EFFECTS: Final = ("used", "none", "refused")
_KINDS: Final[dict[str, type[msgspec.Struct]]] = {"chat": ChatCompletionRequest, "completions": CompletionRequest}


def table() -> list[str]:
    """The table's lines: a row for each object, or for several of the same fields. Stars mark what is not OpenAI's."""
    objects: dict[tuple[str, str], dict[str, list[str]]] = {}
    for (path, effect), kinds in _by_path().items():
        parent, _, name = path.rpartition(".")
        columns = objects.setdefault((parent, " and ".join(kinds)), {column: [] for column in _EFFECTS})
        columns["used" if effect == "ours" else effect].append(f"`{name}`{'*' * (effect == 'ours')}")
    rows: dict[str, list[str]] = {}
    for (parent, of), columns in objects.items():
        cells = " | ".join(", ".join(columns[column]) for column in _EFFECTS)
        rows.setdefault(cells, []).append(f"`{parent}`" if parent else of)
    head = ["| | used | accepted, no effect | only as null |", "|---|---|---|---|"]
    return [*head, *(f"| {', '.join(names)} | {cells} |" for cells, names in rows.items())]


def _by_path() -> dict[tuple[str, str], list[str]]:
    """Which kinds of request have the field with that effect."""
    found: dict[tuple[str, str], list[str]] = {}
    for kind, struct in _KINDS.items():
        for path, effect in fields_of(struct).items():
            found.setdefault((path, effect), []).append(kind)
    return found


def fields_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Every field by its path, and what it does: "used", "ours", "none" or "refused"."""
    return dict(_fields(inspect.type_info(kind), ""))


def _fields(kind: inspect.Type, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(kind, inspect.Metadata):
        yield from _fields(kind.type, path)
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from _fields(one, path)
    elif isinstance(kind, inspect.ListType):
        yield from _fields(kind.item_type, f"{path}[]")
    elif isinstance(kind, inspect.StructType):
        yield from _struct(kind, path)


def _struct(kind: inspect.StructType, path: str) -> Iterator[tuple[str, str]]:
    # The parts of a union are told apart by their tags.
    at = f"{path}({kind.tag})" if kind.tag and path.endswith("messages[]") else path
    for field in kind.fields:
        name = f"{at}.{field.encode_name}" if at else field.encode_name
        effect = _effect(field.type)
        yield name, effect
        if effect in ("used", "ours"):
            yield from _fields(field.type, name)


def _effect(kind: Any) -> str:
    while isinstance(kind, inspect.Metadata):
        if kind.extra and "effect" in kind.extra:
            return str(kind.extra["effect"])
        kind = kind.type
    return "used"
