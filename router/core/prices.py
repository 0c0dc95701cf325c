"""What answers cost, in millionths of a US dollar. A price in dollars per million tokens is that for one token."""

from __future__ import annotations

from headrace.common.v1 import generation_pb2
from router.core.catalog import Price
from router.core.request_profile import RequestProfile


def cost_of(price: Price, usage: generation_pb2.Usage) -> int:
    """The cost of what was used, rounded up to a whole millionth of a dollar."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    total = (usage.prompt_tokens - cached) * price.input + usage.completion_tokens * price.output
    total += cached * (price.input if price.cached is None else price.cached)
    return -int(-total // 1)


def estimate(price: Price, profile: RequestProfile) -> float:
    """What a request may cost at least: its prompt, and all that it may produce, or one token where it does not say."""
    return profile.prompt_tokens * price.input + profile.choices * max(1, profile.max_tokens) * price.output


def affordable(price: Price, profile: RequestProfile, budget: float) -> int | None:
    """How many tokens each choice may produce within the budget; None: as many as it likes."""
    if price.output <= 0:
        return None
    return max(1, int((budget - profile.prompt_tokens * price.input) / (price.output * profile.choices)))
