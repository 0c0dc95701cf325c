"""What goes into the attempts of one request, decided before anybody is asked; and what they are opened for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2
from mesh.clock import Deadline
from router.core.attempt import Attempt, Cause
from router.core.catalog import Route, Timers
from router.core.decision_trace import DecisionTrace
from router.core.fleet import Candidate
from router.core.request_profile import RequestProfile
from router.core.strategies import Weighted


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """One request and the route that it takes."""

    message: router_pb2.GenerateRequest
    profile: RequestProfile
    route: Route
    scorers: Weighted
    timers: Timers
    deadline: Deadline
    trace: DecisionTrace
    # Ask for log probabilities although the caller did not; whoever passes the answer on strips them.
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a cut answer is continued from, and by whom."""

    # One entry for each choice, in order.
    emitted: tuple[generation_pb2.Generation.Emitted, ...]
    # How many tokens that is, all choices together; with text alone, an estimate.
    tokens: int
    suits: Callable[[Candidate], bool]
    # From its text alone, by whatever model can; not by its token ids.
    by_text: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """What an answer is opened for."""

    cause: Cause
    # The chain's first group that may be used.
    first_group: int = 0
    # Whether those who failed may be asked again once everybody was; not where a doubtful answer can be had instead.
    again: bool = True
    resumption: Resumption | None = None
    # Whether a message that only says how far the node is may be the first; not where another answer is in hand.
    tells_progress: bool = True


class Opened(NamedTuple):
    """An attempt that has its first message."""

    attempt: Attempt
    message: router_pb2.GenerateResponse


def only_progress(message: router_pb2.GenerateResponse) -> bool:
    """Whether a message says how far a node is, and carries nothing of an answer."""
    return not message.deltas and not message.HasField("summary")
