"""The one way to read a YAML file: every value with its line, every mistake reported, all of them together.

Whoever edits a file cannot harm the process that reads it: sizes, depth and what aliases stand for are bounded, and
whatever is wrong (a file that is gone, bytes that are no text, a tab, a date that is none) is one error with file, line
and reason. Nothing in a file runs code.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # the stubs do not re-export it
from yaml.reader import Reader
from yaml.resolver import Resolver

from mesh.config import ConfigErrors

T = TypeVar("T")
Steps = tuple[str | int, ...]
# Why a file was refused; bounded, for metrics.
Reason = Literal["unreadable", "encoding", "syntax", "values", "defect"]

MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_DEPTH: Final = 64
# What aliases may stand for, in values, beside what is written out: a short file may not become a large one.
_MAX_ALIASED: Final = 10_000
_MAX_INT: Final = 2**63
# A file that is wrong everywhere does not fill the log.
_MAX_SHOWN: Final = 100
_MAX_REASON: Final = 300
# What msgspec says, and where: "... - at `$.price.input`", "`$[0]`" for a list's item, "[...]" for one of a mapping's.
_AT: Final = re.compile(r"^(?P<reason>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+)\]")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>.*)`", re.DOTALL)
_FIELD: Final = re.compile(r"[a-z_]{1,32}")
_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `line` counts from 1; 0 is the file as a whole."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


class FileErrors(ConfigErrors):
    """Everything that is wrong with a file; as text, one line for each mistake: file:line: reason."""

    def __init__(self, found: Sequence[Problem], kind: Reason = "values") -> None:
        shown = [_brief(problem) for problem in found[:_MAX_SHOWN]]
        if len(found) > _MAX_SHOWN:
            shown.append(Problem(found[0].file, 0, f"and {len(found) - _MAX_SHOWN} more"))
        super().__init__([str(problem) for problem in shown])
        self.found = tuple(shown)
        self.kind: Reason = kind

    def __str__(self) -> str:
        return "\n".join(self.problems)


def _brief(problem: Problem) -> Problem:
    reason = " ".join(problem.reason.split())
    return Problem(problem.file, problem.line, reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]} ...")


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A whole file. Raises FileErrors where it is not there, no regular file, or larger than `max_bytes`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Reading a pipe or a device may never end.
            raise FileErrors([Problem(str(path), 0, "cannot be read: not a regular file")], "unreadable")
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise FileErrors([Problem(str(path), 0, f"cannot be read: {error.strerror}")], "unreadable") from error
    except ValueError as error:
        raise FileErrors([Problem(str(path), 0, "cannot be read: no file has such a name")], "unreadable") from error
    if len(raw) > max_bytes:
        raise FileErrors([Problem(str(path), 0, f"larger than {max_bytes} bytes")], "unreadable")
    return raw


def decode(raw: bytes, file: str) -> str:
    """A file's text; a byte order mark is no part of it. Raises FileErrors where it is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileErrors([Problem(file, line, "not YAML: not UTF-8")], "encoding") from error


