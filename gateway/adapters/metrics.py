"""The gateway's own metrics, beside those of every gRPC call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import prometheus_client

from gateway.core.request_usage import RequestUsage

# From half a millisecond, the gateway's own share, to the longest generations.
_BUCKETS = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600),
)
_http_seconds = prometheus_client.Histogram(
    "headrace_http_seconds",
    "Duration of HTTP requests in seconds; what the router took of it is headrace_rpc_seconds with side='client'.",
    ("route", "status"),
    buckets=_BUCKETS,
)
_first_seconds = prometheus_client.Histogram(
    "headrace_gateway_first_token_seconds",
    "From asking the router to its first message, in seconds.",
    ("front",),
    buckets=_BUCKETS,
)
_tokens = prometheus_client.Counter(
    "headrace_gateway_tokens_total", "Tokens of answers, also of those that were given up.", ("tenant", "kind")
)
_inflight = prometheus_client.Gauge("headrace_gateway_inflight", "Generations under way.")


def watch_inflight(count: Callable[[], float]) -> None:
    """Show the generations under way."""
    _inflight.set_function(count)


class Meter:
    """Counts the requests of one front. Label children are kept: looking them up costs more than counting."""

    def __init__(self, asgi_app: str) -> None:
        self._first = _first_seconds.labels(asgi_app)
        self._seconds: dict[tuple[str, int], Any] = {}
        self._tenants: dict[str, tuple[Any, Any, Any]] = {}

    def http(self, route: str, status: int, seconds: float) -> None:
        """An HTTP request has ended."""
        child = self._seconds.get((route, status))
        if child is None:
            child = self._seconds[route, status] = _http_seconds.labels(route, status)
        child.observe(seconds)

    def generation(self, tenant: str, usage_totals: RequestUsage) -> None:
        """A generation has ended, well or not."""
        if usage_totals.first_s is not None:
            self._first.observe(usage_totals.first_s)
        children = self._tenants.get(tenant)
        if children is None:
            kinds = ("prompt", "completion", "cached")
            first, second, third = (_tokens.labels(tenant, kind) for kind in kinds)
            children = self._tenants[tenant] = first, second, third
        prompt, completion, cached = children
        usage = usage_totals.settled
        prompt.inc(usage.prompt_tokens)
        completion.inc(usage.completion_tokens)
        cached.inc(usage.cached_tokens)
