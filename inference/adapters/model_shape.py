"""What a model file says of its size, without loading it: a Hugging Face folder, its config.json, or a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.adapters.gguf_header import read_metadata
from inference.core.sizing import ModelShape, SizingError, precision_of, shape_of

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
}
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
    if path.is_file() and path.suffix != ".json":
        return _from_gguf(path)
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SizingError(f"{file.name}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise SizingError(f"{file.name}: not a model's config")
    return shape_of(config), precision_of(config)


def _from_gguf(path: Path) -> tuple[ModelShape, str]:
    try:
        fields = read_metadata(path)
    except ValueError as error:
        raise SizingError(str(error)) from error
    architecture = fields.get("general.architecture", "")
    config: dict[str, Any] = {"model_type": architecture}
    for name, key in _GGUF_NAMES.items():
        if f"{architecture}.{key}" in fields:
            config[name] = fields[f"{architecture}.{key}"]
    config.setdefault("vocab_size", len(fields.get("tokenizer.ggml.tokens", ())))
    # A file without an output table shares the embedding's; small models do, and only they are affected by it.
    config["tie_word_embeddings"] = config.get("hidden_size", 0) <= 2048
    return shape_of(config), _GGUF_PRECISION.get(fields.get("general.file_type", 1), "float16")
