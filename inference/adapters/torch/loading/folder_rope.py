"""Rotary positions as config.json says them, in either of the two ways to write them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .folder_fields import Fields
from .rope import RopeScaling, yarn_attention_factor

_TYPE = frozenset(("rope_type", "type", "rope_theta", "partial_rotary_factor"))
# What each type reads besides; "finetuned" is a note.
_READ: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset(("factor",)),
    # NTK by length begins where the context that the model was made for ends, which is where this engine stops.
    "dynamic": frozenset(("factor", "original_max_position_embeddings")),
    "llama3": frozenset(("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")),
    "yarn": frozenset(
        (
            *("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
            *("original_max_position_embeddings", "truncate", "finetuned"),
        )
    ),
    "longrope": frozenset(
        ("factor", "attention_factor", "short_factor", "long_factor", "original_max_position_embeddings")
    ),
}


@dataclass(frozen=True, slots=True)
class Rope:
    """Base frequencies, stretching, and what follows from it for the rest of the model."""

    theta: float
    theta_local: float | None
    scaling: RopeScaling | None
    # Share of a head's dimensions that is rotated, and what rotated queries and keys are multiplied by.
    share: float
    factor: float
    context: int


def read_rope(data: Fields, family: str, theta: float) -> Rope:
    """The rope of a model whose base frequency is `theta` unless config.json says otherwise. Raises ModelError."""
    context = data.count("max_position_embeddings")
    both = data.part("rope_parameters" if data.get("rope_parameters") else "rope_scaling")
    settings = both.part("full_attention") if "full_attention" in both.names() else both
    gemma = family == "gemma3"
    local = None
    if gemma:
        windowed = both.part("sliding_attention")
        windowed.check_only(_TYPE)
        if windowed.get("rope_type", "default") != "default":
            raise windowed.refuse("rope_type")
        local = windowed.number("rope_theta", data.number("rope_local_base_freq", 10_000.0))
    kind = str(settings.get("rope_type", settings.get("type", "default")))
    if family == "phi3" and kind in ("su", "yarn"):  # what LongRoPE was called before
        kind = "longrope"
    if kind not in _READ or (gemma and kind not in ("default", "linear")):
        raise settings.refuse("rope_type" if settings.get("rope_type") else "type")
    if settings is both:
        settings.check_only(_READ[kind] | _TYPE)
    else:
        both.check_only(("full_attention", "sliding_attention"))
        settings.check_only(_READ[kind] | _TYPE)
    share = settings.number("partial_rotary_factor", data.number("partial_rotary_factor", 1.0))
    if share != 1.0 and family != "phi3":
        raise data.refuse("partial_rotary_factor")
    scaling, factor, context = _scaling(kind, settings, data, context)
    return Rope(settings.number("rope_theta", data.number("rope_theta", theta)), local, scaling, share, factor, context)


def _scaling(kind: str, settings: Fields, data: Fields, context: int) -> tuple[RopeScaling | None, float, int]:
    """The stretching, what rotated queries and keys are multiplied by, and the context that can be served."""
    if kind in ("default", "dynamic"):
        return None, 1.0, context
    if kind == "linear":
        return RopeScaling("linear", factor=settings.number("factor")), 1.0, context
    original = data.count("original_max_position_embeddings", default=0)
    original = original or settings.count("original_max_position_embeddings", default=context)
    if kind == "llama3":
        low, high = settings.number("low_freq_factor"), settings.number("high_freq_factor")
        if high <= low:
            raise settings.wrong("high_freq_factor", "is not above low_freq_factor")
        factor = settings.number("factor")
        scaling = RopeScaling("llama3", factor, low_freq_factor=low, high_freq_factor=high, original_context=original)
        return scaling, 1.0, context
    factor = settings.number("factor", context / original)
    if factor <= 0:
        raise settings.wrong("factor", "is not above 0")
    if kind == "yarn":
        return _yarn(settings, factor, original), _yarn_factor(settings, factor), max(context, int(original * factor))
    settings.numbers("long_factor")
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1.0 else 1.0
    # The long factors would change what was already read once a text passes the original context, so texts end there.
    scaling = RopeScaling("factors", factors=settings.numbers("short_factor"))
    return scaling, settings.number("attention_factor", usual), min(context, original)


def _yarn(settings: Fields, factor: float, original: int) -> RopeScaling:
    return RopeScaling(
        "yarn",
        factor=factor,
        original_context=original,
        beta_fast=settings.number("beta_fast", 32.0),
        beta_slow=settings.number("beta_slow", 1.0),
        truncate=settings.flag("truncate", True),
    )


def _yarn_factor(settings: Fields, factor: float) -> float:
    given = settings.get("attention_factor")
    if given is not None:
        return settings.number("attention_factor")
    mscale, all_dims = settings.number("mscale", 0.0), settings.number("mscale_all_dim", 0.0)
    if mscale and all_dims:
        return yarn_attention_factor(factor, mscale) / yarn_attention_factor(factor, all_dims)
    return yarn_attention_factor(factor)
