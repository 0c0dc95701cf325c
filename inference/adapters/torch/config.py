"""The torch engine's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .runner import KV_PRECISIONS, CpuKernels, KvPrecision, Precision


@dataclass(frozen=True, kw_only=True)
class TorchEngineConfig:
    """Sizes are in tokens, sequences or threads. Raises ValueError for what cannot go together."""

    # A GGUF file or a Hugging Face folder, and the SHA-256 it must have (see loading.checkpoint for a folder's).
    model_path: Path
    model_sha256: str | None = None
    device: str = "cpu"
    precision: Precision = "auto"
    # "int8" halves KV memory on CPUs, "fp8" on CUDA.
    kv_precision: KvPrecision = "auto"
    threads: int = 2
    # Which of the CPU kernels to run, for tests and comparisons; "auto": the fastest that the CPU has instructions for.
    cpu_kernels: CpuKernels = "auto"
    # What one sequence may hold, prompt and answer; None: all that the model was made for.
    context_length: int | None = None
    # What all sequences together may hold in KV memory.
    kv_tokens: int = 16384
    max_running: int = 64
    max_queued: int = 256
    # The most tokens that one step runs, and the milliseconds that it is to take while answers run: smaller keeps their
    # pace while prompts are read, larger reads prompts a little faster.
    step_tokens: int = 512
    step_ms: float = 80.0
    prefix_cache: bool = True
    # "prompt_lookup" guesses from the text itself; "draft" with the model at `draft_path`.
    speculation: Literal["off", "prompt_lookup", "draft"] = "off"
    draft_path: Path | None = None
    draft_sha256: str | None = None
    # LoRA adapters in folders below this one are loaded at start, and only such may be loaded later.
    adapter_folder: Path | None = None

    def __post_init__(self) -> None:
        if (self.speculation == "draft") != (self.draft_path is not None):
            raise ValueError("draft_path belongs to speculation 'draft', and only to it")
        allowed = KV_PRECISIONS.get(self.device.partition(":")[0], ("auto",))
        if self.kv_precision not in allowed:
            raise ValueError(f"kv_precision {self.kv_precision!r}: {self.device} has {', '.join(allowed)}")
        if self.step_tokens <= self.max_running:
            raise ValueError(f"step_tokens {self.step_tokens} must exceed max_running {self.max_running}")
        if not self.step_ms > 0:
            raise ValueError(f"step_ms {self.step_ms:g} must be above 0")
        if self.kv_tokens < 64 or self.max_running < 1 or self.max_queued < 0 or self.threads < 1:
            raise ValueError("kv_tokens must be at least 64, max_running and threads 1, max_queued 0")
