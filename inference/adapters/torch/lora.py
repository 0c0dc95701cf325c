"""LoRA adapters in PEFT's folder format, read and checked against a model.

An adapter adds scale * B (A x) to a projection's output. Source: Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models", 2021; the rank-stabilised scale is Kalajdzievski's, 2023.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .loading import AdapterMismatch, ModelConfig

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])(?:\.default)?\.weight$")
# Settings that this reader acts on, or that say how an adapter was trained and change nothing about B A. Whatever else
# is set may be a variant that computes something else, so it is refused by name.
_READ = frozenset({"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights"})
_HARMLESS = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config"),
        *("exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config"),
        *("lora_dropout", "lora_ga_config", "megatron_core", "peft_version", "qalora_group_size", "revision"),
        *("runtime_config", "target_modules", "task_type"),
    )
)
_KNOWN_AS = {"use_dora": "DoRA (use_dora)"}
# Ways to begin that change the base model's weights as well: alone, what was saved means something else.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


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
    """Read a PEFT folder. Raises AdapterMismatch, naming the file and what does not fit."""
    settings = _settings(path)
    try:
        tensors = load_file(path / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterMismatch(f"{path.name}: {_WEIGHTS}: {error}") from error
    where = f"{path.name}: {_WEIGHTS}"
    halves: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.search(key)
        if match is None or match[2] not in PROJECTIONS or int(match[1]) >= config.layers:
            raise AdapterMismatch(f"{where}: {key} is not a LoRA weight of this model's projections")
        if match[2] in PROJECTIONS[4:] and config.has_experts(int(match[1])):
            raise AdapterMismatch(f"{where}: {key}: the experts of layer {match[1]} take no adapters")
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise AdapterMismatch(f"{where}: {key} holds what are no finite floats")
        halves.setdefault((int(match[1]), match[2]), {})[match[3]] = tensor.float()
    if not halves:
        raise AdapterMismatch(f"{where}: no LoRA weights")
    return {place: _pair(where, config, settings, place, pair) for place, pair in halves.items()}


def _settings(path: Path) -> dict[str, Any]:
    where = f"{path.name}: {_CONFIG}"
    try:
        settings = json.loads((path / _CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise AdapterMismatch(f"{where}: {error}") from error
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else None
        raise AdapterMismatch(f"{where}: peft_type {kind!r}; only LORA is supported")
    for key, value in settings.items():
        if value and key not in _READ and key not in _HARMLESS:
            raise AdapterMismatch(f"{where}: {_KNOWN_AS.get(key, key)} is not supported")
    if settings.get("bias", "none") != "none":
        raise AdapterMismatch(f"{where}: bias {settings['bias']!r} is not supported")
    begun = settings.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE):
        raise AdapterMismatch(f"{where}: init_lora_weights {begun!r} changed the base model; save it converted to LoRA")
    _check_numbers(where, settings)
    return settings


def _check_numbers(where: str, settings: dict[str, Any]) -> None:
    """That rank and alpha are there, here and in the patterns, and that patterns can be matched."""
    for key, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        others = settings.get(pattern) or {}
        if not isinstance(others, dict):
            raise AdapterMismatch(f"{where}: {pattern} is not an object")
        for value in (settings.get(key), *others.values()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise AdapterMismatch(f"{where}: {key} {value!r} is not a number above 0")
        for name in others:
            try:
                re.compile(name)
            except re.error as error:
                raise AdapterMismatch(f"{where}: {pattern} {name!r}: {error}") from error


def _pair(
    where: str, config: ModelConfig, settings: dict[str, Any], place: tuple[int, str], halves: dict[str, torch.Tensor]
) -> LoraPair:
    layer, projection = place
    if set(halves) != {"A", "B"}:
        raise AdapterMismatch(f"{where}: layer {layer} {projection} lacks A or B")
    rows, width = projection_shape(config, projection)
    rank = int(_of_place(settings, "r", "rank_pattern", place))
    shapes, wanted = (tuple(halves["A"].shape), tuple(halves["B"].shape)), ((rank, width), (rows, rank))
    if shapes != wanted:
        raise AdapterMismatch(
            f"{where}: layer {layer} {projection} has shapes {shapes}; this model with rank {rank} takes {wanted}"
        )
    alpha = _of_place(settings, "lora_alpha", "alpha_pattern", place)
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    return LoraPair(halves["A"].contiguous(), (halves["B"] * scale).contiguous())


def _of_place(settings: dict[str, Any], key: str, pattern_key: str, place: tuple[int, str]) -> float:
    """A setting that may be given for some layers alone, by the end of their name or a pattern, as PEFT has it."""
    group = "mlp" if place[1] in ("gate_proj", "up_proj", "down_proj") else "self_attn"
    name = f"model.layers.{place[0]}.{group}.{place[1]}"
    for pattern, value in (settings.get(pattern_key) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(value)
    return float(settings[key])
