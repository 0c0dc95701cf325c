"""Runs every engine in a process of its own, one after the other, on the same prompts; a table, then one JSON line."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from bench.engine import fairness
from bench.engine.workload import LONG, STREAMS, Result, Work, make_work

ENGINES = ("headrace_torch", "llama_cpp", "transformers_generate")
PEERS = {"llama_cpp": "llama_cpp", "transformers": "transformers_generate"}
TARGETS = {1: 190, 16: 750, 64: 1400}
# A third of the 25.6 s, and 1.8 times the 49 tok/s, that were measured before attention took queries in blocks.
LONG_TARGETS = {"first_token_s": {8128: 8.5}, "tok_s_after": {8128: 88}}
# llama.cpp takes two minutes for the longest prompt on a quiet machine.
TIMEOUT_S = 1800


def run_engine(engine: str, work: Work) -> tuple[Result, float]:
    """The engine's result, and the seconds from its process's start until it had answered a first request."""
    started = time.time()
    command = [sys.executable, "-m", f"bench.engine.{engine}"]
    work_json = json.dumps(asdict(work))
    done = subprocess.run(command, input=work_json, text=True, capture_output=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{engine} failed:\n{done.stderr[-3000:]}")
    result = Result(**json.loads(done.stdout.strip().splitlines()[-1]))
    return result, result.ready_at - started


def figures(results: dict[str, tuple[Result, float]]) -> list[dict[str, Any]]:
    """Headrace's figures, each with its target and its peers'."""

    def figure(name: str, unit: str, target: float | None, value: Any) -> dict[str, Any]:
        taken = {engine: value(*result) for engine, result in results.items()}
        peers = {peer: round(taken[e], 2) for peer, e in PEERS.items() if taken.get(e) is not None}
        ours = round(taken["headrace_torch"], 2)
        return {"name": name, "value": ours, "unit": unit, "target": target, "peers": peers}

    def long_figure(field: str, unit: str, length: str) -> dict[str, Any]:
        target = LONG_TARGETS[field].get(int(length))
        return figure(f"{field}_{length}", unit, target, lambda result, _: getattr(result, field).get(length))

    lengths = results["headrace_torch"][0].first_token_s
    return [
        *(figure(f"cpu_tok_s_{n}", "tok/s", TARGETS[n], lambda result, _, n=n: result.tok_s[str(n)]) for n in STREAMS),
        figure("ready_s", "s", 5, lambda _, ready: ready),
        figure("rss_mb_16", "MB", 1200, lambda result, _: result.rss_mb_16),
        *(long_figure("first_token_s", "s", length) for length in lengths),
        *(long_figure("tok_s_after", "tok/s", length) for length in lengths),
    ]


def run_fairness(threads: int, longs: int, *, peers: bool) -> list[dict[str, Any]]:
    """What long prompts do to others, in a process of its own: see bench.engine.fairness."""
    command = [sys.executable, "-m", "bench.engine.fairness", "--threads", str(threads), "--longs", str(longs)]
    done = subprocess.run(
        command if peers else [*command, "--no-peers"], text=True, capture_output=True, timeout=1800, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"fairness failed:\n{done.stderr[-3000:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])["figures"]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """One line a figure: ours, the peers', and ours over the best peer's (for times and memory, the other way)."""
    names = "".join(f"{peer:>14}" for peer in PEERS)
    lines = [f"{'figure':<19}{'headrace':>10}{'target':>8}{names}{'ratio':>8}"]
    for row in rows:
        more = row["unit"] == "tok/s"
        best = (max if more else min)(row["peers"].values(), default=row["value"])
        ratio = row["value"] / best if more else best / row["value"]
        peers = "".join(f"{row['peers'].get(peer, float('nan')):>14.1f}" for peer in PEERS)
        lines.append(f"{row['name']:<19}{row['value']:>10.1f}{row['target'] or '-':>8}{peers}{ratio:>8.2f}")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--lengths", type=int, nargs="*", default=LONG, help=f"of long prompts, default: {LONG}")
    parser.add_argument("--longs", type=int, default=2, help="prompts of 7,800 tokens that others wait beside")
    parser.add_argument("--no-fairness", action="store_true", help="leave out what long prompts do to others")
    parser.add_argument("--only", choices=ENGINES, action="append", help="leave the other engines out")
    arguments = parser.parse_args()
    work = make_work(arguments.tokens, arguments.threads, tuple(arguments.lengths))
    chosen = {"headrace_torch", *(arguments.only or ENGINES)}
    results = {engine: run_engine(engine, work) for engine in ENGINES if engine in chosen}
    rows = figures(results)
    print(f"SmolLM2-135M-Instruct Q4_1, {arguments.tokens} tokens out, greedy, {arguments.threads} threads\n")
    print(table(rows))
    if not arguments.no_fairness:
        fair = run_fairness(arguments.threads, arguments.longs, peers="llama_cpp" in chosen)
        print("\n" + fairness.table(fair))
        rows += fair
    print(json.dumps({"bench": "engine", "figures": rows}))


if __name__ == "__main__":
    main()
