"""The GGUF container: metadata and where each tensor's bytes lie.

The header is read by inference.adapters.gguf_header; the gguf library names the types and decodes the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from inference.adapters.gguf_header import GgufError, HeaderReader, TruncatedGguf, UnsupportedGguf, open_mapped

from .errors import ModelError, TruncatedModel, UnsupportedModel


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
        try:
            self._bytes = open_mapped(path)
            header = HeaderReader(self._bytes, path.name)
            self.metadata = header.fields()
            entries = [header.tensor_entry() for _ in range(header.tensor_count)]
        except TruncatedGguf as error:
            raise TruncatedModel(str(error)) from error
        except UnsupportedGguf as error:
            raise UnsupportedModel(str(error)) from error
        except GgufError as error:
            raise ModelError(str(error)) from error
        alignment = int(self.metadata.get("general.alignment", 32))
        start = (header.at + alignment - 1) // alignment * alignment
        self.tensors = {name: self._placed(name, shape, kind, start + at) for name, shape, kind, at in entries}

    def raw(self, tensor: GgufTensor) -> NDArray[np.uint8]:
        """The tensor's bytes, [rows, bytes a row], without a copy; valid while the file is open."""
        flat = np.frombuffer(self._bytes, dtype=np.uint8, count=tensor.size, offset=tensor.offset)
        rows = int(np.prod(tensor.shape[:-1]))
        return flat.reshape(rows, tensor.size // rows)

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
