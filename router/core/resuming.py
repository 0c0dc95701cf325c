"""Whether a cut answer can go on elsewhere, from what, and with whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace.common.v1 import generation_pb2
from router.core.attempt import Attempt
from router.core.catalog import resuming_of
from router.core.fleet import Candidate
from router.core.resume_buffer import ResumeBuffer
from router.core.routed_request import Resumption, RoutedRequest
from router.core.token_estimate import tokens_in

TEXT_IS_OFF: Final = "the model's entry does not say `resume: text`"


def by_tokens(request: RoutedRequest, given: ResumeBuffer, attempt: Attempt) -> tuple[Resumption | None, str]:
    """From the token ids that were given, at replicas of the same model and revision; or why not."""
    why = _never(request, given)
    if not why and not given.resumable:
        why = "the node gave no token ids"
    return (None, why) if why else (Resumption(given.emitted(), given.tokens, continues(attempt)), "")


def by_text(request: RoutedRequest, given: ResumeBuffer) -> tuple[Resumption | None, str]:
    """From the text that was given, at any deployment that can go on from an assistant's words; or why not."""
    why = _never(request, given)
    if not why and resuming_of(request.route.model) != "text":
        why = TEXT_IS_OFF
    elif not why and request.profile.choices > 1:
        why = "there are several choices, which go on from different texts"
    elif not why and given.said_more:
        why = "a tool call or a refusal was begun"
    elif not why and not given.text():
        why = "no text was given"
    if why:
        return None, why
    text = given.text()
    emitted = generation_pb2.Generation.Emitted(index=0, text=text)
    return Resumption((emitted,), tokens_in((text,)), lambda candidate: candidate.can_continue, by_text=True), ""


def continues(attempt: Attempt) -> Callable[[Candidate], bool]:
    """Which candidates can go on where the attempt stopped: equal weights and tokenizer, and able to resume."""
    was, revision = attempt.candidate.deployment, attempt.revision

    def can(candidate: Candidate) -> bool:
        deployment = candidate.deployment
        # Where no revision is known, only the deployment's own replicas are taken to be equal.
        equal = candidate.revision == revision if revision else deployment.name == was.name
        same = (deployment.model, deployment.adapter) == (was.model, was.adapter)
        return equal and same and candidate.can_resume

    return can


def _never(request: RoutedRequest, given: ResumeBuffer) -> str:
    if resuming_of(request.route.model) == "off":
        return "the model's entry switches it off"
    if request.profile.structured:
        return "the answer is bound to a schema"
    return "" if given.keeps else "the answer is too large to be remembered"
