"""Saying what was done to answer."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.common.v1 import generation_pb2
from mesh.errors import Outcome
from router.core.attempt import Attempt, label_of


def disclose(
    attempts: Sequence[Attempt], everything: Sequence[Attempt], *, escalated: bool, spliced: bool, fallback: bool
) -> generation_pb2.Disclosure:
    """What is said of a request: everything that was asked for it, and which of its own attempts gave the answer."""
    disclosure = generation_pb2.Disclosure(
        escalated=escalated,
        spliced=spliced,
        fallback=fallback,
        cost_micro_usd=sum(attempt.cost for attempt in everything),
    )
    for attempt in everything:
        _add(disclosure, attempt)
    answering = [a for a in attempts if a.ended_s is None or a.outcome is Outcome.OK] or list(attempts)
    if answering and not fallback:
        last = answering[-1]
        disclosure.deployment = last.candidate.deployment.name
        disclosure.model = last.candidate.deployment.model
        disclosure.revision = last.revision
    return disclosure


def _add(disclosure: generation_pb2.Disclosure, attempt: Attempt) -> None:
    entry = disclosure.attempts.add(
        deployment=attempt.candidate.deployment.name,
        replica=attempt.candidate.replica.id,
        model=attempt.candidate.deployment.model,
        revision=attempt.revision,
        reason=attempt.reason,
        cost_micro_usd=attempt.cost,
        cause=label_of(attempt.cause),
        why=attempt.cause,
    )
    if attempt.outcome is not None:
        entry.outcome = generation_pb2.Outcome.ValueType(int(attempt.outcome))
    if attempt.ended_s is not None:
        entry.duration.FromNanoseconds(int(attempt.ended_s * 1e9))
    if attempt.first_s is not None:
        entry.time_to_first_token.FromNanoseconds(int(attempt.first_s * 1e9))
    if attempt.usage is not None:
        entry.usage.CopyFrom(attempt.usage)
