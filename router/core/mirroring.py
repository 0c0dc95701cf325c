"""Requests that are sent a second time and whose answers nobody sees: shadows, and probes of what may be well again."""

from __future__ import annotations

import random
from typing import Final

from headrace.inference.v1 import inference_pb2
from headrace.router.v1 import router_pb2
from mesh.clock import Clock, Deadline
from mesh.errors import MeshError, Outcome
from mesh.tasks import TaskSet
from router.core.attempt import SHADOW, Attempt, label_of
from router.core.catalog import Timers
from router.core.fleet import Candidate
from router.core.ports import Metrics, Nodes

_MAX: Final = 64
# A probe has to show that tokens come, not what they say.
_PROBE_TOKENS: Final = 4
_MAX_S: Final = 120.0
# What probes are counted as; they are nobody's attempts, and so not disclosed.
PROBE: Final = "probe"


class Mirrors:
    """Mirrored requests under way, at most 64; more are left out. They never delay or fail anybody's answer."""

    def __init__(self, nodes: Nodes, metrics: Metrics, clock: Clock, chance: random.Random) -> None:
        self._nodes = nodes
        self._metrics = metrics
        self._clock = clock
        self._chance = chance
        self._tasks = TaskSet()

    def shadow(self, candidate: Candidate, request: router_pb2.GenerateRequest, timers: Timers, percent: float) -> None:
        """Send a share of the requests to a candidate as well."""
        if self._chance.random() * 100.0 < percent:
            copy = inference_pb2.GenerateRequest(context=request.context, generation=request.generation)
            copy.generation.model = candidate.deployment.model
            copy.generation.adapter = candidate.deployment.adapter or copy.generation.adapter
            self._mirror(candidate, copy, timers, label_of(SHADOW))

    def probe(self, candidate: Candidate, request: inference_pb2.GenerateRequest, timers: Timers) -> None:
        """See whether a candidate whose breaker is due answers again, by a few tokens of a real request."""
        copy = inference_pb2.GenerateRequest()
        copy.CopyFrom(request)
        copy.generation.model = candidate.deployment.model
        copy.generation.adapter = candidate.deployment.adapter or copy.generation.adapter
        copy.generation.sampling.max_tokens = _PROBE_TOKENS
        del copy.generation.resume[:]
        self._mirror(candidate, copy, timers, PROBE)

    async def close(self) -> None:
        """End all."""
        await self._tasks.close()

    def _mirror(self, candidate: Candidate, request: inference_pb2.GenerateRequest, timers: Timers, label: str) -> None:
        if len(self._tasks) >= _MAX:
            return
        try:
            permit = candidate.endpoint.admit()
        except MeshError:
            return
        stream = self._nodes.open(candidate, request, timers, Deadline(_MAX_S, self._clock))
        attempt = Attempt(candidate, 0, SHADOW, permit, stream, clock=self._clock, timers=timers)
        self._tasks.start(f"{label}:{candidate.key}", self._drain(attempt, label))

    async def _drain(self, attempt: Attempt, label: str) -> None:
        outcome = Outcome.OK.name
        try:
            message = await attempt.read()
            while not message.HasField("summary"):
                message = await attempt.read()
            attempt.succeed()
            attempt.finish()
        except MeshError as error:
            outcome = error.outcome.name
            attempt.fail(error, 0, counts=True)
        finally:
            attempt.abandon("CANCELLED", 0)
        self._metrics.attempt(attempt.candidate.deployment.name, label, outcome)
