"""The stack file that a mesh was started from, and what has changed in it since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from mesh.stack import Service, Stack, parse
from mesh.yaml_source import FileErrors, decode, read_bytes
from ops.failure import ExitCode, Failure
from ops.local.stack_paths import with_whole_paths
from ops.state import StateDir, write_private


class Given(msgspec.Struct, frozen=True):
    """A stack file: where it lies, and its text with whole paths."""

    path: str
    text: str

    @property
    def stack(self) -> Stack:
        """What it asks for."""
        return parse(self.text, self.path)


def read_given(path: Path) -> Given:
    """Read a stack file. Raises Failure with every mistake in it."""
    try:
        parse(text := decode(read_bytes(path), str(path)), str(path))
        return Given(str(path.absolute()), with_whole_paths(text, path))
    except FileErrors as errors:
        raise Failure(str(errors), "fix the lines named above", ExitCode.USAGE) from errors


def remember(given: Given, state: StateDir) -> None:
    """Keep it beside the running copy, which scaling rewrites."""
    write_private(state.given, msgspec.json.encode(given).decode())


def remembered(state: StateDir) -> Given | None:
    """The file that the running mesh was started from; None where nobody wrote it down."""
    try:
        return msgspec.json.decode(state.given.read_bytes(), type=Given)
    except (OSError, msgspec.MsgspecError):
        return None


def changes(before: Stack, after: Stack) -> tuple[str, ...]:
    """What differs, by the names that the file uses: `services.small.replicas: 1, now 2`.

    Values of `env` are not shown: they may be secrets.
    """
    old, new = dict(_flat(_plain(before), "")), dict(_flat(_plain(after), ""))
    return tuple(_change(name, old, new) for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name))


def since_started(then: Stack, running: Stack, now: Stack) -> tuple[str, ...]:
    """What the file asks for that it did not ask for when the mesh was started, and that scaling has not done since."""
    scaled = {one.name for one in now.services if (is_ := running.service(one.name)) and is_.replicas == one.replicas}
    settled = tuple(_with_replicas(one, now) if one.name in scaled else one for one in then.services)
    return changes(replace(then, services=settled), now)


def _with_replicas(service: Service, of: Stack) -> Service:
    wanted = of.service(service.name)
    return service if wanted is None else replace(service, replicas=wanted.replicas)


def _change(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if name not in old:
        return f"{name}: is new"
    if name not in new:
        return f"{name}: is gone"
    return f"{name}: changed" if ".env." in name else f"{name}: {old[name]}, now {new[name]}"


def _plain(stack: Stack) -> dict[str, Any]:
    fields = asdict(stack)
    return fields | {"services": {service.pop("name"): service for service in fields["services"]}}


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from _flat(part, f"{name}.{key}" if name else key)
