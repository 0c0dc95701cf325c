"""config.json's fields: read with their types checked, and refused where one would change the network unseen."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .errors import ModelError, UnsupportedModel

# What every architecture here reads.
_COMMON = frozenset(
    (
        *("hidden_size", "num_attention_heads", "num_hidden_layers", "head_dim", "intermediate_size", "vocab_size"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "hidden_act"),
        *("rope_parameters", "tie_word_embeddings", "text_config", "original_max_position_embeddings"),
        # Written for every rope type; refused where it is below 1 and the architecture does not read it.
        "partial_rotary_factor",
    )
)
# Fields that name parts of a network and change nothing about an answer: training, outputs on request, ways to compute.
_HARMLESS = frozenset(
    (
        *("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout", "hidden_dropout_prob"),
        *(
            "attn_implementation",
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_attn_implementation_internal",
        ),
        *("output_attentions", "output_hidden_states", "output_router_logits", "router_aux_loss_coef"),
        *("router_jitter_noise", "chunk_size_feed_forward", "use_flash_attn", "use_flash_attention", "flash_attn"),
        *("_flash_attn_2_enabled", "vision_config", "audio_config", "mm_tokens_per_image", "max_window_layers"),
    )
)
# A field whose name holds one of these is about the network itself.
_OF_THE_NETWORK = re.compile(
    r"scal|multiplier|softcap|clip|norm|rope|rotary|alibi|bias|window|attn|attention|_act|activation|expert|moe|router"
    r"|gate|gating|residual|layer|head|sink|mup|factor|theta|position|mask|chunk|embed|embd|hidden|parallel|conv|ssm"
    r"|mamba|state|lora|logit|sparse|mlp|ffn|qk|kv_|block|dim_model|intermediate|width|depth|quant|compress"
)
# Of these a 1 changes nothing either.
_ONE_IS_NEUTRAL = re.compile(r"scal|multiplier|factor|pct|residual|interval|step|_mod$")


class Fields:
    """One object of config.json. Errors name the folder and the field."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self._path, self._data = path, data

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` where it is missing or null."""
        value = self._data.get(name)
        return default if value is None else value

    def count(self, *names: str, default: int | None = None) -> int:
        """A whole number from the first of `names` that is there."""
        for name in names:
            value = self.get(name)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
                    raise self.wrong(name, "is no whole number")
                return int(value)
        if default is None:
            raise ModelError(f"{self._path.name}: {names[0]} is missing from config.json")
        return default

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.get(name, default)
        if value is None:
            raise ModelError(f"{self._path.name}: {name} is missing from config.json")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "is no finite number")
        return float(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers, none of them 0."""
        values = self.get(name)
        if not isinstance(values, list) or not all(
            isinstance(v, int | float) and v and math.isfinite(v) for v in values
        ):
            raise self.wrong(name, "is no list of numbers")
        return tuple(float(value) for value in values)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return value

    def part(self, name: str) -> Fields:
        """An object within this one, empty where it is missing."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, "is not an object")
        return Fields(self._path, value)

    def names(self) -> Collection[str]:
        """The fields that are there."""
        return self._data.keys()

    def wrong(self, name: str, why: str) -> ModelError:
        """The error about a field whose value cannot be used."""
        return ModelError(f"{self._path.name}: config.json: {name} {_shown(self._data.get(name))} {why}")

    def refuse(self, name: str) -> UnsupportedModel:
        """The error about a field that this engine does not have."""
        shown = _shown(self._data.get(name))
        return UnsupportedModel(f"{self._path.name}: config.json: {name} {shown} is not supported by this architecture")

    def check_known(self, read: Collection[str]) -> None:
        """Raise UnsupportedModel for a field about the network that nobody reads, unless its value says nothing."""
        for name, value in self._data.items():
            known = name in read or name in _COMMON or name in _HARMLESS
            if not known and _OF_THE_NETWORK.search(name) and not _neutral(name, value):
                raise self.refuse(name)

    def check_only(self, read: Collection[str]) -> None:
        """Raise UnsupportedModel for any field that is not in `read`, unless its value says nothing."""
        for name, value in self._data.items():
            if name not in read and not _neutral(name, value):
                raise self.refuse(name)


def _neutral(name: str, value: Any) -> bool:
    if name == "layer_types" and isinstance(value, list):
        return set(value) <= {"full_attention"}
    if isinstance(value, int | float) and value == 1 and not isinstance(value, bool):
        return bool(_ONE_IS_NEUTRAL.search(name))
    return value is None or value is False or value in (0, "", [], {})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
