"""One entry for every kind of model file: what it is, its weights by name, and its content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import huggingface
from .config import ModelConfig
from .errors import ChecksumMismatch, ModelError
from .weights import Weight

# What a folder's hash covers: other weights or another tokenizer make another revision.
_HASHED = ("*.safetensors", "config.json", "generation_config.json", "tokenizer*.json", "chat_template*")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model file, opened and checked but not yet read. Weights are named as Hugging Face names Llama's.

    Names start at `embed_tokens`, `layers.N.` or `norm`; `lm_head.weight` is missing when it is tied.
    """

    config: ModelConfig
    weights: Mapping[str, Weight]
    # SHA-256 in hexadecimal: of the file; for a folder, of the lines that `sha256sum` prints for its files by name.
    revision: str


def load_checkpoint(path: Path, sha256: str | None = None) -> Checkpoint:
    """Open a Hugging Face folder or a GGUF file and check that it is whole.

    Raises ModelError: missing, truncated, unknown architecture, missing tensors, or not the content that `sha256`
    names.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder")
    revision = _folder_hash(path) if path.is_dir() else _file_hash(path)
    if sha256 is not None and sha256.lower() != revision:
        raise ChecksumMismatch(f"{path.name}: SHA-256 is {revision}, expected {sha256.lower()}")
    if path.is_dir():
        config, weights = huggingface.open_folder(path)
    else:
        from . import gguf_model  # noqa: PLC0415 - the gguf library is for those who load such a file

        config, weights = gguf_model.open_file(path)
    _check_complete(path, config, weights)
    return Checkpoint(config, weights, revision)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_hash(path: Path) -> str:
    files = sorted({found for pattern in _HASHED for found in path.glob(pattern)})
    lines = "".join(f"{_file_hash(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every matrix and norm that a model of this config must have."""
    c = config
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (c.vocab_size, c.hidden), "norm.weight": (c.hidden,)}
    if not c.tied:
        shapes["lm_head.weight"] = (c.vocab_size, c.hidden)
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, c.hidden),
        "self_attn.k_proj.weight": (keys, c.hidden),
        "self_attn.v_proj.weight": (keys, c.hidden),
        "self_attn.o_proj.weight": (c.hidden, queries),
        "mlp.gate_proj.weight": (c.intermediate, c.hidden),
        "mlp.up_proj.weight": (c.intermediate, c.hidden),
        "mlp.down_proj.weight": (c.hidden, c.intermediate),
        "input_layernorm.weight": (c.hidden,),
        "post_attention_layernorm.weight": (c.hidden,),
    }
    if c.qk_norm:
        layer |= {"self_attn.q_norm.weight": (c.head_dim,), "self_attn.k_norm.weight": (c.head_dim,)}
    if c.post_norms:
        layer |= {"pre_feedforward_layernorm.weight": (c.hidden,), "post_feedforward_layernorm.weight": (c.hidden,)}
    return shapes | {f"layers.{i}.{name}": shape for i in range(c.layers) for name, shape in layer.items()}


def _check_complete(path: Path, config: ModelConfig, weights: Mapping[str, Weight]) -> None:
    for name, shape in expected_shapes(config).items():
        if name not in weights:
            raise ModelError(f"{path.name}: tensor {name} is missing")
        if weights[name].shape != shape:
            raise ModelError(f"{path.name}: tensor {name} has shape {weights[name].shape}, expected {shape}")
