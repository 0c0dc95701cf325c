"""One entry for every kind of model file: what it is, its weights by name, and its content hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.adapters.model_files import missing_model

from . import huggingface
from .config import ModelConfig
from .errors import ChecksumMismatch, ModelError, UnsupportedModel
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
        raise ModelError(missing_model(path))
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


def read_config(path: Path) -> ModelConfig:
    """What the model at `path` is, without its weights. Raises ModelError."""
    if path.is_dir():
        return huggingface.read_config_of(path)
    from . import gguf_config, gguf_file  # noqa: PLC0415 - as above

    return gguf_config.read_config(gguf_file.GgufFile(path))


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_hash(path: Path) -> str:
    files = sorted({found for pattern in _HASHED for found in path.glob(pattern)})
    lines = "".join(f"{_file_hash(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every matrix, norm and bias that a model of this config must have."""
    c = config
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (c.vocab_size, c.hidden), "norm.weight": (c.hidden,)}
    if not c.tied:
        shapes["lm_head.weight"] = (c.vocab_size, c.hidden)
    for layer in range(c.layers):
        feed_forward = _expert_shapes(c) if c.has_experts(layer) else _gated("mlp", c.hidden, c.intermediate)
        named = _attention_shapes(c) | feed_forward
        for place in c.biases or ():
            if f"{place}.weight" in named:
                named[f"{place}.bias"] = named[f"{place}.weight"][:1]
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in named.items()}
    return shapes


def _attention_shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, c.hidden),
        "self_attn.k_proj.weight": (keys, c.hidden),
        "self_attn.v_proj.weight": (keys, c.hidden),
        "self_attn.o_proj.weight": (c.hidden, queries),
        "input_layernorm.weight": (c.hidden,),
        "post_attention_layernorm.weight": (c.hidden,),
    }
    if c.qk_norm:
        shapes |= {"self_attn.q_norm.weight": (c.head_dim,), "self_attn.k_norm.weight": (c.head_dim,)}
    if c.post_norms:
        shapes |= {"pre_feedforward_layernorm.weight": (c.hidden,), "post_feedforward_layernorm.weight": (c.hidden,)}
    return shapes


def _gated(place: str, hidden: int, inner: int, *experts: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{place}.gate_proj.weight": (*experts, inner, hidden),
        f"{place}.up_proj.weight": (*experts, inner, hidden),
        f"{place}.down_proj.weight": (*experts, hidden, inner),
    }


def _expert_shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    assert c.experts is not None  # only asked for layers that have experts
    shapes = _gated("mlp.experts", c.hidden, c.experts.intermediate, c.experts.count)
    shapes["mlp.gate.weight"] = (c.experts.count, c.hidden)
    if c.experts.shared_intermediate:
        shapes |= _gated("mlp.shared_expert", c.hidden, c.experts.shared_intermediate)
        shapes["mlp.shared_expert_gate.weight"] = (1, c.hidden)
    return shapes


def _check_complete(path: Path, config: ModelConfig, weights: Mapping[str, Weight]) -> None:
    """Raise ModelError where a tensor is missing, has another shape, or would be left unused."""
    _check_layers(path, config, weights)
    expected = expected_shapes(config)
    for name, shape in expected.items():
        if name not in weights:
            raise ModelError(f"{path.name}: tensor {name} is missing{_why(config, name)}")
        if weights[name].shape != shape:
            raise ModelError(f"{weights[name].source} has shape {weights[name].shape}, expected {shape}")
    for name, weight in weights.items():
        if name not in expected and not _is_bias(config, name, expected, weight):
            raise UnsupportedModel(f"{weight.source} is not part of this architecture; its answers would be others")


def _check_layers(path: Path, config: ModelConfig, weights: Mapping[str, Weight]) -> None:
    numbers = [int(name.split(".")[1]) for name in weights if re.match(r"layers\.\d+\.", name)]
    found = max(numbers, default=-1) + 1
    if found > config.layers:
        last = next(weight for name, weight in weights.items() if name.startswith(f"layers.{found - 1}."))
        raise ModelError(f"{last.source} is of layer {found - 1}, but the config says that there are {config.layers}")
    if found < config.layers:
        name = f"layers.{found}.input_layernorm.weight"
        raise ModelError(
            f"{path.name}: tensor {name} is missing: the config says {config.layers} layers, the tensors are of {found}"
        )


def _why(config: ModelConfig, name: str) -> str:
    return ": tie_word_embeddings in config.json is false" if name == "lm_head.weight" and not config.tied else ""


def _is_bias(config: ModelConfig, name: str, expected: Mapping[str, tuple[int, ...]], weight: Weight) -> bool:
    """Whether this is the bias of a projection, in a file that says nothing of biases."""
    matrix = expected.get(f"{name.removesuffix('.bias')}.weight", ())
    attention_or_mlp = re.fullmatch(r"layers\.\d+\.(self_attn|mlp)\.[a-z]+_proj\.bias", name)
    return config.biases is None and attention_or_mlp is not None and weight.shape == matrix[:1]
