"""A `tensorrt_llm` module whose answers are scripted and which takes no argument that the real one would refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from tests.contract import tensorrt_llm_api as api


class Strict:
    """Keeps the arguments that it was made with, if they are among `allowed`."""

    allowed: frozenset[str] = frozenset()

    def __init__(self, **arguments: Any) -> None:
        unknown = set(arguments) - self.allowed
        if unknown:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(sorted(unknown))}")
        self.given = arguments


class SamplingParams(Strict):
    allowed = api.SAMPLING_PARAMS

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        if arguments.get("temperature") == 0:
            raise ValueError("temperature must be above 0")
        guide = arguments.get("guided_decoding")
        assert guide is None or isinstance(guide, GuidedDecodingParams)


class GuidedDecodingParams(Strict):
    allowed = api.GUIDED_DECODING_PARAMS


class KvCacheConfig(Strict):
    allowed = api.KV_CACHE_CONFIG


class NGramDecodingConfig(Strict):
    allowed = api.NGRAM


class DraftTargetDecodingConfig(Strict):
    allowed = api.DRAFT_TARGET


@dataclass(frozen=True)
class Step:
    """One arrival on a stream: new tokens, their log probabilities, and perhaps the reason of the end."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[Any, ...] = ()
    finish: str | None = None


@dataclass
class Script:
    """How the answer to one request goes: steps or an exception, after `hold` where it is given."""

    steps: list[Step | Exception]
    hold: asyncio.Event | None = None


@dataclass
class RequestOutput:
    """Repeats all that came before with each step, as the real one does."""

    script: Script
    request_id: int
    prompt_token_ids: list[int]
    finished: bool = False
    outputs: list[SimpleNamespace] = field(default_factory=list)
    was_aborted: bool = False
    _place: int = 0

    def abort(self) -> None:
        self.was_aborted = True

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        if self.finished:
            raise StopAsyncIteration
        if self._place == len(self.script.steps):
            if self.script.hold is None:
                raise StopAsyncIteration
            await self.script.hold.wait()
            raise StopAsyncIteration
        step = self.script.steps[self._place]
        self._place += 1
        await asyncio.sleep(0)
        if isinstance(step, Exception):
            raise step
        if not self.outputs:
            self.outputs = [SimpleNamespace(index=0, text="", token_ids=[], logprobs=[], finish_reason=None)]
        choice = self.outputs[0]
        choice.token_ids.extend(step.tokens)
        choice.logprobs = [*choice.logprobs, *step.logprobs]
        choice.finish_reason = step.finish
        assert step.finish is None or step.finish in api.FINISH_REASONS
        self.finished = step.finish is not None
        return self


class LLM(Strict):
    allowed = api.LLM_INIT
    # The newest one; the adapter makes one and keeps it to itself.
    made: ClassVar[list[LLM]] = []
    answer: Callable[[dict[str, Any]], Script | Exception]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        assert isinstance(arguments["kv_cache_config"], KvCacheConfig)
        self.requests: list[dict[str, Any]] = []
        self.results: list[RequestOutput] = []
        self.is_shut_down = False
        LLM.made.append(self)

    def generate_async(self, inputs: list[int], **arguments: Any) -> RequestOutput:
        unknown = set(arguments) - api.GENERATE_ASYNC
        if unknown:
            raise TypeError(f"generate_async takes no {', '.join(sorted(unknown))}")
        assert isinstance(arguments["sampling_params"], SamplingParams)
        assert all(isinstance(token, int) for token in inputs)
        request = {"inputs": inputs, **arguments}
        self.requests.append(request)
        script = LLM.answer(request)
        if isinstance(script, Exception):
            raise script
        result = RequestOutput(script, len(self.results), inputs)
        self.results.append(result)
        return result

    def shutdown(self) -> None:
        self.is_shut_down = True


def modules(answer: Callable[[dict[str, Any]], Script | Exception]) -> dict[str, ModuleType]:
    """What belongs into sys.modules; `answer` scripts each request from its arguments."""
    LLM.made = []
    LLM.answer = staticmethod(answer)
    top, llmapi = ModuleType("tensorrt_llm"), ModuleType("tensorrt_llm.llmapi")
    top.LLM, top.SamplingParams, top.llmapi = LLM, SamplingParams, llmapi
    for kind in (
        LLM,
        SamplingParams,
        GuidedDecodingParams,
        KvCacheConfig,
        NGramDecodingConfig,
        DraftTargetDecodingConfig,
    ):
        setattr(llmapi, kind.__name__, kind)
    return {"tensorrt_llm": top, "tensorrt_llm.llmapi": llmapi}
