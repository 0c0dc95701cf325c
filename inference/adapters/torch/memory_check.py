"""Whether a model fits into the memory that is free, by the arithmetic of `headrace plan`."""

from __future__ import annotations

import torch

from inference.adapters.free_memory import free_host_bytes
from inference.adapters.model_shape import read_shape
from inference.core.shape import ModelShape, SizingError
from inference.core.sizing import (
    DEVICE_OVERHEAD,
    GIB,
    HOST_OVERHEAD,
    WEIGHT_BYTES,
    Workload,
    need,
)
from inference.native import library as native

from .config import TorchEngineConfig
from .loading import ModelError, UnsupportedModel, read_config
from .native_model import check_shape


def check_memory(config: TorchEngineConfig) -> None:
    """Raise ValueError, with the sum, when what `config` asks for exceeds the free memory of its device."""
    free = free_bytes(config.device)
    wanted = wanted_bytes(config)
    if wanted is None or free is None or wanted <= free:
        return
    raise ValueError(
        f"model_path: {config.model_path.name} with kv_tokens {config.kv_tokens} needs about {wanted / GIB:.1f} GiB "
        f"and {free / GIB:.1f} GiB are free on {config.device}; lower kv_tokens, or choose a smaller precision or model"
    )


def wanted_bytes(config: TorchEngineConfig) -> int | None:
    """What loading would take; None for a model whose files do not say, which the loader refuses itself."""
    try:
        shape, stored = read_shape(config.model_path)
    except (SizingError, OSError):
        return None
    on_cpu = config.device == "cpu"
    weights = stored if config.precision == "auto" else config.precision
    in_torch = on_cpu and _in_torch(config)
    if in_torch and config.precision != "bfloat16":
        weights = "float32"
    if config.precision == "auto" and stored == "float32" and not on_cpu:
        weights = "bfloat16"
    # The cache of all sequences together is one long sequence's, as far as memory goes.
    load = Workload(
        context=config.kv_tokens,
        concurrency=1,
        weights=weights if weights in WEIGHT_BYTES else "bfloat16",
        kv=_kv_precision(config, in_torch),
        step_tokens=config.step_tokens,
    )
    return need(_without_windows(shape), load, HOST_OVERHEAD if on_cpu else DEVICE_OVERHEAD).total


def _in_torch(config: TorchEngineConfig) -> bool:
    """Whether plain torch would run the model on a CPU, in float32 unless bfloat16 is asked for."""
    if config.precision == "float32":
        return True
    try:
        native.load()
        check_shape(read_config(config.model_path))
    except (native.NativeUnavailable, UnsupportedModel):
        return True
    except ModelError:
        return False  # the loader refuses it
    return False


def _kv_precision(config: TorchEngineConfig, in_torch: bool) -> str:
    """How keys and values will be held."""
    if config.kv_precision != "auto":
        return config.kv_precision
    if config.device != "cpu":
        return "float32" if config.precision == "float32" else "bfloat16"
    if in_torch:
        return "bfloat16" if config.precision == "bfloat16" else "float32"
    return "float16"


def _without_windows(shape: ModelShape) -> ModelShape:
    """The paged cache keeps every position of windowed layers too."""
    fields = {name: getattr(shape, name) for name in shape.__slots__}
    return ModelShape(**(fields | {"windowed_layers": 0, "window": 0}))


def free_bytes(device: str) -> int | None:
    """Memory that can still be taken; None where nobody says."""
    if device != "cpu":
        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else None
    return free_host_bytes()
