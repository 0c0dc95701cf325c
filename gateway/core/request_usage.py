"""What one request came to: filled in while it is answered, read when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from headrace.common.v1.generation_pb2 import ChoiceDelta, Disclosure, Usage
from headrace.router.v1.router_pb2 import GenerateResponse

# Of text whose tokens its provider does not name.
_CHARACTERS_PER_TOKEN: Final = 4


@dataclass(slots=True)
class RequestUsage:
    """Usage, cost and timings of one request. Seconds."""

    usage: Usage = field(default_factory=Usage)
    # Per prompt, what was disclosed last.
    disclosures: dict[int, Disclosure] = field(default_factory=dict)
    # From the start to the first message; None while there is none.
    first_s: float | None = None
    # Spent waiting for the router; the rest is the gateway's own.
    waited_s: float = 0.0
    # Tokens delivered; what a request that was given up half-way has used.
    tokens: int = 0
    complete: bool = False

    def add(self, prompt: int, message: GenerateResponse) -> None:
        """Take a message into account."""
        for delta in message.deltas:
            self.tokens += len(delta.token_ids) or len(delta.logprobs) or _estimate(delta)
        if message.HasField("disclosure"):
            self.disclosures[prompt] = message.disclosure
        if message.HasField("summary"):
            self._add_usage(message.summary.usage)

    @property
    def settled(self) -> Usage:
        """The usage as summed up by the nodes; where the answer did not come to its end, what was delivered of it."""
        if self.complete:
            return self.usage
        made = Usage()
        made.CopyFrom(self.usage)
        made.completion_tokens = max(self.tokens, made.completion_tokens)
        if not made.prompt_tokens and (disclosure := self.disclosure) is not None:
            made.prompt_tokens = max((attempt.usage.prompt_tokens for attempt in disclosure.attempts), default=0)
        return made

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer, as `settled` has them."""
        return self.settled.completion_tokens

    @property
    def disclosure(self) -> Disclosure | None:
        """What was done to answer, all prompts together."""
        found = list(self.disclosures.values())
        if len(found) < 2:
            return found[0] if found else None
        merged = Disclosure()
        for one in found:
            cost = merged.cost_micro_usd + one.cost_micro_usd
            flags = merged.escalated or one.escalated, merged.spliced or one.spliced, merged.fallback or one.fallback
            merged.MergeFrom(one)
            merged.cost_micro_usd = cost
            merged.escalated, merged.spliced, merged.fallback = flags
        return merged

    def _add_usage(self, usage: Usage) -> None:
        total = self.usage
        total.prompt_tokens += usage.prompt_tokens
        total.completion_tokens += usage.completion_tokens
        total.cached_tokens += usage.cached_tokens
        total.reasoning_tokens += usage.reasoning_tokens


def _estimate(delta: ChoiceDelta) -> int:
    pieces = (delta.text, delta.refusal, *(piece.arguments_json or piece.name for piece in delta.tool_calls))
    return -(-sum(map(len, pieces)) // _CHARACTERS_PER_TOKEN)
