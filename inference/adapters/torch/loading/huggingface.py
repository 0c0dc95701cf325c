"""Models in Hugging Face folders: config.json to ModelConfig, and safetensors to weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .config import ModelConfig
from .errors import ModelError, TruncatedModel, UnsupportedModel
from .folder_config import read_config
from .joined import parts_of
from .weights import Grouped, Stacked, Weight, check_finite

_BITS = {"F32": 32, "F16": 16, "BF16": 16}
# Gemma 3 with vision nests its language model; the rest of it is not served.
_PREFIXES = ("language_model.model.", "model.language_model.", "model.")
_NOT_SERVED = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
# Computed from the config; older files hold it as well.
_COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
# Mixtral's names to those of the other mixtures.
_MIXTRAL = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_EXPERT = re.compile(r"(layers\.\d+\.)block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight")


@dataclass(frozen=True, slots=True)
class SafetensorsWeight:
    """A tensor of a safetensors file. `offset` is added: Gemma's norms are stored less one."""

    path: Path
    name: str
    shape: tuple[int, ...]
    bits: int
    offset: float = 0.0

    @property
    def source(self) -> str:
        """See Weight."""
        return f"{self.path.parent.name}: {self.path.name}: tensor {self.name}"

    def dense(self) -> torch.Tensor:
        """The tensor in its own float type."""
        with safe_open(self.path, framework="pt") as file:
            tensor: torch.Tensor = check_finite(file.get_tensor(self.name), self.source)
        return tensor.float() + self.offset if self.offset else tensor

    def grouped(self) -> Grouped | None:
        """None: safetensors hold floats."""
        return None


def open_folder(path: Path) -> tuple[ModelConfig, dict[str, Weight]]:
    """The folder's config and weights, not yet read. Raises ModelError."""
    config = read_config_of(path)
    skipped = _NOT_SERVED if _json(path / "config.json").get("text_config") else ()
    weights: dict[str, Weight] = {}
    for file in _weight_files(path):
        for name, shape, bits in _tensors(file):
            if name.startswith(skipped) or _COMPUTED.search(name):
                continue
            short = _short(name)
            norm = config.architecture == "gemma3" and short.endswith("norm.weight")
            weights[short] = SafetensorsWeight(file, name, shape, bits, 1.0 if norm else 0.0)
    _tie(config, weights)
    _split(config, weights)
    _stack(path, config, weights)
    return config, weights


def read_config_of(path: Path) -> ModelConfig:
    """The folder's config. Raises ModelError."""
    generation = path / "generation_config.json"
    return read_config(path, _json(path / "config.json"), _json(generation) if generation.exists() else {})


def _weight_files(path: Path) -> list[Path]:
    """The files that transformers would read: others beside them hold the same weights in another form, or adapters."""
    if (path / _INDEX).exists():
        named = _json(path / _INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise ModelError(f"{path.name}: {_INDEX}: weight_map is not an object of file names")
        files = [path / Path(name).name for name in sorted(set(named.values()))]
        for file in files:
            if not file.exists():
                raise ModelError(f"{path.name}: {file.name} is missing, which {_INDEX} names")
        return files
    if (path / _SINGLE).exists():
        return [path / _SINGLE]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{path.name}: no .safetensors file")
    return files


def _tensors(file: Path) -> list[tuple[str, tuple[int, ...], int]]:
    """Name, shape and bits of every tensor. Opening checks that the file is as long as its header says."""
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it has no iterator
            for name, held in slices.items():
                if held.get_dtype() not in _BITS:
                    raise UnsupportedModel(f"{file.name}: tensor {name} is of type {held.get_dtype()}; not supported")
            return [(name, tuple(s.get_shape()), _BITS[s.get_dtype()]) for name, s in slices.items()]
    except SafetensorError as error:
        raise TruncatedModel(f"{file.name}: {error}") from error


def _short(name: str) -> str:
    """The name as every architecture here has it, without the prefix."""
    for prefix in (*_PREFIXES, "language_model."):
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    match = _EXPERT.fullmatch(name)
    if match is not None:
        return f"{match[1]}mlp.experts.{match[2]}.{_MIXTRAL[match[3]]}.weight"
    return name.replace(".block_sparse_moe.gate.", ".mlp.gate.")


def _tie(config: ModelConfig, weights: dict[str, Weight]) -> None:
    """Drop a second copy of the embedding. Raises ModelError where it is none."""
    if not config.tied or "lm_head.weight" not in weights or "embed_tokens.weight" not in weights:
        return
    head = weights.pop("lm_head.weight")
    embedding = weights["embed_tokens.weight"]
    if head.shape != embedding.shape or not torch.equal(head.dense(), embedding.dense()):
        raise ModelError(f"{head.source} is not the embedding, though tie_word_embeddings in config.json says so")


def _split(config: ModelConfig, weights: dict[str, Weight]) -> None:
    """Take joined projections apart."""
    for name, whole in tuple(weights.items()):
        for part, taken in parts_of(config, name, whole):
            weights.pop(name, None)
            weights[part] = taken


def _stack(path: Path, config: ModelConfig, weights: dict[str, Weight]) -> None:
    """The experts' matrices, put together layer by layer."""
    if config.experts is None:
        return
    for layer in sorted(config.experts.layers):
        for projection in ("gate_proj", "up_proj", "down_proj"):
            parts = []
            for expert in range(config.experts.count):
                name = f"layers.{layer}.mlp.experts.{expert}.{projection}.weight"
                if name not in weights:
                    raise ModelError(f"{path.name}: tensor {name} is missing")
                parts.append(weights.pop(name))
            odd = next((part for part in parts if part.shape != parts[0].shape), None)
            if odd is not None:
                raise ModelError(f"{odd.source} has shape {odd.shape}, another expert's {parts[0].shape}")
            weights[f"layers.{layer}.mlp.experts.{projection}.weight"] = Stacked(parts)


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent.name}: {path.name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.parent.name}: {path.name} is not JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path.parent.name}: {path.name} is not an object")
    return loaded
