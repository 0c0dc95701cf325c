"""What long prompts do to others: `python -m bench.engine.fairness`, and a part of `python -m bench.engine`.

Prompts of 7,800 tokens, each of its own tenant, are read while one stream runs and short prompts of further tenants
come one after the other. Beside it the same with steps that only their tokens bound, and llama.cpp's own server with a
short prompt behind a long one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from inference.adapters.llamacpp.settings import SMOLLM2
from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import TorchEngine, build
from inference.core.port import EngineDelta, EngineEvent, EngineRequest, SamplingParams

LONG, SHORT, EVERY_S = 7_800, 20, 0.7
# Within these the short prompt's first token and the stream's 99th percentile are to come.
FIRST_TARGET_S, GAP_TARGET_S = 0.5, 0.15


@dataclass
class Fairness:
    """Seconds. `long_s` is from the first long prompt's arrival to the last one's first token."""

    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    long_s: float = 0.0
    tokens: int = 0


def _prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(1000, 40_000, length).tolist())


def _ask(engine: TorchEngine, name: str, length: int, tokens: int) -> AsyncGenerator[EngineEvent, None]:
    params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    asked = EngineRequest(name, _prompt(hash(name) % 2**31, length), params, tenant=name)
    return cast("AsyncGenerator[EngineEvent, None]", engine.generate(asked))


async def _first_token_s(engine: TorchEngine, name: str, length: int) -> float:
    began = time.perf_counter()
    first = 0.0
    async for event in _ask(engine, name, length, 2):
        if isinstance(event, EngineDelta) and not first:
            first = time.perf_counter() - began
    return first


async def beside_long(longs: int, length: int, *, step_ms: float, threads: int) -> Fairness:
    """The figures beside so many long prompts."""
    config = TorchEngineConfig(
        model_path=SMOLLM2.path(), threads=threads, kv_tokens=(longs + 1) * 8192, step_ms=step_ms, prefix_cache=False
    )
    engine = build(config)
    await engine.start()
    seen = Fairness()
    # What a step costs is learned before anything is measured.
    await _first_token_s(engine, "warm-up", 2000)
    reading = asyncio.Event()
    arrivals: list[float] = []

    async def stream() -> None:
        last = 0.0
        events = _ask(engine, "stream", SHORT, 6000)
        async for event in events:
            now = time.perf_counter()
            if reading.is_set() and last and isinstance(event, EngineDelta):
                seen.gaps += [now - last] + [0.0] * (len(event.tokens) - 1)
            if isinstance(event, EngineDelta):
                seen.tokens += len(event.tokens)
            last = now
        await events.aclose()

    async def shorts() -> None:
        number = 0
        while True:
            await asyncio.sleep(EVERY_S)
            number += 1
            seen.firsts.append(await _first_token_s(engine, f"short-{number}", SHORT))
            arrivals.append(time.perf_counter())

    running = [asyncio.create_task(stream())]
    await asyncio.sleep(0.5)
    reading.set()
    running.append(asyncio.create_task(shorts()))
    began = time.perf_counter()
    await asyncio.gather(*(_first_token_s(engine, f"long-{number}", length) for number in range(longs)))
    seen.long_s = time.perf_counter() - began
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await engine.close()
    return seen


async def alone(threads: int) -> float:
    """A short prompt's first token with nothing beside it, the best of five."""
    engine = build(TorchEngineConfig(model_path=SMOLLM2.path(), threads=threads, prefix_cache=False))
    await engine.start()
    seconds = min([await _first_token_s(engine, f"alone-{number}", SHORT) for number in range(5)])
    await engine.close()
    return seconds


def llama_cpp_first_token_s(length: int, threads: int) -> float:
    """llama.cpp's: a short prompt that comes a second after a long one; the long one is then given up."""
    import xllamacpp  # noqa: PLC0415 -- its threads would take part in the other engine's figures

    params = xllamacpp.CommonParams()
    params.model.path = str(SMOLLM2.path())
    params.n_parallel, params.n_ctx = 2, 2 * 8192
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity, params.cache_ram_mib = -1, 0
    params.fit_params = params.ui = False
    with tempfile.TemporaryDirectory() as folder:
        params.hostnames = [f"{folder}/llama.sock"]
        server = xllamacpp.Server(params)
        enough = threading.Event()

        def body(seed: int, length: int) -> str:
            asked = {"prompt": list(_prompt(seed, length)), "n_predict": 1, "cache_prompt": False, "stream": True}
            return json.dumps(asked | {"return_progress": True})

        given_up = threading.Thread(
            target=server.handle_completions, args=(body(1, length), lambda _answer: enough.is_set())
        )
        given_up.start()
        time.sleep(1.0)
        began = time.perf_counter()
        server.handle_completions(body(2, SHORT), lambda _answer: False)
        seconds = time.perf_counter() - began
        enough.set()
        given_up.join()
        return seconds


def measure(longs: int, length: int, threads: int, *, peers: bool) -> list[dict[str, Any]]:
    """The figures, as bench.engine prints them."""
    by_time = asyncio.run(beside_long(longs, length, step_ms=TorchEngineConfig.step_ms, threads=threads))
    by_tokens = asyncio.run(beside_long(longs, length, step_ms=1e9, threads=threads))
    llama = {"llama_cpp": round(llama_cpp_first_token_s(length, threads), 2)} if peers else {}

    def figure(name: str, value: float, target: float, without: float, beside: dict[str, float]) -> dict[str, Any]:
        values = {"value": round(value, 3), "unit": "s", "target": target}
        return {"name": name, **values, "peers": {"by_tokens": round(without, 3), **beside}}

    worst, worst_by_tokens = max(by_time.firsts), max(by_tokens.firsts)
    gap, gap_by_tokens = (float(np.percentile(each.gaps, 99)) for each in (by_time, by_tokens))
    rate, rate_by_tokens = ((longs * length + each.tokens) / each.long_s for each in (by_time, by_tokens))
    first = round(asyncio.run(alone(threads)), 3)
    return [
        {"name": "short_first_token_alone_s", "value": first, "unit": "s", "target": FIRST_TARGET_S, "peers": {}},
        figure("short_first_token_beside_long_s", worst, FIRST_TARGET_S, worst_by_tokens, llama),
        figure("stream_gap_p99_beside_long_s", gap, GAP_TARGET_S, gap_by_tokens, {}),
        {
            **{"name": "tok_s_beside_long", "value": round(rate, 1), "unit": "tok/s"},
            **{"target": round(0.9 * rate_by_tokens, 1), "peers": {"by_tokens": round(rate_by_tokens, 1)}},
        },
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """One line a figure: ours, its target, and what is measured beside it."""
    lines = []
    for figure in rows:
        peers = ", ".join(f"{name} {value}" for name, value in figure["peers"].items())
        value = f"{figure['value']:>10} {figure['unit']:<6}"
        lines.append(f"{figure['name']:<34}{value} target {figure['target']}" + (f"; {peers}" if peers else ""))
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine.fairness")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--longs", type=int, default=2)
    parser.add_argument("--length", type=int, default=LONG, help="tokens of a long prompt")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.longs, arguments.length, arguments.threads, peers=not arguments.no_peers)
    print(table(rows))
    print(json.dumps({"bench": "fairness", "figures": rows}))


if __name__ == "__main__":
    main()
