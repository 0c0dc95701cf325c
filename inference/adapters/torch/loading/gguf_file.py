"""The GGUF container: metadata and where each tensor's bytes lie.

The gguf library's reader makes an array view of every string, which takes two seconds and 200 MB for a vocabulary of
49,152 words; this one walks the header once. The library still names the types and decodes the blocks.
Format: the GGUF specification, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from .errors import ModelError, TruncatedModel, UnsupportedModel

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies. `shape` is rows first (the file has it the other way round)."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    size: int


class GgufFile:
    """An open GGUF file. Raises ModelError from the constructor if its header or its length is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            try:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise TruncatedModel(f"{path.name}: the file is empty") from error
        self._at = 0
        try:
            self.metadata, self.tensors = self._read_header()
        except struct.error as error:
            raise TruncatedModel(f"{path.name}: the header is cut off at byte {len(self._bytes)}") from error

    def raw(self, tensor: GgufTensor) -> NDArray[np.uint8]:
        """The tensor's bytes, [rows, bytes a row], without a copy; valid while the file is open."""
        flat = np.frombuffer(self._bytes, dtype=np.uint8, count=tensor.size, offset=tensor.offset)
        rows = int(np.prod(tensor.shape[:-1]))
        return flat.reshape(rows, tensor.size // rows)

    def _read_header(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        if self._bytes[:4] != _MAGIC:
            raise ModelError(f"{self.path.name}: not a GGUF file")
        self._at = 4
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise UnsupportedModel(f"{self.path.name}: GGUF version {version}; {_VERSIONS} are supported")
        tensor_count, field_count = self._scalar("Q"), self._scalar("Q")
        metadata = {}
        for _ in range(field_count):
            key = self._string()
            metadata[key] = self._value(self._scalar("I"))
        entries = [self._tensor_entry() for _ in range(tensor_count)]
        alignment = int(metadata.get("general.alignment", 32))
        start = (self._at + alignment - 1) // alignment * alignment
        return metadata, {name: self._placed(name, shape, kind, start + at) for name, shape, kind, at in entries}

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._bytes, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        end = self._at + length
        if end > len(self._bytes):
            raise TruncatedModel(f"{self.path.name}: a string ends at byte {end} of {len(self._bytes)}")
        text = self._bytes[self._at : end].decode("utf-8", errors="replace")
        self._at = end
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise ModelError(f"{self.path.name}: metadata of unknown type {kind}")
        return self._scalar(_SCALARS[kind])

    def _array(self) -> list[Any]:
        kind, length = self._scalar("I"), self._scalar("Q")
        if length > len(self._bytes) - self._at:
            raise TruncatedModel(f"{self.path.name}: an array of {length} values does not fit the file")
        if kind in (_STRING, _ARRAY) or kind not in _SCALARS:
            return [self._value(kind) for _ in range(length)]
        layout = struct.Struct(f"<{length}{_SCALARS[kind]}")
        values = list(layout.unpack_from(self._bytes, self._at))
        self._at += layout.size
        return values

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        dims = [self._scalar("Q") for _ in range(self._scalar("I"))]
        return name, tuple(reversed(dims)), self._scalar("I"), self._scalar("Q")

    def _placed(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        try:
            quantization = GGMLQuantizationType(kind)
        except ValueError as error:
            raise UnsupportedModel(f"{self.path.name}: tensor {name} has unknown type {kind}") from error
        block, block_bytes = GGML_QUANT_SIZES[quantization]
        size = int(np.prod(shape)) // block * block_bytes
        if not shape or shape[-1] % block:
            raise ModelError(f"{self.path.name}: tensor {name} of shape {shape} is not whole blocks of {block}")
        if offset + size > len(self._bytes):
            have = len(self._bytes)
            raise TruncatedModel(f"{self.path.name}: tensor {name} ends at byte {offset + size}, the file at {have}")
        return GgufTensor(name, shape, quantization, offset, size)
