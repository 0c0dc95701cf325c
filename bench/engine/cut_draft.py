"""A draft model cut from a GGUF file's own layers: `python -m bench.engine.cut_draft MODEL DRAFT --layers 0-11`.

The layers that stay are copied as they are stored, embedding and output included, so the draft has its target's
vocabulary and precision. Nothing is trained: a cut draft shows what drafting does, not what a good draft is worth.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import gguf

from inference.adapters.torch.loading.gguf_file import GgufFile, GgufTensor

_LAYER = re.compile(r"blk\.(\d+)\.")


def cut_draft(model: Path, draft: Path, layers: Sequence[int]) -> Path:
    """Write the draft that has those of the model's layers, in that order. Returns its path."""
    file = GgufFile(model)
    architecture = str(file.metadata["general.architecture"])
    writer = gguf.GGUFWriter(draft, architecture)
    for key, value in file.metadata.items():
        if key.startswith(f"{architecture}.") and isinstance(value, int | float) and not key.endswith(".block_count"):
            write = writer.add_uint32 if isinstance(value, int) else writer.add_float32
            write(key, value)
    writer.add_block_count(len(layers))
    writer.add_name(f"{file.metadata.get('general.name', model.stem)}, {len(layers)} layers")
    for name, tensor in _kept(file, layers):
        writer.add_tensor(name, file.raw(tensor).reshape(*tensor.shape[:-1], -1), raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return draft


def _kept(file: GgufFile, layers: Sequence[int]) -> Iterable[tuple[str, GgufTensor]]:
    for name, tensor in file.tensors.items():
        match = _LAYER.match(name)
        if match is None:
            yield name, tensor
        for place, layer in enumerate(layers):
            if match is not None and int(match[1]) == layer:
                yield f"blk.{place}.{name[match.end() :]}", tensor


def _layers(text: str) -> list[int]:
    """ "0-3,28" as [0, 1, 2, 3, 28]."""
    spans = [part.partition("-") for part in text.split(",")]
    return [layer for first, _, last in spans for layer in range(int(first), int(last or first) + 1)]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine.cut_draft")
    parser.add_argument("model", type=Path)
    parser.add_argument("draft", type=Path)
    parser.add_argument("--layers", type=_layers, required=True, help="for example 0-5,28,29")
    arguments = parser.parse_args()
    print(cut_draft(arguments.model, arguments.draft, arguments.layers))


if __name__ == "__main__":
    main()
