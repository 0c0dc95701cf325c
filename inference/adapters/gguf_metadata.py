"""The metadata of a GGUF file, without its tensors.

The gguf library's own reader makes an array view of every string, which takes seconds for a vocabulary; a node has to
be ready in less. Format: the GGUF specification, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_metadata(path: Path, prefixes: Collection[str] = ("",)) -> dict[str, Any]:
    """The fields whose names begin with one of `prefixes`.

    Raises ValueError, naming the file, if it is not GGUF or ends within its header, and OSError if it cannot be read.
    """
    if not path.stat().st_size:
        raise ValueError(f"{path.name}: the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Header(data).fields(tuple(prefixes))
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise ValueError(f"{path.name}: the GGUF header is cut off or damaged") from error
        except _NotGgufError as error:
            raise ValueError(f"{path.name}: {error}") from error


class _NotGgufError(Exception):
    pass


class _Header:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4
        if data[:4] != b"GGUF":
            raise _NotGgufError("not a GGUF file")
        version = self._scalar("I")
        if version not in (2, 3):
            raise _NotGgufError(f"GGUF version {version}; 2 and 3 are supported")

    def fields(self, prefixes: tuple[str, ...]) -> dict[str, Any]:
        _tensors, count = self._scalar("Q"), self._scalar("Q")
        found = {}
        for _ in range(count):
            name = self._string()
            value = self._value(self._scalar("I"))
            if name.startswith(prefixes):
                found[name] = value
        return found

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise struct.error("a string ends after the file")
        return self._data[start : self._at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        return self._scalar(_SCALARS[kind])

    def _array(self) -> list[Any]:
        kind, length = self._scalar("I"), self._scalar("Q")
        if length > len(self._data):
            raise struct.error("an array longer than the file")
        if kind in (_STRING, _ARRAY):
            return [self._value(kind) for _ in range(length)]
        layout = struct.Struct(f"<{length}{_SCALARS[kind]}")
        values = list(layout.unpack_from(self._data, self._at))
        self._at += layout.size
        return values
