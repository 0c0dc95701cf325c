"""The router's state as the contract shows it."""

from __future__ import annotations

from headrace.router.v1 import router_pb2
from mesh.clock import Clock
from mesh.resilience import BreakerState
from router.core.catalog import Deployment
from router.core.fleet import Candidate
from router.core.router import Router


def state_of(router: Router, clock: Clock) -> router_pb2.GetStateResponse:
    """Deployments, replicas, breakers and load."""
    now = clock.monotonic()
    response = router_pb2.GetStateResponse(config_version=router.routing.version, config_error=router.refused)
    for deployment in router.routing.catalog.deployments:
        candidates = router.fleet.candidates(deployment.name)
        entry = response.deployments.add(
            name=deployment.name, service=deployment.service, model=deployment.model, breaker=_breaker(candidates)
        )
        busy = min((c.endpoint.busy_until - now for c in candidates), default=0.0)
        if busy > 0:
            entry.backpressure_left.FromNanoseconds(int(busy * 1e9))
        ttft_p95 = max((c.ttft.p95 for c in candidates), default=0.0)
        entry.ttft_p95_seconds = ttft_p95
        entry.ttft_p95.FromNanoseconds(int(ttft_p95 * 1e9))
        for candidate in candidates:
            _add_replica(entry, candidate)
    return response


def models_of(router: Router) -> router_pb2.ListModelsResponse:
    """The public names, in the file's order."""
    response = router_pb2.ListModelsResponse()
    for route in router.routes.values():
        contexts = [_context_of(router, deployment) for group in route.groups for deployment in group]
        made = response.models.add(
            name=route.model.name,
            owned_by=route.model.owned_by,
            context_length=min((length for length in contexts if length), default=0),
            max_context_length=max(contexts) if all(contexts) else 0,
            first_models=sorted({deployment.model for deployment in route.groups[0]}),
        )
        made.created.FromSeconds(router.routing.written_s)
    return response


def _context_of(router: Router, deployment: Deployment) -> int:
    candidates = router.fleet.candidates(deployment.name)
    return deployment.context or next((c.context for c in candidates if c.context), 0)


def _breaker(candidates: tuple[Candidate, ...]) -> router_pb2.BreakerState.ValueType:
    """A deployment is as well as its best replica."""
    positions = {candidate.endpoint.breaker.state for candidate in candidates}
    for state in (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN):
        if state in positions:
            return router_pb2.BreakerState.ValueType(int(state))
    return router_pb2.BREAKER_STATE_UNSPECIFIED


def _add_replica(entry: router_pb2.DeploymentState, candidate: Candidate) -> None:
    replica = candidate.replica
    entry.replicas.add(
        id=replica.id,
        queued=replica.queued,
        running=replica.running,
        capacity=replica.capacity,
        tokens_per_second=replica.tokens_per_second,
        kv_used=replica.kv_used,
        inflight=replica.inflight,
        breaker=router_pb2.BreakerState.ValueType(int(candidate.endpoint.breaker.state)),
        revision=candidate.revision,
    )
