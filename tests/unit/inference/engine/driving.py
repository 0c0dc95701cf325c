"""Running a torch engine over scripted runners."""

from __future__ import annotations

import contextlib
from pathlib import Path

from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import Parts, TorchEngine
from inference.core.port import EngineDelta, EngineRequest, EngineSummary, SamplingParams

# One byte a token, so that grammars and texts can be read.
VOCABULARY = [bytes([i]) for i in range(127)] + [b""]


def config(**changes) -> TorchEngineConfig:
    return TorchEngineConfig(
        **{"model_path": Path("fake"), "max_running": 8, "step_tokens": 64, "max_queued": 64} | changes
    )


@contextlib.asynccontextmanager
async def serving(runner, *, draft=None, **changes):
    engine = TorchEngine(config(**changes), Parts(lambda: runner, draft and (lambda: draft), lambda: VOCABULARY))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def request(
    prompt=(1, 2, 3),
    max_tokens: int = 8,
    *,
    request_id: str = "r",
    n: int = 1,
    emitted=(),
    tenant="t",
    priority=0,
    adapter=None,
    **sampling,
):
    params = SamplingParams(max_tokens=max_tokens, **({"temperature": 0.0} | sampling))
    return EngineRequest(request_id, tuple(prompt), params, n, tuple(map(tuple, emitted)), tenant, priority, adapter)


class Answer:
    """What a generation gave, put together."""

    def __init__(self, n: int = 1) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(n)]
        self.logprobs: list[list] = [[] for _ in range(n)]
        self.finish: list = [None] * n
        self.confidence: list = [None] * n
        self.summary: EngineSummary | None = None

    def take(self, event) -> None:
        assert self.summary is None, "an event after the summary"
        if isinstance(event, EngineDelta):
            assert self.finish[event.index] is None, "a delta after the finish"
            self.tokens[event.index] += event.tokens
            self.logprobs[event.index] += event.logprobs
            self.finish[event.index] = event.finish
            self.confidence[event.index] = event.confidence
        else:
            self.summary = event


async def ask(engine, wanted: EngineRequest) -> Answer:
    answer = Answer(wanted.n)
    async for event in engine.generate(wanted):
        answer.take(event)
    assert answer.summary is not None
    return answer


async def text(engine, prompt, max_tokens: int = 8, **more) -> list[int]:
    return (await ask(engine, request(prompt, max_tokens, **more))).tokens[0]
