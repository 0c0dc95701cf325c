"""The router's own metrics, beside those of every call."""

from __future__ import annotations

import prometheus_client

_attempts = prometheus_client.Counter(
    "headrace_router_attempts_total", "Attempts that ended.", ("deployment", "cause", "outcome")
)
_decisions = prometheus_client.Counter(
    "headrace_router_cascade_decisions_total", "Answers that a cascade judged.", ("model", "escalated")
)
_saved = prometheus_client.Counter(
    "headrace_router_cascade_saved_micro_usd_total",
    "Millionths of a US dollar that the last member's answers would have cost more.",
    ("model",),
)


class PrometheusMetrics:
    """Implements router.core.ports.Metrics."""

    def attempt(self, deployment: str, cause: str, outcome: str) -> None:
        """See Metrics."""
        _attempts.labels(deployment, cause, outcome).inc()

    def cascade(self, model: str, *, escalated: bool) -> None:
        """See Metrics."""
        _decisions.labels(model, str(escalated).lower()).inc()

    def cascade_saved(self, model: str, micro_usd: int) -> None:
        """See Metrics."""
        _saved.labels(model).inc(micro_usd)
