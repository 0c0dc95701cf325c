"""A checkpoint handed over to the native kernels: which precision each matrix gets, and the calls that do it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.native import library as native

from .loading import Checkpoint, ModelConfig, ModelError, UnsupportedModel
from .loading.weights import GROUP, Grouped, Weight, rounded
from .lora import PROJECTIONS, Lora

# The order of Projection and Norm in model.h; the embedding and the output layer come after the projections.
_PLACES = tuple(f"{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}" for name in PROJECTIONS)
_EMBEDDING, _HEAD = len(PROJECTIONS), len(PROJECTIONS) + 1
_LLAMA_NORMS = [(0, "input_layernorm"), (2, "post_attention_layernorm")]
_GEMMA_NORMS = (
    *("input_layernorm", "post_attention_layernorm"),
    *("pre_feedforward_layernorm", "post_feedforward_layernorm"),
)
_INT4, _INT8 = 0, 1
_KV_KINDS = {"float16": 0, "int8": 1}
_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1}
_LANES = 16


class NativeModel:
    """Owns the native model. Not for use from two threads at once, except that calls release the GIL."""

    def __init__(
        self,
        library: ctypes.CDLL,
        config: ModelConfig,
        num_blocks: int,
        threads: int,
        kv_precision: str,
        *,
        kernels: str = "auto",
    ) -> None:
        """Raises ModelError for `kernels` that this CPU cannot run; "auto" are the fastest that it can."""
        check_shape(config)
        paths = native.kernel_paths(library)
        if kernels not in ("auto", *paths):
            raise ModelError(f"cpu_kernels {kernels!r}: this CPU runs {', '.join(paths)}")
        self.kernels = paths[0] if kernels == "auto" else kernels
        self._library = library
        self._handle = ctypes.c_void_p()
        c = config
        shape = native.Config(
            *(c.layers, c.hidden, c.intermediate, c.heads, c.kv_heads, c.head_dim, c.vocab_size, num_blocks, threads),
            *(_ACTIVATIONS[c.activation], _KV_KINDS[kv_precision], c.norm_eps, c.embedding_scale, c.attention_scale),
            self.kernels.encode(),
        )
        self._check(library.hr_open(ctypes.byref(shape), ctypes.byref(self._handle)))

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the library on the model; arrays must be contiguous and of the declared type."""
        passed = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        self._check(getattr(self._library, function)(self._handle, *passed))

    def close(self) -> None:
        """Free everything. May be called twice."""
        if self._handle:
            self._library.hr_close(self._handle)
            self._handle = ctypes.c_void_p()

    def _check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(f"native kernels: {self._library.hr_error().decode()}")


def check_shape(config: ModelConfig) -> None:
    """Raises UnsupportedModel for what the kernels do not have or cannot fill their vectors with; torch runs it."""
    missing = config.only_in_torch()
    if missing is not None:
        raise UnsupportedModel(f"{config.name}: no native kernels for {missing}")
    widths = {
        "hidden size": (config.hidden, GROUP),
        "intermediate size": (config.intermediate, GROUP),
        "attention width": (config.heads * config.head_dim, GROUP),
        "half a head": (config.head_dim // 2, _LANES),
    }
    for name, (width, multiple) in widths.items():
        if width % multiple:
            raise UnsupportedModel(f"{config.name}: {name} {width} is not a multiple of {multiple}")


def fill(model: NativeModel, checkpoint: Checkpoint, precision: str) -> str:
    """Hand every weight over. Returns the precision of most of the layers' weights.

    "auto" keeps each matrix's own; files mix them.
    """
    config, weights = checkpoint.config, checkpoint.weights
    chosen = _stored_precision(weights["layers.0.mlp.up_proj.weight"]) if precision == "auto" else precision
    put = _matrix_writer(model, chosen, as_stored=precision == "auto")
    put(0, _EMBEDDING, weights["embed_tokens.weight"])
    if not config.tied:
        put(0, _HEAD, weights["lm_head.weight"])
    norm = _floats(weights["norm.weight"])
    model.call("hr_set_final_norm", norm, norm.size)
    for layer in range(config.layers):
        for number, place in enumerate(_PLACES):
            put(layer, number, weights[f"layers.{layer}.{place}.weight"])
            if f"layers.{layer}.{place}.bias" in weights:
                bias = _floats(weights[f"layers.{layer}.{place}.bias"])
                model.call("hr_set_bias", layer, number, bias, bias.size)
        for number, name in _norms(config):
            norm = _floats(weights[f"layers.{layer}.{name}.weight"])
            model.call("hr_set_norm", layer, number, norm, norm.size)
        frequencies = config.inverse_frequencies(layer)
        model.call("hr_set_rotation", layer, frequencies, frequencies.size, config.windows[layer])
    return chosen


def fill_adapter(model: NativeModel, slot: int, adapter: Lora) -> None:
    """Hand a LoRA adapter over."""
    for (layer, projection), pair in adapter.items():
        down, up = pair.down.numpy(), np.ascontiguousarray(pair.up.T.numpy())
        number = PROJECTIONS.index(projection)
        model.call("hr_adapter_add", slot, layer, number, len(down), down, down.size, up, up.size)


def _norms(config: ModelConfig) -> list[tuple[int, str]]:
    """(number in model.h, name) of the norms that a layer has."""
    named = list(enumerate(_GEMMA_NORMS)) if config.post_norms else _LLAMA_NORMS
    return named + ([(4, "self_attn.q_norm"), (5, "self_attn.k_norm")] if config.qk_norm else [])


def _stored_precision(weight: Weight) -> str:
    return f"int{weight.bits}" if weight.bits <= 8 else "bfloat16"


def _matrix_writer(model: NativeModel, precision: str, as_stored: bool) -> Callable[[int, int, Weight], None]:
    def put_bf16(layer: int, number: int, weight: Weight) -> None:
        dense = weight.dense().to(torch.bfloat16).contiguous()
        model.call("hr_set_bf16", layer, number, *dense.shape, dense.data_ptr())

    def put_codes(layer: int, number: int, weight: Weight) -> None:
        # The embedding and the output layer keep 8 bits: they are what low precision harms most.
        wanted = 8 if number >= _EMBEDDING else min(weight.bits, 8) if as_stored else bits
        grouped = _codes(weight, wanted)
        codes, scales, minimums = (np.ascontiguousarray(a) for a in (grouped.codes, grouped.scales, grouped.minimums))
        kind = _INT4 if grouped.bits == 4 else _INT8
        model.call("hr_set_codes", layer, number, kind, *codes.shape, codes, scales, minimums)

    if precision == "bfloat16":
        return put_bf16
    if precision not in ("int4", "int8"):
        raise ModelError(f"precision {precision!r}; the native kernels have bfloat16, int8 and int4")
    bits = int(precision.removeprefix("int"))
    return put_codes


def _codes(weight: Weight, bits: int) -> Grouped:
    """The file's own codes where they have no more bits than wanted; else rounded from its values."""
    grouped = weight.grouped()
    if grouped is not None and grouped.bits <= bits:
        return grouped
    return rounded(weight, bits)


def _floats(weight: Weight) -> NDArray[np.float32]:
    values: NDArray[np.float32] = weight.dense().float().contiguous().numpy()
    return values
