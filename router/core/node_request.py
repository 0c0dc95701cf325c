"""The request as one candidate is asked it."""

from __future__ import annotations

from headrace.inference.v1 import inference_pb2
from router.core.fleet import Candidate
from router.core.prices import affordable
from router.core.routed_request import Resumption, RoutedRequest


def node_request(
    request: RoutedRequest, candidate: Candidate, resumption: Resumption | None, budget: float | None
) -> inference_pb2.GenerateRequest:
    """Ask for the deployment's own model, within the budget that is left (millionths of a dollar; None: no limit)."""
    asked = inference_pb2.GenerateRequest(context=request.message.context, generation=request.message.generation)
    generation, deployment = asked.generation, candidate.deployment
    generation.model = deployment.model
    generation.adapter = deployment.adapter or generation.adapter
    if resumption is not None:
        generation.resume.extend(resumption.emitted)
        if resumption.by_text and generation.sampling.max_tokens:
            # The node counts the text as prompt; the caller, as a part of the answer.
            generation.sampling.max_tokens = max(1, generation.sampling.max_tokens - resumption.tokens)
    if request.logprobs and "logprobs" in deployment.capabilities:
        generation.sampling.logprobs = True
    if budget is not None and not generation.sampling.HasField("max_tokens"):
        maximum = affordable(deployment.price, request.profile, budget)
        if maximum is not None:
            generation.sampling.max_tokens = maximum
    return asked
