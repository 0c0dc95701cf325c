"""How long the router takes to decide, and how fast it passes streams on. `python -m bench.router [--streams]`.

Prints a table, then one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

from headrace.router.v1 import router_pb2
from mesh.clock import SYSTEM
from mesh.resilience import BreakerPolicy, Endpoints
from router.core.catalog import Catalog, Deployment, KeywordRule, Model, Price, Ramp, Route, resolve
from router.core.decision_trace import DecisionTrace
from router.core.fleet import Fleet
from router.core.request_profile import profile_of, question_of
from router.core.selector import Selected, SelectionRequest, Selector
from router.core.strategies import scorers_of

DEPLOYMENTS = 50
WARM_UP, ROUNDS = 500, 5_000
TARGET_US = 100.0
STRATEGIES = ("balanced", "cheapest", "fastest", "weighted", "keyword", "tier", "region")


def fleet_of(count: int) -> tuple[Fleet, dict[str, Route]]:
    """Deployments that differ in price, load, speed and region, one group of all of them per strategy."""
    chance = random.Random(7)
    deployments = tuple(
        Deployment(
            name=f"d{i}",
            service=f"s{i}",
            model="m",
            price=Price(input=chance.random(), output=chance.random()),
            region=("eu", "us")[i % 2],
            context=8192,
            weight=1.0 + i % 3,
        )
        for i in range(count)
    )
    names = tuple(d.name for d in deployments)
    rules = (KeywordRule(use=names[:5], words=("python", "rust")),)
    models = tuple(
        Model(name=s, chain=(names,), strategy=s, keywords=rules if s == "keyword" else ())  # type: ignore[arg-type]
        for s in STRATEGIES
    )
    fleet = Fleet(Endpoints(BreakerPolicy()))
    fleet.use(deployments)
    fleet.seen({f"s{i}-0": (f"s{i}", f"127.0.0.1:{i}") for i in range(count)}, 0.0)
    for replica in fleet.replicas.values():
        replica.report(
            queued=0,
            running=chance.randrange(8),
            capacity=8,
            tokens_per_second=100.0,
            kv_used=chance.random() / 2,
            draining=False,
        )
    for name in names:
        for _ in range(20):
            fleet.candidates(name)[0].ttft.add(chance.random())
    return fleet, resolve(Catalog(deployments=deployments, models=models))


def request() -> router_pb2.GenerateRequest:
    """An ordinary chat of three messages."""
    asked = router_pb2.GenerateRequest()
    asked.context.tenant, asked.context.user = "t", "u"
    asked.generation.model = "balanced"
    for text in ("You are helpful.", "What is the capital of France? " * 10, "And how large is it?"):
        asked.generation.prompt.chat.messages.add(role=3).content.add(text=text)
    asked.generation.sampling.max_tokens = 256
    asked.labels["region"] = "eu"
    return asked


def microseconds(work: Callable[[], object]) -> list[float]:
    """The duration of each of many runs."""
    for _ in range(WARM_UP):
        work()
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        work()
        taken.append((time.perf_counter_ns() - started) / 1e3)
    return taken


def decide() -> list[dict[str, object]]:
    """From the request's message to the chosen replica, for every strategy."""
    fleet, routes = fleet_of(DEPLOYMENTS)
    selector = Selector(fleet, Ramp(), random.Random(7))
    asked = request()
    figures: list[dict[str, object]] = []
    print(f"{'decision, ' + str(DEPLOYMENTS) + ' deployments':32} {'p50 us':>8} {'p99 us':>8}")
    for strategy in STRATEGIES:
        route = routes[strategy]

        def work(route: Route = route) -> None:
            trace = DecisionTrace(SYSTEM)
            profile = profile_of(asked)
            question = question_of(asked.generation) if route.model.keywords else ""
            selection = SelectionRequest(profile, route, scorers_of(route.model, question, profile.labels))
            if not isinstance(selector.choose(selection, SYSTEM.monotonic(), trace), Selected):
                raise RuntimeError("nobody was chosen")

        taken = microseconds(work)
        p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[98]
        print(f"{strategy:32} {p50:8.1f} {p99:8.1f}")
        figures.append(
            {"name": f"decision_{strategy}_p50_us", "value": round(p50, 1), "unit": "us", "target": TARGET_US}
        )
    return figures


def main(arguments: list[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", action="store_true", help="also measure how fast streams are passed on")
    options = parser.parse_args(arguments)
    figures = decide()
    if options.streams:
        from bench.router_streams import forward  # noqa: PLC0415 - it starts processes; only when asked for

        figures += asyncio.run(forward())
    print(json.dumps({"bench": "router", "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
