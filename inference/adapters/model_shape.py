"""What a model file says of its size, without loading it: a Hugging Face folder, its config.json, or a GGUF file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.adapters.gguf_header import HeaderReader, open_mapped
from inference.adapters.model_files import missing_model
from inference.core.shape import ModelShape, SizingError
from inference.core.shape_config import precision_of, shape_of

# A Hugging Face config's names for what GGUF metadata holds under the architecture's prefix.
_GGUF_NAMES: Mapping[str, str] = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "sliding_window": "attention.sliding_window",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "kv_lora_rank": "attention.kv_lora_rank",
    "q_lora_rank": "attention.q_lora_rank",
    "index_head_dim": "attention.indexer.key_length",
}
# A layer's number in a tensor's name; encoders for pictures and sound have layers of their own.
_FOLDER_LAYER = re.compile(r"(?:language_model\.)?(?:model\.)?(?:language_model\.)?layers\.(\d+)\.")
_GGUF_LAYER = re.compile(r"blk\.(\d+)\.")
_INDEX = "model.safetensors.index.json"
# Longer headers than any model has are not read.
_LONGEST_HEADER = 256 << 20
# The format's file types (GGML's `ftype`) by the nearest way of holding weights.
_GGUF_PRECISION: Mapping[int, str] = {
    0: "float32",
    1: "float16",
    2: "int4",
    3: "int4",
    7: "int8",
    12: "int4",
    13: "int4",
    14: "int4",
    15: "int4",
    16: "int8",
    17: "int8",
    18: "int8",
    32: "bfloat16",
}


def read_shape(path: Path) -> tuple[ModelShape, str]:
    """The shape and how the file holds its weights. Raises SizingError or OSError, naming what is wrong."""
    if not path.exists():
        raise SizingError(missing_model(path))
    if path.is_file() and path.suffix != ".json":
        return _from_gguf(path)
    file = path / "config.json" if path.is_dir() else path
    if not file.exists():
        raise SizingError(f"{file.name} is missing: this is no Hugging Face folder")
    config = _json(file)
    shape = shape_of(config)
    if path.is_dir():
        # Layers that guess further tokens ahead lie behind the model's own.
        further = config.get("num_nextn_predict_layers")
        _check_layers(_folder_layers(path), shape.layers, further if isinstance(further, int) else 0)
    return shape, precision_of(config)


def _json(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SizingError(f"{file.name}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise SizingError(f"{file.name}: not an object")
    return config


def _check_layers(found: set[int], layers: int, further: int = 0) -> None:
    """Raise SizingError where the tensors are of other layers than the config says."""
    if found and not layers <= max(found) + 1 <= layers + further:
        raise SizingError(f"num_hidden_layers is {layers}, but the tensors are of {max(found) + 1} layers")


def _folder_layers(path: Path) -> set[int]:
    """The layers that the folder's tensors name; nothing where there are no tensors, or they are named otherwise."""
    names: set[str] = set()
    if (path / _INDEX).exists():
        names.update(_json(path / _INDEX).get("weight_map") or ())
    else:
        single = path / "model.safetensors"
        for file in [single] if single.exists() else sorted(path.glob("*.safetensors")):
            names.update(_safetensors_names(file))
    return {int(match[1]) for match in map(_FOLDER_LAYER.match, names) if match is not None}


def _safetensors_names(file: Path) -> set[str]:
    """The tensors that the file's header names: 8 bytes of length, then JSON."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(_LONGEST_HEADER, file.stat().st_size):
            raise SizingError(f"{file.name}: its header is cut off")
        try:
            return set(json.loads(opened.read(length)))
        except (ValueError, TypeError) as error:
            raise SizingError(f"{file.name}: its header is not JSON: {error}") from error


def _from_gguf(path: Path) -> tuple[ModelShape, str]:
    try:
        with open_mapped(path) as data:
            header = HeaderReader(data, path.name)
            fields = header.fields()
            tensors = header.tensor_names()
    except ValueError as error:
        raise SizingError(str(error)) from error
    architecture = fields.get("general.architecture", "")
    config: dict[str, Any] = {"model_type": architecture}
    for name, key in _GGUF_NAMES.items():
        if f"{architecture}.{key}" in fields:
            config[name] = fields[f"{architecture}.{key}"]
    if "kv_lora_rank" in config:
        config |= _latent_heads(fields, architecture)
    config.setdefault("vocab_size", len(fields.get("tokenizer.ggml.tokens", ())))
    # The format says nothing of layers that guess ahead but their number, which it counts as layers.
    config["tie_word_embeddings"] = "output.weight" not in tensors
    # Windows that a file names are in use.
    config["use_sliding_window"] = True
    shape = shape_of(config)
    _check_layers({int(m[1]) for m in map(_GGUF_LAYER.match, tensors) if m is not None}, shape.layers)
    return shape, _GGUF_PRECISION.get(fields.get("general.file_type", 1), "float16")


def _latent_heads(fields: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Latent attention's sizes of a head; files that hold the joined form have them under names of their own."""

    def of(name: str) -> Any:
        key = f"{architecture}.attention.{name}"
        return fields.get(f"{key}_mla", fields.get(key))

    rotated, key, value = fields.get(f"{architecture}.rope.dimension_count"), of("key_length"), of("value_length")
    if not all(isinstance(number, int) for number in (rotated, key, value)):
        raise SizingError(f"{architecture}.rope.dimension_count, attention.key_length or value_length is missing")
    return {"qk_rope_head_dim": rotated, "qk_nope_head_dim": key - rotated, "v_head_dim": value}
