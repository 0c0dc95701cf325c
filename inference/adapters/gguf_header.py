"""The header of a GGUF file: its metadata, and what follows it.

The gguf library's own reader makes an array view of every string, which takes 2.4 s and 200 MB for a vocabulary of
49,152 words; a node has to be ready in less. Format: the GGUF specification, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class GgufError(ValueError):
    """A file whose header cannot be read; the message names it."""


class TruncatedGguf(GgufError):
    """The file ends within its header."""


class UnsupportedGguf(GgufError):
    """A version of the format that is not read here."""


def open_mapped(path: Path) -> mmap.mmap:
    """The file's bytes, unread. Raises TruncatedGguf for an empty file, OSError if it cannot be opened."""
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise TruncatedGguf(f"{path.name}: the file is empty") from error


def read_metadata(path: Path, prefixes: Collection[str] = ("",)) -> dict[str, Any]:
    """The fields whose names begin with one of `prefixes`. Raises GgufError, or OSError if it cannot be opened."""
    with open_mapped(path) as data:
        return HeaderReader(data, path.name).fields(prefixes)


class HeaderReader:
    """Walks a header once, front to back. Every read raises TruncatedGguf where the file ends first."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self._data = data
        self._name = name
        self.at = len(_MAGIC)
        if data[: len(_MAGIC)] != _MAGIC:
            raise GgufError(f"{name}: not a GGUF file")
        version = self.scalar("I")
        if version not in _VERSIONS:
            raise UnsupportedGguf(f"{name}: GGUF version {version}; {_VERSIONS} are supported")
        self.tensor_count = int(self.scalar("Q"))
        self._field_count = int(self.scalar("Q"))

    def fields(self, prefixes: Collection[str] = ("",)) -> dict[str, Any]:
        """The metadata; to be called once. Leaves `at` behind it, where the tensors' entries begin."""
        wanted, found = tuple(prefixes), {}
        for _ in range(self._field_count):
            name = self.string()
            value = self._value(self.scalar("I"))
            if name.startswith(wanted):
                found[name] = value
        return found

    def tensor_names(self) -> set[str]:
        """The names of the tensors; to be called once, after `fields`."""
        return {self.tensor_entry()[0] for _ in range(self.tensor_count)}

    def tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """The next tensor's name, shape (rows first; the file has it the other way), type, and offset."""
        name = self.string()
        dims = [int(self.scalar("Q")) for _ in range(self.scalar("I"))]
        return name, tuple(reversed(dims)), self.scalar("I"), self.scalar("Q")

    def scalar(self, code: str) -> Any:
        """One number, by its struct code."""
        (value,) = self._unpack(struct.Struct("<" + code))
        return value

    def string(self) -> str:
        """One string."""
        length = self.scalar("Q")
        end = self.at + length
        if end > len(self._data):
            raise TruncatedGguf(f"{self._name}: a string ends at byte {end} of {len(self._data)}")
        raw, self.at = self._data[self.at : end], end
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise GgufError(f"{self._name}: a string before byte {end} is not UTF-8") from error

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        return self.scalar(self._code(kind))

    def _array(self) -> list[Any]:
        kind, length = self.scalar("I"), self.scalar("Q")
        if length > len(self._data) - self.at:
            raise TruncatedGguf(f"{self._name}: an array of {length} values does not fit the file")
        if kind in (_STRING, _ARRAY):
            return [self._value(kind) for _ in range(length)]
        return list(self._unpack(struct.Struct(f"<{length}{self._code(kind)}")))

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise GgufError(f"{self._name}: metadata of unknown type {kind}")
        return _SCALARS[kind]

    def _unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        try:
            values = layout.unpack_from(self._data, self.at)
        except struct.error as error:
            raise TruncatedGguf(f"{self._name}: the header is cut off at byte {len(self._data)}") from error
        self.at += layout.size
        return values
