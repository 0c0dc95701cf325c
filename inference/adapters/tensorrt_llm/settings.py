"""The TensorRT-LLM engine's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TensorRtLlmSettings:
    """Sizes are in tokens or sequences. Raises ValueError for what cannot go together."""

    # A Hugging Face folder; TensorRT-LLM reads its weights, and the node its tokenizer and template.
    model_path: Path
    # What one sequence may hold, prompt and answer.
    context_length: int = 8192
    max_running: int = 64
    max_queued: int = 256
    # The most tokens that one step runs.
    step_tokens: int = 8192
    tensor_parallel: int = 1
    # KV memory: this many tokens, or this share of what the weights leave free, whichever is less.
    kv_tokens: int | None = None
    kv_share: float = 0.9
    kv_precision: Literal["auto", "fp8"] = "auto"
    prefix_cache: bool = True
    # "prompt_lookup" guesses from the text itself; "draft" with the model at `draft_path`.
    speculation: Literal["off", "prompt_lookup", "draft"] = "off"
    draft_path: Path | None = None
    draft_tokens: int = 4

    def __post_init__(self) -> None:
        if (self.speculation == "draft") != (self.draft_path is not None):
            raise ValueError("draft_path belongs to speculation 'draft', and only to it")
        if min(self.max_running, self.tensor_parallel, self.draft_tokens) < 1 or self.max_queued < 0:
            raise ValueError("max_running, tensor_parallel and draft_tokens must be at least 1, max_queued 0")
        if self.context_length < 2 or self.step_tokens < self.max_running:
            raise ValueError("context_length must be at least 2, and step_tokens at least max_running")
        if not 0 < self.kv_share <= 1:
            raise ValueError(f"kv_share must be above 0 and at most 1, not {self.kv_share}")
