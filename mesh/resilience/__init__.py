"""The one resilience stack: deadline, then load-shed, then retry budget, then the target's breaker, then the call.

pybreaker and tenacity sit behind this package and nowhere else. What ended a call is told in `mesh.errors.Outcome`:
only FAULT and MIDSTREAM_FAULT move a breaker, BACKPRESSURE steers traffic away for a while, CALLER_FAULT does neither.
"""

from mesh.resilience.breaker import Breaker, BreakerOpen, BreakerPolicy, BreakerSnapshot, BreakerState, Permit
from mesh.resilience.budget import RetryBudget, RetryBudgets, RetryPolicy, pauses
from mesh.resilience.endpoint import Endpoint, Endpoints
from mesh.resilience.shed import LoadShed
from mesh.resilience.stack import ResilienceStack

__all__ = [
    "Breaker",
    "BreakerOpen",
    "BreakerPolicy",
    "BreakerSnapshot",
    "BreakerState",
    "Endpoint",
    "Endpoints",
    "LoadShed",
    "Permit",
    "ResilienceStack",
    "RetryBudget",
    "RetryBudgets",
    "RetryPolicy",
    "pauses",
]
