"""LoRA adapters in PEFT's folder format, read and checked against a model.

An adapter adds scale * B (A x) to a projection's output. Source: Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", 2021; the rank-stabilised scale is Kalajdzievski's, 2023.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .loading import AdapterMismatch, ModelConfig

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_KEY = re.compile(r"\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])(?:\.default)?\.weight$")
_REFUSED = {"use_dora": "DoRA", "modules_to_save": "modules_to_save", "fan_in_fan_out": "fan_in_fan_out"}


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One projection's adapter, float32: `down` is A, [rank, in]; `up` is B times the scale, [out, rank]."""

    down: torch.Tensor
    up: torch.Tensor


# By layer and projection name.
Lora = dict[tuple[int, str], LoraPair]


def projection_shape(config: ModelConfig, projection: str) -> tuple[int, int]:
    """(out, in) of a projection."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "q_proj": (queries, config.hidden),
        "k_proj": (keys, config.hidden),
        "v_proj": (keys, config.hidden),
        "o_proj": (config.hidden, queries),
        "gate_proj": (config.intermediate, config.hidden),
        "up_proj": (config.intermediate, config.hidden),
        "down_proj": (config.hidden, config.intermediate),
    }[projection]


def read_adapter(path: Path, config: ModelConfig) -> Lora:
    """Read a PEFT folder. Raises AdapterMismatch, naming what does not fit."""
    settings = _settings(path)
    try:
        tensors = load_file(path / "adapter_model.safetensors")
    except (FileNotFoundError, SafetensorError) as error:
        raise AdapterMismatch(f"{path.name}: adapter_model.safetensors: {error}") from error
    halves: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.search(key)
        if match is None or match[2] not in PROJECTIONS or int(match[1]) >= config.layers:
            raise AdapterMismatch(f"{path.name}: {key} is not a LoRA weight of this model's projections")
        halves.setdefault((int(match[1]), match[2]), {})[match[3]] = tensor.float()
    adapter = {place: _pair(path, config, settings, place, pair) for place, pair in halves.items()}
    if not adapter:
        raise AdapterMismatch(f"{path.name}: no LoRA weights")
    return adapter


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((path / "adapter_config.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise AdapterMismatch(f"{path.name}: adapter_config.json: {error}") from error
    if settings.get("peft_type") != "LORA":
        raise AdapterMismatch(f"{path.name}: peft_type {settings.get('peft_type')!r}; only LORA is supported")
    for key, feature in _REFUSED.items():
        if settings.get(key):
            raise AdapterMismatch(f"{path.name}: {feature} is not supported")
    if settings.get("bias", "none") != "none":
        raise AdapterMismatch(f"{path.name}: bias {settings['bias']!r} is not supported")
    return settings


def _pair(
    path: Path, config: ModelConfig, settings: dict[str, Any], place: tuple[int, str], halves: dict[str, torch.Tensor]
) -> LoraPair:
    layer, projection = place
    rows, width = projection_shape(config, projection)
    if set(halves) != {"A", "B"}:
        raise AdapterMismatch(f"{path.name}: layer {layer} {projection} lacks A or B")
    rank = halves["A"].shape[0]
    if tuple(halves["A"].shape) != (rank, width) or tuple(halves["B"].shape) != (rows, rank):
        shapes = tuple(halves["A"].shape), tuple(halves["B"].shape)
        raise AdapterMismatch(f"{path.name}: layer {layer} {projection} has shapes {shapes}, the model {(rows, width)}")
    alpha = _of_place(settings, "alpha_pattern", place, float(settings["lora_alpha"]))
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    return LoraPair(halves["A"].contiguous(), (halves["B"] * scale).contiguous())


def _of_place(settings: dict[str, Any], key: str, place: tuple[int, str], default: float) -> float:
    """A setting that may be given for some layers alone, by the end of their name or a pattern, as PEFT has it."""
    group = "mlp" if place[1] in ("gate_proj", "up_proj", "down_proj") else "self_attn"
    name = f"model.layers.{place[0]}.{group}.{place[1]}"
    for pattern, value in (settings.get(key) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(value)
    return default
