"""Loading a model into llama.cpp: the parameters, whether it fits, and llama.cpp's own words when it does not load.

The library says only that its server could not be started; why goes to standard error, where nothing of it may be
written while requests are served. So a model that does not load is loaded once more, in a process of its own that may.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import xllamacpp

from inference.adapters.free_memory import free_host_bytes
from inference.adapters.llamacpp.settings import LlamaCppSettings
from inference.adapters.model_shape import read_shape
from inference.core.shape import SizingError
from inference.core.sizing import GIB, HOST_OVERHEAD, kv_bytes

# Errors only, and not even those: anything more verbose prints prompts.
_SILENT, _ERRORS = -1, 1
_LONGEST_LOAD_S = 120.0
# "0.01.234.567 E srv  load_model: failed to load model": the time, the level, and what is kept.
_ERROR_LINE = re.compile(r"[\d.]+ E (.*)")
_MOST_LINES, _LONGEST_LINE = 4, 300


@dataclass(frozen=True, slots=True)
class Loading:
    """What llama.cpp is told to load."""

    path: str
    socket: str
    slots: int
    context: int
    batch: int
    threads: int

    @classmethod
    def of(cls, settings: LlamaCppSettings, path: Path, context_length: int, socket: str) -> Loading:
        """The model at `path` with `context_length` tokens in each slot."""
        slots = settings.max_running
        return cls(str(path), socket, slots, context_length * slots, settings.prefill_step, settings.threads)


def parameters(loading: Loading, verbosity: int = _SILENT) -> xllamacpp.CommonParams:
    """The library's own parameters."""
    params = xllamacpp.CommonParams()
    params.model.path = loading.path
    params.n_parallel = loading.slots
    params.n_ctx = loading.context
    params.n_batch = params.n_ubatch = loading.batch
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = loading.threads
    params.verbosity = verbosity
    # A pool of finished prompts in host memory would grow to gigabytes.
    params.cache_ram_mib = 0
    params.fit_params = False
    params.ui = False
    params.hostnames = [loading.socket]
    params.api_keys = [secrets.token_hex(16)]
    return params


def check_memory(settings: LlamaCppSettings, path: Path, context_length: int) -> None:
    """Raise ValueError, with the sum and the settings, where the model and its slots exceed the free memory."""
    try:
        shape, _ = read_shape(path)
    except SizingError:
        return  # not a file that can be planned for: llama.cpp will say whether it can be loaded
    cache = settings.max_running * kv_bytes(shape.kv_values(context_length), shape.cache_width, "float16")
    wanted, free = path.stat().st_size + cache + HOST_OVERHEAD, free_host_bytes()
    if wanted > free:
        raise ValueError(
            f"model_path: {path.name} needs about {wanted / GIB:.1f} GiB, {cache / GIB:.1f} of it for max_running "
            f"{settings.max_running} slots of context_length {context_length}, and {free / GIB:.1f} GiB are free; "
            "lower max_running or context_length, or choose a smaller model"
        )


def why_not(settings: LlamaCppSettings, path: Path, context_length: int) -> str:
    """Llama.cpp's words about a model that it does not load; empty where it has none. Takes up to `_LONGEST_LOAD_S`."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        loading = Loading.of(settings, path, context_length, f"{folder}/llama.sock")
        command = [sys.executable, "-m", "inference.adapters.llamacpp.loading", json.dumps(asdict(loading))]
        try:
            done = subprocess.run(  # noqa: S603 - our own module
                command, capture_output=True, text=True, errors="replace", timeout=_LONGEST_LOAD_S, check=False
            )
        except (subprocess.TimeoutExpired, OSError):
            return ""
    return errors_in(done.stdout + done.stderr)


def errors_in(printed: str) -> str:
    """The first errors of what llama.cpp printed, one after the other: the cause comes before what follows from it."""
    found = [
        " ".join(match[1].split())[:_LONGEST_LINE] for match in map(_ERROR_LINE.match, printed.splitlines()) if match
    ]
    return "; ".join(list(dict.fromkeys(found))[:_MOST_LINES])


if __name__ == "__main__":
    xllamacpp.Server(parameters(Loading(**json.loads(sys.argv[1])), _ERRORS))
