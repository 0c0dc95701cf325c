"""The node's metrics, whatever engine it runs; the torch engine adds its own in adapters/torch/metrics.py."""

from __future__ import annotations

import time
from collections.abc import Callable

import prometheus_client

from headrace.inference.v1.inference_pb2 import GenerateResponse
from inference.core.port import EngineLoad

# Of the first token: from milliseconds to the minutes that a long prompt may wait; of others: a step and its multiples.
_FIRST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

_queued = prometheus_client.Gauge("headrace_inference_queued", "Generations that were admitted and wait.")
_running = prometheus_client.Gauge("headrace_inference_running", "Generations in the batch.")
_kv_used = prometheus_client.Gauge("headrace_inference_kv_used_ratio", "Share of KV memory in use, 0 to 1.")
_generations = prometheus_client.Counter(
    "headrace_inference_generations",
    "Generations that ended: 'finished', 'refused' (an error before anything came), 'failed', 'cancelled'.",
    ("outcome",),
)
_first_seconds = prometheus_client.Histogram(
    "headrace_inference_first_token_seconds",
    "Seconds from a generation's arrival at the node to its first token, waiting included.",
    buckets=_FIRST_BUCKETS,
)
_token_seconds = prometheus_client.Histogram(
    "headrace_inference_token_seconds",
    "Seconds a token after the first, one observation a generation.",
    buckets=_TOKEN_BUCKETS,
)
_prompt_tokens = prometheus_client.Counter(
    "headrace_inference_prompt_tokens",
    "Prompt tokens of generations that finished, by whether they were 'read' or found 'cached'.",
    ("source",),
)
_completion_tokens = prometheus_client.Counter(
    "headrace_inference_completion_tokens", "Tokens generated and given out, as they come."
)
_read, _cached = _prompt_tokens.labels(source="read"), _prompt_tokens.labels(source="cached")


def watch(load: Callable[[], EngineLoad]) -> None:
    """Show the load of this process's engine; asked for with each scrape."""
    _queued.set_function(lambda: load().queued)
    _running.set_function(lambda: load().running)
    _kv_used.set_function(lambda: load().kv_used)


class GenerationMetrics:
    """One generation's, from its arrival on. Call `ended` once, however it ends."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first = self._last = 0.0
        self._tokens = 0

    def sent(self, response: GenerateResponse) -> None:
        """A message is on its way."""
        if response.deltas:
            self._last = time.monotonic()
            if not self._first:
                self._first = self._last
                _first_seconds.observe(self._first - self._began)
            self._count(sum(len(delta.token_ids) for delta in response.deltas))
        if response.HasField("summary"):
            usage = response.summary.usage
            # Providers show no tokens and say at the end how many there were.
            self._count(max(0, usage.completion_tokens - self._tokens))
            _read.inc(max(0, usage.prompt_tokens - usage.cached_tokens))
            _cached.inc(usage.cached_tokens)

    def ended(self, outcome: str) -> None:
        """The generation is over."""
        if outcome == "failed" and not self._first:
            outcome = "refused"
        _generations.labels(outcome=outcome).inc()
        if self._tokens > 1:
            _token_seconds.observe((self._last - self._first) / (self._tokens - 1))

    def _count(self, tokens: int) -> None:
        self._tokens += tokens
        _completion_tokens.inc(tokens)
