"""The cascade of one request: how much of an answer is held to be judged, and the judgement."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from headrace.router.v1 import router_pb2
from router.core import cascade
from router.core.attempt import Attempt
from router.core.calibration import Calibration
from router.core.cascade_features import Answer
from router.core.catalog import Commit, Route
from router.core.judge_model import JudgeModel
from router.core.ports import Metrics
from router.core.prices import cost_of
from router.core.release_policy import ReleasePolicy, Whole, Window

# The window's own time limit: a slow answer is judged by what there is.
_MAX_S = 10.0


class CascadePolicy:
    """Judges the answers of every member but the last."""

    def __init__(
        self,
        route: Route,
        calibration: Calibration,
        question: str,
        *,
        judge_model: JudgeModel | None,
        wants_json: bool,
        metrics: Metrics,
    ) -> None:
        assert route.model.cascade is not None  # whoever has no cascade has no judge
        self._route = route
        self._window = route.model.cascade.window_tokens
        self._calibration = calibration
        self._question = question
        self._wants_json = wants_json
        self._metrics = metrics
        self._judged: set[int] = set()
        # Asked where the figures leave doubt.
        self._judge_model = judge_model

    def before(self) -> cascade.CascadeVerdict:
        """Whether to begin with the second member."""
        verdict = cascade.before(self._question, self._calibration)
        if verdict.escalate:
            self._metrics.cascade(self._route.model.name, escalated=True)
        return verdict

    def wants(self, attempt: Attempt) -> bool:
        """Whether the attempt's answer has to be judged before anybody sees it."""
        return attempt.group + 1 < len(self._route.groups) and attempt.group not in self._judged

    def release_policy(self) -> ReleasePolicy:
        """Holds what is judged."""
        return Window(Commit(tokens=self._window, max_s=_MAX_S)) if self._window else Whole()

    async def after(self, messages: Sequence[router_pb2.GenerateResponse]) -> cascade.CascadeVerdict:
        """Whether to leave the answer, of which this was held, behind. May take as long as the judge model may."""
        answer = answer_of(messages, wants_json=self._wants_json)
        verdict = cascade.after(self._question, answer, self._calibration)
        rule = self._route.model.cascade.judge if self._route.model.cascade else None
        if rule is not None and self._judge_model is not None and not verdict.escalate and verdict.score < rule.sure:
            grade = await self._judge_model.grade(self._question, answer.text) if answer.whole else None
            if grade is not None:
                verdict = cascade.graded(grade, rule.min_grade)
        self._metrics.cascade(self._route.model.name, escalated=verdict.escalate)
        return verdict

    def kept(self, attempt: Attempt) -> None:
        """An answer was good enough: count what the chain's last member would have cost more for the same tokens."""
        if attempt.usage is not None and attempt.group + 1 < len(self._route.groups):
            instead = cost_of(self._route.groups[-1][0].price, attempt.usage)
            self._metrics.cascade_saved(self._route.model.name, max(0, instead - attempt.cost))

    def done(self, attempt: Attempt) -> None:
        """The attempt's member has been judged, whatever comes of it."""
        self._judged.add(attempt.group)


def answer_of(messages: Sequence[router_pb2.GenerateResponse], *, wants_json: bool) -> Answer:
    """The first choice's answer as the messages tell it: the node's own figures, else those of its logprobs."""
    deltas = [delta for message in messages for delta in message.deltas if delta.index == 0]
    logprobs = [token.logprob for delta in deltas for token in delta.logprobs]
    known = next((delta.confidence for delta in deltas if delta.HasField("confidence")), None)
    return Answer(
        text="".join(delta.text for delta in deltas) or "".join(c.name for d in deltas for c in d.tool_calls),
        mean_logprob=known.mean_logprob if known else statistics.fmean(logprobs) if logprobs else None,
        min_logprob=known.min_logprob if known else min(logprobs, default=None),
        mean_entropy=known.mean_entropy if known else None,
        mean_margin=known.mean_margin if known else None,
        refused=any(delta.refusal for delta in deltas),
        wants_json=wants_json,
        whole=any(delta.finish_reason for delta in deltas),
    )
