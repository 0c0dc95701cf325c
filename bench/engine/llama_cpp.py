"""llama.cpp's own server loop in process, as its users run it: `python -m bench.engine.llama_cpp` < work."""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import xllamacpp

from bench.engine.workload import Result, Work, measure, serve


def _server(work: Work, folder: str) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = work.path
    params.n_parallel = max(work.streams)
    params.n_ctx = 256 * max(work.streams)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = work.threads
    params.verbosity = -1
    params.cache_ram_mib = 0
    params.fit_params = False
    params.ui = False
    params.hostnames = [f"{folder}/llama.sock"]
    return xllamacpp.Server(params)


def _answer(server: xllamacpp.Server, prompt: list[int], tokens: int) -> int:
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    answers: list[dict[str, object]] = []
    server.handle_completions(json.dumps(body), lambda answer: answers.append(_read(answer)) and None)
    return sum(int(str(_usage(answer)["completion_tokens"])) for answer in answers)


def _read(answer: object) -> dict[str, object]:
    return json.loads(answer) if isinstance(answer, str | bytes) else dict(answer)  # type: ignore[call-overload]


def _usage(answer: dict[str, object]) -> dict[str, object]:
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        raise TypeError(f"llama.cpp answered {str(answer)[:200]}")
    return usage


def run(work: Work, result: Result) -> None:
    """Start, warm up with one short answer, measure."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max(work.streams)) as threads:
        server = _server(work, folder)
        _answer(server, work.prompts[-1], 1)
        result.ready_at = time.time()

        def generate(prompts: list[list[int]]) -> int:
            return sum(threads.map(lambda prompt: _answer(server, prompt, work.tokens), prompts))

        measure(work, result, generate)


if __name__ == "__main__":
    serve(run)
