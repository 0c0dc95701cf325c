"""The torch engine's metrics: its steps, and its KV memory."""

from __future__ import annotations

import prometheus_client

from inference.core.blocks import PoolCounts

_STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)

_step_seconds = prometheus_client.Histogram(
    "headrace_inference_step_seconds",
    "Seconds a step of the torch engine, by whether it read prompts ('prefill') or answered only ('decode').",
    ("kind",),
    buckets=_STEP_BUCKETS,
)
_step_tokens = prometheus_client.Counter(
    "headrace_inference_step_tokens",
    "Tokens that steps ran, by kind: 'prefill' of prompts and of what is computed again, 'decode' of answers.",
    ("kind",),
)
_preemptions = prometheus_client.Counter(
    "headrace_inference_preemptions", "Sequences that gave their KV memory back and are computed again."
)
_prefix_blocks = prometheus_client.Counter(
    "headrace_inference_prefix_blocks",
    "Blocks of 16 prompt tokens looked up in the prompt cache, by whether they were there.",
    ("hit",),
)
_seconds = {kind: _step_seconds.labels(kind=kind) for kind in ("prefill", "decode")}
_tokens = {kind: _step_tokens.labels(kind=kind) for kind in ("prefill", "decode")}
_hit, _missed = _prefix_blocks.labels(hit="true"), _prefix_blocks.labels(hit="false")


class StepMetrics:
    """Counts on the engine's thread; what the scheduler counts itself is carried over after each step."""

    def __init__(self) -> None:
        self._preemptions = self._hits = self._misses = 0

    def step(self, prefill: int, decode: int, seconds: float) -> None:
        """A step ran so many tokens of prompts and of answers."""
        _seconds["prefill" if prefill else "decode"].observe(seconds)
        _tokens["decode"].inc(decode)
        if prefill:
            _tokens["prefill"].inc(prefill)

    def memory(self, preemptions: int, counts: PoolCounts) -> None:
        """Totals since the start."""
        _preemptions.inc(preemptions - self._preemptions)
        _hit.inc(counts.hit_blocks - self._hits)
        _missed.inc(counts.missed_blocks - self._misses)
        self._preemptions, self._hits, self._misses = preemptions, counts.hit_blocks, counts.missed_blocks
