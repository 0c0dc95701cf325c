"""Accelerators that models are planned for: memory as their drivers report it, bandwidth as their makers state it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.core.sizing import GIB, SPLIT_SHARE, USABLE_MEMORY, ModelShape, Need, Workload, need, tokens_per_second


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device; bytes, and bytes a second. `fp8`: whether it multiplies FP8 itself."""

    name: str
    memory: int
    bandwidth: float
    fp8: bool = False


def _gpu(name: str, gib: float, gigabytes_s: float, *, fp8: bool = False) -> Gpu:
    return Gpu(name, int(gib * GIB), gigabytes_s * 1e9, fp8)


GPUS: Mapping[str, Gpu] = {
    gpu.name.lower(): gpu
    for gpu in (
        _gpu("T4", 15, 320),
        _gpu("V100-32", 32, 900),
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
    """A number of equal devices, what each would hold, and the pace to expect."""

    gpu: Gpu
    devices: int
    per_device: int
    fits: bool
    tokens_per_second: float
    # The most sequences of the full context that would fit.
    most_concurrent: int


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
    each = wanted.per_device(devices)
    usable = gpu.memory * USABLE_MEMORY
    spare = (usable - wanted.overhead - wanted.activations) * devices - wanted.weights
    one = wanted.kv / load.concurrency
    # A split needs whole heads on each device.
    splits = shape.heads % devices == 0
    runs = load.weights != "fp8" or gpu.fp8
    pace = tokens_per_second(shape, load, gpu.bandwidth, devices)
    return Placement(gpu, devices, each, each <= usable and splits and runs, pace, max(0, int(spare // one)))


def plan(shape: ModelShape, load: Workload, gpu: Gpu) -> SizingPlan:
    """The workload on one, two, four and eight of `gpu`."""
    return SizingPlan(shape, load, need(shape, load), tuple(place(shape, load, gpu, n) for n in SPLIT_SHARE))


def alternatives(shape: ModelShape, load: Workload) -> tuple[Placement, ...]:
    """For every kind of device the smallest split that fits, the ones with least memory in all first."""
    found = [plan(shape, load, gpu).smallest for gpu in GPUS.values()]
    fitting = [placement for placement in found if placement is not None]
    return tuple(sorted(fitting, key=lambda p: (p.devices * p.gpu.memory, p.devices)))
