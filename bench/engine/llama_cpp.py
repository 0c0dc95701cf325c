"""llama.cpp's own server loop in process, as its users run it: `python -m bench.engine.llama_cpp` < work."""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp

from bench.engine.workload import AFTER_LONG, Result, Work, measure, measure_long, serve


def _server(work: Work, folder: str, slots: int, context: int) -> xllamacpp.Server:
    """A server of `slots` answers at once, each of at most `context` tokens."""
    params = xllamacpp.CommonParams()
    params.model.path = work.path
    params.n_parallel = slots
    params.n_ctx = context * slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = work.threads
    params.verbosity = -1
    params.cache_ram_mib = 0
    params.fit_params = False
    params.ui = False
    params.hostnames = [f"{folder}/llama.sock"]
    return xllamacpp.Server(params)


def _answer(server: xllamacpp.Server, prompt: list[int], tokens: int) -> int:
    return sum(int(str(_usage(answer)["completion_tokens"])) for answer in _ask(server, prompt, tokens))


def _answer_timed(server: xllamacpp.Server, prompt: list[int], tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second after it, as the server itself takes them."""
    timings: Any = _ask(server, prompt, tokens)[-1]["timings"]
    if timings["prompt_n"] != len(prompt):
        raise RuntimeError(f"llama.cpp read {timings['prompt_n']} of {len(prompt)} tokens")
    return timings["prompt_ms"] / 1000, timings["predicted_per_second"]


def _ask(server: xllamacpp.Server, prompt: list[int], tokens: int) -> list[dict[str, object]]:
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    answers: list[dict[str, object]] = []
    server.handle_completions(json.dumps(body), lambda answer: answers.append(_read(answer)) and None)
    return answers


def _read(answer: object) -> dict[str, object]:
    return json.loads(answer) if isinstance(answer, str | bytes) else dict(answer)  # type: ignore[call-overload]


def _usage(answer: dict[str, object]) -> dict[str, object]:
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        raise TypeError(f"llama.cpp answered {str(answer)[:200]}")
    return usage


def run(work: Work, result: Result) -> None:
    """Start, warm up with one short answer, measure; then anew for one stream of a long context."""
    _run_streams(work, result)
    if not work.long:
        return
    with tempfile.TemporaryDirectory() as folder:
        server = _server(work, folder, 1, max(work.long) + AFTER_LONG)
        measure_long(work, result, lambda prompt, tokens: _answer_timed(server, prompt, tokens))


def _run_streams(work: Work, result: Result) -> None:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max(work.streams)) as threads:
        server = _server(work, folder, max(work.streams), 256)
        _answer(server, work.prompts[-1], 1)
        result.ready_at = time.time()

        def generate(prompts: list[list[int]]) -> int:
            return sum(threads.map(lambda prompt: _answer(server, prompt, work.tokens), prompts))

        measure(work, result, generate)


if __name__ == "__main__":
    serve(run)
