"""What the mesh costs on the way to a model: time, throughput, memory; beside the gateways a user would pick instead.

    python -m bench.gateway [--seconds 8] [--rounds 3] [--no-peers]

Prints a table, the time spent at each hop, and one JSON object as the last line. The mesh is measured as a client sees
it: through Envoy, the gateway with its key check, the router, and a node whose engine answers at once. Peers are
measured in front of a static provider. Load comes from a process of its own on the same machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from bench.gateway_path import mesh as meshes
from bench.gateway_path import peers as gateways
from bench.gateway_path.load import Measured

_STREAMS = 64
# Streams of two seconds each: the first of every place is warm-up.
_STEADY_S = 8.0
_NODES = ("instant", "steady", "paced")
_CLIENTS = 16
_TARGETS = {
    "plain_p50_ms_c1": 2.0,
    "plain_rps_c16": 1600.0,
    "stream_tok_s_64": 40_000.0,
    "stream_ttft_delay_ms_64": 3.0,
}
_BODY = json.dumps({"model": "instant", "messages": [{"role": "user", "content": "Where does the water go?"}]})


def load(url: str, clients: int, seconds: float, headers: Mapping[str, str]) -> Measured:
    """Load from another process."""
    arguments = (url, str(clients), str(seconds), json.dumps(dict(headers)), _BODY)
    return Measured(**_module("bench.gateway_path.load", *arguments))


def repeated(url: str, clients: int, seconds: float, rounds: int, headers: Mapping[str, str]) -> Measured:
    """The round with the median throughput."""
    return sorted((load(url, clients, seconds, headers) for _ in range(rounds)), key=lambda one: one.rps)[rounds // 2]


def measure_mesh(seconds: float, rounds: int) -> dict[str, Any]:
    """The mesh: one client, sixteen clients, 64 streams, the time at each hop, and memory."""
    with meshes.running() as mesh:
        url, headers = f"{mesh.url}/chat/completions", {"authorization": f"Bearer {mesh.key}"}
        load(url, _CLIENTS, 2, headers)
        before = mesh.hops()
        one = repeated(url, 1, seconds, rounds, headers)
        hops = meshes.between(before, mesh.hops())
        many = repeated(url, _CLIENTS, seconds, rounds, headers)
        streams = [_module("bench.gateway_path.streaming", mesh.url, mesh.key, str(_STREAMS)) for _ in range(rounds)]
        arguments = (mesh.url, mesh.key, str(_STREAMS), str(max(seconds, _STEADY_S)))
        steady = [_module("bench.gateway_path.streaming", *arguments) for _ in range(rounds)]
        rss = mesh.rss_mb()
    return {"one": one, "many": many, "streams": streams, "steady": steady, "hops": hops, "rss": rss}


def measure_peers(seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Each peer that is installed."""
    found: dict[str, dict[str, float]] = {}
    with gateways.upstream():
        for peer in gateways.peers():
            if not peer.installed:
                print(f"{peer.name}: not installed, left out ('make bench-gateway-peers' installs it)", file=sys.stderr)
                continue
            with gateways.running(peer) as process:
                load(peer.url, _CLIENTS, 2, peer.headers)
                one = repeated(peer.url, 1, seconds, rounds, peer.headers)
                many = repeated(peer.url, _CLIENTS, seconds, rounds, peer.headers)
                found[peer.name] = {
                    "plain_p50_ms_c1": one.p50_ms,
                    "plain_p99_ms_c1": one.p99_ms,
                    "plain_rps_c16": many.rps,
                    "mesh_rss_mb": gateways.rss_mb(process),
                }
    return found


def main() -> None:
    """Measure, print the table, print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each measurement takes")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is reported")
    parser.add_argument("--no-peers", action="store_true", help="measure the mesh alone")
    options = parser.parse_args()
    seen = measure_mesh(options.seconds, options.rounds)
    peers = {} if options.no_peers else measure_peers(options.seconds, options.rounds)
    figures = _figures(seen, peers)
    _print(seen, figures)
    print(json.dumps({"bench": "gateway", "figures": figures}))


def _figures(seen: dict[str, Any], peers: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    one, many, streams, steady, rss = seen["one"], seen["many"], seen["streams"], seen["steady"], seen["rss"]
    own = {name: mb for name, mb in rss.items() if not name.startswith(_NODES)}
    values: list[tuple[str, float, str]] = [
        ("plain_p50_ms_c1", one.p50_ms, "ms"),
        ("plain_p99_ms_c1", one.p99_ms, "ms"),
        ("plain_rps_c16", many.rps, "req/s"),
        ("plain_p99_ms_c16", many.p99_ms, "ms"),
        ("stream_tok_s_64", statistics.median(each["tok_s"] for each in streams), "tok/s"),
        ("stream_first_token_p50_ms_64", statistics.median(each["first_token_p50_ms"] for each in streams), "ms"),
        ("stream_ttft_delay_ms_64", statistics.median(each["first_token_p50_ms"] for each in steady), "ms"),
        ("stream_ttft_delay_p99_ms_64", statistics.median(each["first_token_p99_ms"] for each in steady), "ms"),
        ("stream_tok_s_64_steady", statistics.median(each["tok_s"] for each in steady), "tok/s"),
        ("mesh_rss_mb", sum(own.values()), "MB"),
        ("errors", float(one.errors + many.errors), "requests"),
    ]
    figures = []
    for name, value, unit in values:
        beside = {peer: round(measured[name], 2) for peer, measured in peers.items() if name in measured}
        figures.append(
            {"name": name, "value": round(value, 2), "unit": unit, "target": _TARGETS.get(name), "peers": beside}
        )
    return figures


def _print(seen: dict[str, Any], figures: list[dict[str, Any]]) -> None:
    print(f"{'figure':<30}{'value':>12} {'unit':<8}{'target':>10}   peers")
    for one in figures:
        target = "" if one["target"] is None else f"{one['target']:g}"
        beside = ", ".join(f"{peer} {value:g}" for peer, value in one["peers"].items())
        print(f"{one['name']:<30}{one['value']:>12,.2f} {one['unit']:<8}{target:>10}   {beside}")
    print("\ntime at each hop, 1 client, mean (a server's time holds the hops behind it):")
    for hop in sorted(seen["hops"], key=lambda hop: -hop.mean_ms):
        print(f"  {hop.process:<10}{hop.side:<8}{hop.method:<55}{hop.mean_ms:>9.3f} ms")
    memory = ", ".join(f"{name} {mb:.0f} MB" for name, mb in seen["rss"].items())
    print(f"\nmemory: {memory}\n")


def _module(name: str, *arguments: str) -> dict[str, Any]:
    command = (sys.executable, "-m", name, *arguments)
    done = subprocess.run(command, cwd=meshes.ROOT, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
