"""Accelerators that models are planned for: memory as their drivers report it, bandwidth as their makers state it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from inference.core.shape import ModelShape
from inference.core.sizing import GIB, SPLIT_SHARE, USABLE_MEMORY, Need, Workload, need, tokens_per_second


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device; bytes, and bytes a second. `fp8` and `bfloat16`: whether it multiplies these itself."""

    name: str
    memory: int
    bandwidth: float
    fp8: bool = False
    bfloat16: bool = True

    def lacks(self, load: Workload) -> tuple[str, ...]:
        """The kinds of numbers that `load` asks for and this device does not compute with."""
        asked = {load.weights, load.kv}
        has = {"fp8": self.fp8, "bfloat16": self.bfloat16}
        return tuple(kind for kind, there in has.items() if kind in asked and not there)


def _gpu(name: str, gib: float, gigabytes_s: float, *, fp8: bool = False, bfloat16: bool = True) -> Gpu:
    return Gpu(name, int(gib * GIB), gigabytes_s * 1e9, fp8, bfloat16)


GPUS: Mapping[str, Gpu] = {
    gpu.name.lower(): gpu
    for gpu in (
        _gpu("T4", 15, 320, bfloat16=False),
        _gpu("V100-32", 32, 900, bfloat16=False),
        _gpu("A10G", 22.5, 600),
        _gpu("L4", 22.5, 300, fp8=True),
        _gpu("L40S", 45, 864, fp8=True),
        _gpu("RTX4090", 24, 1008, fp8=True),
        _gpu("A100-40", 40, 1555),
        _gpu("A100-80", 80, 2039),
        _gpu("H100", 79.6, 3350, fp8=True),
        _gpu("H200", 140.4, 4800, fp8=True),
        _gpu("B200", 178, 8000, fp8=True),
    )
}


@dataclass(frozen=True, slots=True)
class Placement:
    """A number of equal devices, what each would hold in bytes, and the pace to expect in tokens a second."""

    gpu: Gpu
    devices: int
    per_device: int
    # Why it can not run there, in a few words; empty where it can.
    obstacle: str
    tokens_per_second: float
    # The most sequences of the full context that would fit.
    max_concurrent: int

    @property
    def fits(self) -> bool:
        """Whether the workload can run there."""
        return not self.obstacle


@dataclass(frozen=True, slots=True)
class SizingPlan:
    """What a workload needs and where it could run, the wanted device's splits first."""

    shape: ModelShape
    load: Workload
    need: Need
    placements: tuple[Placement, ...]

    @property
    def smallest(self) -> Placement | None:
        """The split with the fewest devices of the wanted kind that fits."""
        return next((placement for placement in self.placements if placement.fits), None)


def place(shape: ModelShape, load: Workload, gpu: Gpu, devices: int) -> Placement:
    """Put a workload on `devices` of a kind that split heads and feed-forward between them."""
    wanted = need(shape, load)
    # With more devices than key heads, or a latent cache, some hold the same head, and its cache, as another.
    kv_share = 1 / min(devices, shape.cache_heads)
    each = math.ceil(wanted.weights / devices + wanted.kv * kv_share) + wanted.activations + wanted.overhead
    usable = gpu.memory * USABLE_MEMORY
    spare = usable - wanted.overhead - wanted.activations - wanted.weights / devices
    maximum = max(0, int(spare / (wanted.kv / load.concurrency * kv_share)))
    pace = tokens_per_second(shape, load, gpu.bandwidth, devices)
    return Placement(gpu, devices, each, _obstacle(shape, load, gpu, devices, each > usable), pace, maximum)


def _obstacle(shape: ModelShape, load: Workload, gpu: Gpu, devices: int, too_large: bool) -> str:
    lacking = gpu.lacks(load)
    if lacking:
        return f"multiplies no {lacking[0]}" + ("; ask for float16" if lacking[0] == "bfloat16" else "")
    if shape.heads % devices:
        return f"{shape.heads} heads do not split in {devices}"
    return "too little memory" if too_large else ""


def plan(shape: ModelShape, load: Workload, gpu: Gpu) -> SizingPlan:
    """The workload on one, two, four and eight of `gpu`."""
    return SizingPlan(shape, load, need(shape, load), tuple(place(shape, load, gpu, n) for n in SPLIT_SHARE))


def alternatives(shape: ModelShape, load: Workload) -> tuple[Placement, ...]:
    """For every kind of device the smallest split that fits, the ones with least memory in all first."""
    found = [plan(shape, load, gpu).smallest for gpu in GPUS.values()]
    fitting = [placement for placement in found if placement is not None]
    return tuple(sorted(fitting, key=lambda p: (p.devices * p.gpu.memory, p.devices)))


@dataclass(frozen=True, slots=True)
class Way:
    """A workload that asks for less, and the fewest devices of the wanted kind that hold it."""

    load: Workload
    placement: Placement


def cheaper_ways(found: SizingPlan) -> tuple[Way, ...]:
    """What to give up for fewer devices of the wanted kind, a single one at best; the least loss first.

    Float16 where the device has no bfloat16, an 8-bit cache, weights of 8 and of 4 bits, both together, then fewer
    sequences. Each is named only where it needs fewer devices than all before it.
    """
    shape, load = found.shape, found.load
    gpu = found.placements[0].gpu
    load = _as_float16(load) if gpu.lacks(load) == ("bfloat16",) else load
    small_kv = replace(load, kv="fp8" if gpu.fp8 else "int8")
    eight_bits = "fp8" if gpu.fp8 else "int8"
    tried = [load, small_kv, *(replace(kept, weights=w) for w in (eight_bits, "int4") for kept in (load, small_kv))]
    tried += [replace(load, concurrency=place(shape, load, gpu, n).max_concurrent) for n in sorted(SPLIT_SHARE)[::-1]]
    fewest = found.smallest.devices if found.smallest is not None else max(SPLIT_SHARE) + 1
    ways: list[Way] = []
    for less in tried:
        if less.concurrency < 1 or less == found.load or need(shape, less).total > found.need.total:
            continue
        placement = plan(shape, less, gpu).smallest
        if placement is not None and placement.devices < fewest:
            ways.append(Way(less, placement))
            fewest = placement.devices
    return tuple(ways)


def _as_float16(load: Workload) -> Workload:
    """The load with float16 wherever it has bfloat16: as many bytes, a smaller range."""
    weights, kv = ("float16" if kind == "bfloat16" else kind for kind in (load.weights, load.kv))
    return replace(load, weights=weights, kv=kv)
