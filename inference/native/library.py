"""The built kernels, loaded with ctypes: declarations, and the checks that they fit this machine and these sources."""

from __future__ import annotations

import ctypes
import json
from ctypes import POINTER, c_char_p, c_float, c_int, c_int32, c_void_p
from pathlib import Path

from .build import LIBRARY, sources_hash


class NativeUnavailable(Exception):
    """The kernels cannot be used here; the message says why and what to do."""


class Config(ctypes.Structure):
    """A model's shape. Keep in step with Config in model.h."""

    _fields_ = [
        *((name, c_int32) for name in ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_size")),
        *((name, c_int32) for name in ("vocabulary", "blocks", "threads", "activation", "kv_kind")),
        *((name, c_float) for name in ("norm_eps", "embedding_scale", "attention_scale")),
        ("kernels", c_char_p),
    ]


class Batch(ctypes.Structure):
    """A step. Keep in step with Batch in model.h."""

    _fields_ = [
        *((name, c_int32) for name in ("tokens", "sequences", "table_width", "rows")),
        *((name, c_void_p) for name in ("token_ids", "positions", "query_starts")),
        *((name, c_void_p) for name in ("block_tables", "logits_rows", "adapter_ids")),
    ]


class Logits(ctypes.Structure):
    """Rows of logits and what may come in each. Keep in step with Logits in summary.h."""

    _fields_ = [("values", c_void_p), ("allowed", c_void_p), ("width", c_int32)]


class Summary(ctypes.Structure):
    """Where a summary of logits goes. Keep in step with Summary in summary.h."""

    _fields_ = [(name, c_void_p) for name in ("best", "best_logprob", "margin", "entropy", "logsumexp")]


class Candidates(ctypes.Structure):
    """Where the best tokens go. Keep in step with Candidates in summary.h."""

    _fields_ = [(name, c_void_p) for name in ("values", "tokens", "logsumexp")]


_FLOATS, _MODEL = c_void_p, c_void_p
_FUNCTIONS = {
    "hr_open": [POINTER(Config), POINTER(c_void_p)],
    "hr_set_codes": [_MODEL, c_int, c_int, c_int, c_int, c_int, c_void_p, _FLOATS, _FLOATS],
    "hr_set_bf16": [_MODEL, c_int, c_int, c_int, c_int, c_void_p],
    "hr_set_bias": [_MODEL, c_int, c_int, _FLOATS, c_int],
    "hr_set_norm": [_MODEL, c_int, c_int, _FLOATS, c_int],
    "hr_set_final_norm": [_MODEL, _FLOATS, c_int],
    "hr_set_rotation": [_MODEL, c_int, _FLOATS, c_int, c_int],
    "hr_forward": [_MODEL, POINTER(Batch), _FLOATS],
    "hr_summarize": [_MODEL, POINTER(Logits), c_int, POINTER(Summary)],
    "hr_candidates": [_MODEL, POINTER(Logits), c_void_p, _FLOATS, c_int, c_int, POINTER(Candidates)],
    "hr_attend": [_MODEL, POINTER(Batch), c_int, _FLOATS, _FLOATS, _FLOATS, _FLOATS],
    "hr_copy_block": [_MODEL, c_int, c_int],
    "hr_adapter_add": [_MODEL, c_int, c_int, c_int, c_int, _FLOATS, c_int, _FLOATS, c_int],
    "hr_adapter_remove": [_MODEL, c_int],
}


def load(path: Path = LIBRARY) -> ctypes.CDLL:
    """The library with its functions declared. Raises NativeUnavailable."""
    if not path.exists():
        raise NativeUnavailable("not built; with a C++ compiler installed, run python -m inference.native.build")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailable(f"cannot be loaded: {error}") from error
    library.hr_build.restype = c_char_p
    library.hr_error.restype = c_char_p
    built = json.loads(library.hr_build())
    if built["sources"] != sources_hash():
        raise NativeUnavailable("built from other sources; run python -m inference.native.build")
    library.hr_kernel_paths.restype = c_char_p
    if not kernel_paths(library):
        raise NativeUnavailable("this CPU has none of the instruction sets that there are kernels for (AVX2 and above)")
    for name, arguments in _FUNCTIONS.items():
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = c_int
    library.hr_close.argtypes = [_MODEL]
    library.hr_close.restype = None
    return library


def kernel_paths(library: ctypes.CDLL) -> tuple[str, ...]:
    """The kernels that this CPU can run, named by their instruction sets, the fastest first."""
    return tuple(json.loads(library.hr_kernel_paths()))
