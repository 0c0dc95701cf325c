"""Which runner serves a model: the device seam. Native kernels on a CPU that has them, plain torch elsewhere."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
import torch

from inference.native import library as native

from .loading import Checkpoint, ModelError, UnsupportedModel, load_checkpoint
from .native_model import check_shape
from .native_runner import NativeRunner
from .runner_api import ModelRunner
from .torch_runner import TorchRunner

Precision = Literal["auto", "float32", "bfloat16", "fp8", "int8", "int4"]
KvPrecision = Literal["auto", "fp8", "int8"]
CpuKernels = Literal["auto", "amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2"]
# What each kind of device holds keys and values in; "auto" is as the weights compute, float16 in the native kernels.
KV_PRECISIONS: Mapping[str, tuple[KvPrecision, ...]] = {"cpu": ("auto", "int8"), "cuda": ("auto", "fp8")}

# Ampere; T4 and V100 came before.
_FIRST_WITH_BFLOAT16 = (8, 0)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """What to load and how. `precision` "auto" keeps what the file stores, as near as the device's kernels can."""

    path: Path
    sha256: str | None = None
    device: str = "cpu"
    precision: Precision = "auto"
    # One of the device's KV_PRECISIONS.
    kv_precision: KvPrecision = "auto"
    # KV memory, in blocks of 16 tokens.
    num_blocks: int = 1024
    threads: int = 2
    # Which of the CPU kernels to run; "auto": the fastest that this CPU can.
    cpu_kernels: CpuKernels = "auto"


def build_runner(options: RunnerOptions) -> ModelRunner:
    """Load a model. Takes seconds. Raises ModelError when the files are not a model that can be served."""
    device = torch.device(options.device)
    _check_floats(device, options)
    checkpoint = load_checkpoint(options.path, options.sha256)
    if options.kv_precision not in KV_PRECISIONS.get(device.type, ("auto",)):
        raise ModelError(f"kv_precision {options.kv_precision!r} is not for {device.type}")
    if device.type == "cpu":
        library = None if options.precision == "float32" else _kernels(checkpoint, options.cpu_kernels)
        # The native kernels bring their own threads; torch's, waiting for work beside them, would take their cores.
        torch.set_num_threads(1 if library is not None else options.threads)
        if library is not None:
            return _native_runner(library, checkpoint, options)
    if device.type == "cuda":
        runner = _cuda_runner(checkpoint, device, options)
        if runner is not None:
            return runner
    if "fp8" in (options.precision, options.kv_precision):
        raise ModelError(f"fp8 needs the CUDA kernels, which do not run {checkpoint.config.name!r} on {device.type}")
    dtype = _torch_dtype(device, options.precision)
    return TorchRunner(checkpoint, device, dtype, options.num_blocks, kv_precision=options.kv_precision)


def _check_floats(device: torch.device, options: RunnerOptions) -> None:
    """Raise ModelError for a card that would have to emulate the numbers that everything but float32 computes in."""
    if device.type != "cuda" or options.precision == "float32" or not torch.cuda.is_available():
        return
    if torch.cuda.get_device_capability(device) < _FIRST_WITH_BFLOAT16:
        card = torch.cuda.get_device_name(device)
        raise ModelError(
            f"device {options.device}: {card} has no bfloat16, which precision {options.precision!r} needs"
        )


def _cuda_runner(checkpoint: Checkpoint, device: torch.device, options: RunnerOptions) -> ModelRunner | None:
    """Triton's kernels, or None where they do not have the model or Triton is not installed."""
    try:
        from .cuda.runner import CudaRunner  # noqa: PLC0415 - Triton comes with torch's CUDA builds alone

        precision, kv_precision = options.precision, options.kv_precision
        return CudaRunner(checkpoint, device, precision, options.num_blocks, kv_precision=kv_precision)
    except (ImportError, UnsupportedModel) as error:
        _log.warning("engine.cuda_kernels_not_used", reason=str(error), instead="plain torch, slower")
        return None


def _native_runner(library: ctypes.CDLL, checkpoint: Checkpoint, options: RunnerOptions) -> NativeRunner:
    runner = NativeRunner(
        *(library, checkpoint, options.precision, options.num_blocks, options.threads),
        kv_precision=options.kv_precision,
        kernels=options.cpu_kernels,
    )
    _log.info("engine.native_kernels", kernels=runner.kernels, others=native.kernel_paths(library))
    return runner


def _kernels(checkpoint: Checkpoint, wanted: CpuKernels) -> ctypes.CDLL | None:
    try:
        check_shape(checkpoint.config)
        return native.load()
    except (native.NativeUnavailable, UnsupportedModel) as error:
        if wanted != "auto":
            raise ModelError(f"cpu_kernels {wanted!r} cannot be used: {error}") from error
        _log.warning("engine.native_kernels_not_used", reason=str(error), instead="plain torch, slower")
        return None


def _torch_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """Without native kernels: what is fast on the device, unless a float type was asked for."""
    if precision in ("float32", "bfloat16"):
        return torch.float32 if precision == "float32" else torch.bfloat16
    return torch.float32 if device.type == "cpu" else torch.bfloat16
