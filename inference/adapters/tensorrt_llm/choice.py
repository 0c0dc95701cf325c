"""One choice of a request: the stream of a `RequestOutput` as deltas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from inference.core.port import EngineDelta, EngineRequest, Finish, GenerationFailed, TokenLogprob

_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


async def deltas(
    output: Any, request: EngineRequest, index: int, eos_ids: frozenset[int]
) -> AsyncIterator[EngineDelta]:
    """What the choice gains, its last delta with the finish. Raises GenerationFailed when it ends in any other way.

    A `RequestOutput` repeats all that came before with each token, and its last token may be the end of text.
    """
    seen = 0
    async for state in output:
        choice = state.outputs[0]
        finish = _finish(choice.finish_reason)
        known = len(choice.token_ids)
        if finish is Finish.STOP:
            while known > seen and choice.token_ids[known - 1] in eos_ids:
                known -= 1
        if known == seen and finish is None:
            continue
        tokens = tuple(choice.token_ids[seen:known])
        logprobs: tuple[TokenLogprob, ...] = ()
        if request.sampling.logprobs is not None:
            logprobs = tuple(
                _logprob(token, entry, request.sampling.logprobs)
                for token, entry in zip(tokens, choice.logprobs[seen:known], strict=True)
            )
        seen = known
        yield EngineDelta(index, tokens, logprobs, finish)
        if finish is not None:
            return
    raise GenerationFailed("TensorRT-LLM ended a stream without a reason")


def _finish(reason: str | None) -> Finish | None:
    if reason is None:
        return None
    if reason not in _FINISHES:
        raise GenerationFailed(f"TensorRT-LLM ended a request as {reason!r}")
    return _FINISHES[reason]


def _logprob(token: int, entry: Any, wanted: int) -> TokenLogprob:
    """An entry is the drawn token's log probability alone, or a mapping from tokens to theirs, in no certain order."""
    if isinstance(entry, float):
        return TokenLogprob(token, entry)
    ranked = sorted(((int(t), float(p.logprob)) for t, p in entry.items()), key=lambda pair: -pair[1])
    return TokenLogprob(token, float(entry[token].logprob), tuple(ranked[:wanted]))
