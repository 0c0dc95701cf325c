"""`python -m inference plan MODEL`: what a model needs, which accelerators hold it, how fast it would be."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.adapters.model_shape import read_shape
from inference.core.gpus import GPUS, Placement, SizingPlan, Way, alternatives, cheaper_ways, plan
from inference.core.shape import SizingError
from inference.core.sizing import BANDWIDTH_SHARE, GIB, KV_BYTES, WEIGHT_BYTES, Workload

EX_DATA, EX_NO_FIT = 65, 1


def main(arguments: Sequence[str]) -> int:
    """Print a plan; 0 when it fits on the wanted accelerator or a split of it, 1 when not, 65 for an unusable MODEL."""
    wanted = _parser().parse_args(arguments)
    try:
        shape, precision = read_shape(wanted.model)
    except (SizingError, OSError) as error:
        print(f"{wanted.model}: {error}", file=sys.stderr)
        return EX_DATA
    gpu = GPUS[wanted.gpu.lower()]
    kv = wanted.kv or ("bfloat16" if gpu.bfloat16 else "float16")
    load = Workload(wanted.context, wanted.concurrency, wanted.weights or precision, kv)
    if load.context > shape.context_length:
        print(f"warning: the model was made for {shape.context_length} tokens of context", file=sys.stderr)
    found = plan(shape, load, gpu)
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
    parser.add_argument("--kv", choices=sorted(KV_BYTES), help="KV cache (default 16-bit floats of the GPU)")
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
        "obstacle": one.obstacle,
        "tokens_per_second": round(one.tokens_per_second, 1),
        "most_concurrent": one.max_concurrent,
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
        "cheaper": [{"options": _options(way, load)} | _placement(way.placement) for way in cheaper_ways(found)],
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
    lines += ["", f"  {'':<14}{'each GiB':>10}{'of':>8}{'tok/s':>9}{'most at a time':>16}"]
    lines += [_row(one) for one in found.placements]
    ways = cheaper_ways(found)
    if ways:
        lines += ["", f"On fewer {found.placements[0].gpu.name}:"]
        lines += [f"{_row(way.placement)}   {_options(way, load)}" for way in ways]
    lines += ["", "Smallest of each kind that fits:"]
    lines += [_row(one) for one in others] or ["  none"]
    share = f"{BANDWIDTH_SHARE:.0%}"
    lines.append(f"\ntok/s: expected while decoding, at {share} of the stated bandwidth and contexts half full.")
    lines.append("The torch engine runs on one device; a split needs an engine that has tensor parallelism.")
    return "\n".join(lines)


def _row(one: Placement) -> str:
    each, memory = one.per_device / GIB, one.gpu.memory / GIB
    row = f"  {f'{one.devices} x {one.gpu.name}':<14}{each:10.2f}{memory:8.1f}"
    if one.fits:
        return f"{row}{one.tokens_per_second:9.0f}{one.max_concurrent:16}"
    # What does not run has no pace.
    return _dim(f"{row}{'-':>9}{one.max_concurrent or '-':>16}   {one.obstacle}")


def _options(way: Way, load: Workload) -> str:
    """What to add to the command line."""
    names = ("weights", "kv", "concurrency")
    changed = [name for name in names if getattr(way.load, name) != getattr(load, name)]
    return " ".join(f"--{name} {getattr(way.load, name)}" for name in changed)


def _dim(text: str) -> str:
    return f"\033[2m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
