"""`python -m inference plan MODEL`: what a model needs, which accelerators hold it, how fast it would be."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.adapters.model_shape import read_shape
from inference.core.gpus import GPUS, Placement, SizingPlan, alternatives, plan
from inference.core.sizing import BANDWIDTH_SHARE, GIB, KV_BYTES, WEIGHT_BYTES, SizingError, Workload

EX_DATA, EX_NO_FIT = 65, 1


def main(arguments: Sequence[str]) -> int:
    """Print a plan; 0 when it fits on the wanted accelerator or a split of it, 1 when not, 65 for an unusable MODEL."""
    wanted = _parser().parse_args(arguments)
    try:
        shape, precision = read_shape(wanted.model)
    except (SizingError, OSError) as error:
        print(f"{wanted.model.name}: {error}", file=sys.stderr)
        return EX_DATA
    load = Workload(wanted.context, wanted.concurrency, wanted.weights or precision, wanted.kv)
    if load.context > shape.context_length:
        print(f"warning: the model was made for {shape.context_length} tokens of context", file=sys.stderr)
    found = plan(shape, load, GPUS[wanted.gpu.lower()])
    others = alternatives(shape, load)
    print(json.dumps(_as_json(found, others)) if wanted.json else _as_text(wanted.model.name, found, others))
    return 0 if found.smallest is not None else EX_NO_FIT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace plan", description=__doc__)
    parser.add_argument("model", metavar="MODEL", type=Path, help="Hugging Face folder, config.json or GGUF file")
    parser.add_argument(
        "--gpu", default="L4", type=_gpu_name, help=f"one of {', '.join(g.name for g in GPUS.values())}"
    )
    parser.add_argument("--context", default=8192, type=_positive, help="tokens of prompt and answer (default 8192)")
    parser.add_argument("--concurrency", default=32, type=_positive, help="sequences at a time (default 32)")
    parser.add_argument("--weights", choices=sorted(WEIGHT_BYTES), help="default: as the model's file holds them")
    parser.add_argument("--kv", choices=sorted(KV_BYTES), default="bfloat16", help="KV cache (default bfloat16)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    return parser


def _gpu_name(text: str) -> str:
    if text.lower() not in GPUS:
        raise argparse.ArgumentTypeError(f"{text!r} is not known; one of {', '.join(g.name for g in GPUS.values())}")
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _placement(one: Placement) -> dict[str, Any]:
    return {
        "gpu": one.gpu.name,
        "devices": one.devices,
        "bytes_per_device": one.per_device,
        "memory_per_device": one.gpu.memory,
        "fits": one.fits,
        "tokens_per_second": round(one.tokens_per_second, 1),
        "most_concurrent": one.most_concurrent,
    }


def _as_json(found: SizingPlan, others: Sequence[Placement]) -> dict[str, Any]:
    need, load = found.need, found.load
    return {
        "parameters": found.shape.weights,
        "active_parameters": found.shape.active_weights,
        "weights": load.weights,
        "kv": load.kv,
        "context": load.context,
        "concurrency": load.concurrency,
        "bytes": {
            "weights": need.weights,
            "kv": need.kv,
            "activations": need.activations,
            "overhead": need.overhead,
            "total": need.total,
        },
        "fits": found.smallest is not None,
        "placements": [_placement(one) for one in found.placements],
        "alternatives": [_placement(one) for one in others],
    }


def _as_text(name: str, found: SizingPlan, others: Sequence[Placement]) -> str:
    need, load = found.need, found.load
    lines = [
        f"{name}: {found.shape.weights / 1e9:.2f} billion weights, {found.shape.active_weights / 1e9:.2f} used a token",
        f"{load.concurrency} sequences of {load.context} tokens, weights {load.weights}, KV cache {load.kv}",
        "",
    ]
    parts = ("weights", "kv", "activations", "overhead", "total")
    lines += [f"  {part:<12}{getattr(need, part) / GIB:10.2f} GiB" for part in parts]
    lines += ["", f"  {'':<14}{'each':>10}{'of':>10}   fits{'tok/s':>10}{'most at a time':>17}"]
    lines += [_row(one) for one in found.placements]
    lines += ["", "Smallest of each kind that fits:"]
    lines += [_row(one) for one in others] or ["  none"]
    share = f"{BANDWIDTH_SHARE:.0%}"
    lines.append(f"\ntok/s: expected while decoding, at {share} of the stated bandwidth and contexts half full.")
    return "\n".join(lines)


def _row(one: Placement) -> str:
    each, memory = one.per_device / GIB, one.gpu.memory / GIB
    label = f"{one.devices} x {one.gpu.name}"
    fits = "yes" if one.fits else "no"
    return f"  {label:<14}{each:10.2f}{memory:10.1f}{fits:>7}{one.tokens_per_second:10.0f}{one.most_concurrent:17}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
