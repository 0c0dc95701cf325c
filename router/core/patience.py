"""How long a candidate may be silent: less than its timers say where a request is in a hurry and has others to ask."""

from __future__ import annotations

from typing import Final

import msgspec

from mesh.clock import Deadline
from mesh.errors import MeshError
from router.core import progress
from router.core.attempt import Attempt
from router.core.catalog import Timers
from router.core.fleet import Candidate

# With others to turn to, no silence may use up more than this share of the time that is left.
_PATIENCE: Final = 0.5
# A silence cut short that way speaks against the candidate only when it was so many times its usual worst.
_TELLING: Final = 4.0


def timers_for(candidate: Candidate, usual: Timers, deadline: Deadline, *, others: bool) -> Timers:
    """The candidate's timers; shorter ones where `others` could be asked within the deadline."""
    timers = candidate.deployment.timers or usual
    limit = deadline.left() * _PATIENCE
    if limit >= timers.first_token_s or not others:
        return timers
    return msgspec.structs.replace(
        timers, first_token_s=max(limit, 1e-3), headers_s=max(min(timers.headers_s, limit), 1e-3)
    )


def speaks_against(attempt: Attempt, error: MeshError, usual: Timers) -> bool:
    """Whether an error says something about its candidate: not when only the caller's hurry or a queue made it one."""
    full = attempt.candidate.deployment.timers or usual
    if error.reason not in (progress.FIRST_TOKEN, progress.HEADERS):
        return True
    replica = attempt.candidate.replica
    if replica.queued and replica.tokens_per_second > 0.0:
        return False
    given = attempt.timers.first_token_s
    return given >= full.first_token_s or given >= _TELLING * attempt.candidate.ttft.p95 > 0.0
