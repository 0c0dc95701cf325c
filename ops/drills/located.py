"""A YAML file as plain values that remember their lines, so that every mistake can be shown where it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml

T = TypeVar("T")
Steps = tuple[str | int, ...]
# Where msgspec says a value is: "... - at `$.load.streams`".
_AT: Final = re.compile(r"^(?P<reason>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>[^`]*)`")


class FileError(Exception):
    """What is wrong with a file: one line for each mistake, with file, line and reason."""


class Located:
    """One file's values. `data` may be changed; lines stay those of the text."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises FileError."""
        self._path = path
        self._lines: dict[Steps, int] = {(): 1}
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise FileError(f"{path}:0: cannot be read: {reason}") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise FileError(f"{path}:{line}: not YAML: {error.problem}") from error
        except yaml.YAMLError as error:
            raise FileError(f"{path}:1: not YAML: it holds characters that are not allowed") from error
        self.data: Any = self._plain(node, ())

    def convert(self, kind: type[T]) -> T:
        """The values as `kind`. Raises FileError."""
        try:
            return msgspec.convert(self.data, kind, strict=True)
        except msgspec.ValidationError as error:
            match = _AT.match(str(error))
            assert match is not None  # the pattern matches any text
            steps: list[str | int] = [
                step["key"] or int(step["index"])
                for step in _STEP.finditer(match["path"] or "")
                if step["index"] != "..."
            ]
            if unknown := _UNKNOWN.search(match["reason"]):
                steps.append(unknown["name"])
            raise self.problem(steps, match["reason"]) from error

    def problem(self, at: Sequence[str | int], reason: str) -> FileError:
        """A mistake at a value, or at the nearest thing that holds it."""
        steps: Steps = tuple(at)
        words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        while steps not in self._lines:
            steps = steps[:-1]
        return FileError(f"{self._path}:{self._lines[steps]}: {f'{words}: ' if words else ''}{reason}")

    def _plain(self, node: yaml.Node | None, at: Steps) -> Any:
        if node is None:
            return None
        self._lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*at, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            values: dict[str, Any] = {}
            for key, value in node.value:
                name = str(key.value)
                inner = (*at, name)
                if name in values:
                    self._lines[inner] = key.start_mark.line + 1
                    raise self.problem(inner, "given twice")
                self._lines[inner] = key.start_mark.line + 1
                values[name] = self._plain(value, inner)
            return values
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.problem(at, f"{str(getattr(node, 'value', ''))!r} is not what it looks like") from error