class YamlSource:
    """One file's values, and the line of each.

    `data` holds plain values: None, bool, int, float, str, list, dict with texts as keys. `private`: what is written in
    the file is never quoted in an error, because it may hold secrets.
    """

    def __init__(self, text: str, file: str, *, private: bool = False) -> None:
        """Read the text. Raises FileErrors where it is no YAML; other mistakes are noted, see `finish`."""
        self.found: list[Problem] = []
        self._file = file
        self._private = private
        self._lines: dict[Steps, int] = {(): 1}
        # Values that were noted as wrong by themselves, and read as None.
        self._unread: set[Steps] = set()
        self._loader, self.root = self._compose(text)
        self._values_left = self._loader.nodes + _MAX_ALIASED
        self._data: Any = None
        self._is_read = False

    @classmethod
    def read(cls, path: Path, *, private: bool = False, max_bytes: int = MAX_BYTES) -> YamlSource:
        """Read a file. Raises FileErrors."""
        return cls(decode(read_bytes(path, max_bytes), str(path)), str(path), private=private)

    @property
    def data(self) -> Any:
        """The values. What cannot be one is noted, and read as None."""
        if not self._is_read:
            self._is_read = True
            try:
                self._data = self._plain(self.root, (), 0)
            except _TooMuchError as error:
                self.note_at(self.root, str(error))
        return self._data

    def note(self, at: Sequence[str | int], reason: str) -> None:
        """Note a mistake at a value, or at the nearest thing that holds it."""
        self.found.append(self._problem(at, reason))

    def note_at(self, node: yaml.Node | None, reason: str) -> None:
        """Note a mistake at a node; None is the file as a whole."""
        self.found.append(Problem(self._file, node.start_mark.line + 1 if node else 1, reason))

    def error(self, at: Sequence[str | int], reason: str) -> FileErrors:
        """A mistake that nothing else should be looked at after."""
        return FileErrors([*self.found, self._problem(at, reason)])

    def finish(self) -> None:
        """Raise FileErrors if anything was noted."""
        if self.found:
            raise FileErrors(self.found)

    def take(self, data: Any, kind: Any, at: Steps = ()) -> Any:
        """A part of the values as `kind`, any type of msgspec's; None, and noted, where it is wrong."""
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            match = _AT.match(str(error))
            assert match is not None  # the pattern matches any text
            steps: list[str | int] = [m["key"] or int(m["index"]) for m in _STEP.finditer(match["path"] or "")]
            reason, unknown = match["reason"], _UNKNOWN.search(match["reason"])
            if unknown:
                steps.append(unknown["name"])
                if self._private and not _FIELD.fullmatch(unknown["name"]):
                    del steps[-1]
                    reason = "an unknown field"
            if (*at, *steps) not in self._unread:
                self.note((*at, *steps), reason)
            return None

    def convert(self, kind: type[T]) -> T:
        """All the values as `kind`. Raises FileErrors."""
        value: T = self.take(self.data, kind)
        self.finish()
        return value

    def _compose(self, text: str) -> tuple[_Loader, yaml.Node | None]:
        bad = Reader.NON_PRINTABLE.search(text)
        if bad is not None:
            line = text.count("\n", 0, bad.start()) + 1
            raise FileErrors(
                [Problem(self._file, line, f"not YAML: it holds the character U+{ord(bad[0]):04X}")], "syntax"
            )
        try:
            loader = _Loader(text)
            return loader, loader.get_single_node()
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            said = getattr(error, "problem", None)
            why = "" if self._private or not said else f": {said}"
            # libyaml finds the end of a file on a line of its own.
            line = min(mark.line + 1, len(text.splitlines())) if mark else 1
            raise FileErrors([Problem(self._file, line, f"not YAML{why}")], "syntax") from error

    def _problem(self, at: Sequence[str | int], reason: str) -> Problem:
        steps: Steps = tuple(at)
        words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        while steps not in self._lines:
            steps = steps[:-1]
        return Problem(self._file, self._lines[steps], f"{words}: {reason}" if words else reason)

    def _plain(self, node: yaml.Node | None, at: Steps, depth: int) -> Any:
        if node is None:
            return None
        self._values_left -= 1
        if self._values_left < 0 or depth > _MAX_DEPTH:
            raise _TooMuchError("aliases stand for too much: write it out")
        self._lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            self.note(at, "has a tag that is not allowed")
            self._unread.add(at)
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*at, i), depth + 1) for i, item in enumerate(node.value)]
        return self._mapping(node, at, depth)

    def _mapping(self, node: yaml.Node, at: Steps, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.note_at(key, "keys are plain words")
                continue
            inner = (*at, key.value)
            self._lines[inner] = key.start_mark.line + 1
            if key.value in values:
                self.note(at if self._private else inner, "given twice")
                continue
            values[key.value] = self._plain(value, inner, depth + 1)
        return values

    def _scalar(self, node: yaml.ScalarNode, at: Steps) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return node.value
        reason = _ODD.get(kind, "") if kind in _ODD or kind in _PLAIN else "has a tag that is not allowed"
        if not reason and ":" in node.value:
            reason = "reads as a number to base 60: put it in quotes"
        if not reason:
            try:
                value = self._loader.construct_object(node)
            except Exception:
                # PyYAML lets through whatever its conversions raise: ValueError, KeyError, IndexError ...
                reason = f"is no {kind}"
            else:
                if value is None or (-_MAX_INT <= value < _MAX_INT and math.isfinite(value)):
                    return value
                reason = "is out of range"
        self.note(at, reason)
        self._unread.add(at)
        return None


_PLAIN: Final = ("null", "bool", "int", "float")
_ODD: Final = {
    "timestamp": "reads as a date: put it in quotes where text is meant",
    "value": "is a lone `=`: put it in quotes where text is meant",
    "merge": "is a lone `<<`: put it in quotes where text is meant",
}


class _TooMuchError(Exception):
    """Aliases stand for too much."""


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """libyaml's parser below PyYAML's composer: quick where it matters, and bounded in depth."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        # Values that are written out.
        self.nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """See Composer. Raises MarkedYAMLError where collections are nested too deep."""
        self.nodes += 1
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            event: Any = self.peek_event()
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {_MAX_DEPTH}", problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node
