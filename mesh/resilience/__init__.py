"""The one resilience stack: deadline, then load-shed, then retry budget, then the target's breaker, then the call.

pybreaker and tenacity sit behind this package and nowhere else. What ended a call is told in `mesh.errors.Outcome`:
only FAULT and MIDSTREAM_FAULT move a breaker, BACKPRESSURE steers traffic away for a while, CALLER_FAULT does neither.
"""

from mesh.resilience.breaker import Breaker, BreakerPolicy, Opinion, Permit, Position
from mesh.resilience.budget import RetryBudget, RetryPolicy, pauses
from mesh.resilience.guard import Guard, Guards
from mesh.resilience.shed import LoadShed
from mesh.resilience.stack import Stack

__all__ = [
    "Breaker",
    "BreakerPolicy",
    "Guard",
    "Guards",
    "LoadShed",
    "Opinion",
    "Permit",
    "Position",
    "RetryBudget",
    "RetryPolicy",
    "Stack",
    "pauses",
]
