"""The llama.cpp engine's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from inference.adapters.model_files import SMOLLM2

Count = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class LlamaCppSettings:
    """HEADRACE_INFERENCE_* of the llama.cpp engine."""

    # A GGUF file; unset takes the SmolLM2 that `make setup` installed.
    model_path: Path | None = None
    # Hexadecimal; the file is refused if it is another. Required with model_path.
    model_sha256: str = ""
    threads: Count = 2
    # Requests in the batch. Each has context_length tokens of KV memory of its own, taken at the start.
    max_running: Count = 16
    max_queued: Annotated[int, msgspec.Meta(ge=0)] = 64
    context_length: Count = 2048
    # Prompt tokens per step; a request is cancelled, and others' tokens wait, for at most one step.
    prefill_step: Annotated[int, msgspec.Meta(ge=32)] = 64

    def __post_init__(self) -> None:
        if self.model_path is not None and not self.model_sha256:
            raise ValueError("MODEL_PATH needs MODEL_SHA256, the file's SHA-256")

    def model(self) -> tuple[str, Path, str]:
        """The model's name, its file, and the SHA-256 that the file must have. Raises ValueError."""
        if self.model_path is None:
            return SMOLLM2.name, SMOLLM2.path(), self.model_sha256 or SMOLLM2.sha256
        return self.model_path.stem, self.model_path, self.model_sha256
