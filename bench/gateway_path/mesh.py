"""The mesh under measurement: started and stopped with the operator's command, its metrics read from each process."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
STACK = Path(__file__).with_name("stack.yaml")
# As in the stack file; the processes that a request passes, in its order.
METRICS_PORTS = {"gateway": 17190, "router": 17290, "instant": 17390}
# Every port in the stack file.
_PORT = re.compile(r"\b1[789]\d{3}\b")
_PLACE = {"_count": 0, "_sum": 1}


@dataclass(frozen=True, slots=True)
class Hop:
    """Calls of one method as one process counted them."""

    process: str
    side: str
    method: str
    calls: int
    mean_ms: float


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh that answers."""

    state: Path
    url: str
    key: str
    # How far its ports are from those in the stack file.
    shift: int

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each process."""
        done = _headrace(self.state, "status", "--json")
        return {row["name"]: row["rss_mb"] for row in json.loads(done.stdout)["rows"]}

    def hops(self) -> dict[tuple[str, str, str], tuple[float, float]]:
        """(count, seconds) of every counted method, by process, side and method; subtract two to get a span's."""
        found: dict[tuple[str, str, str], list[float]] = {}
        for process, port in METRICS_PORTS.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{port + self.shift}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                if family.name != "headrace_rpc_seconds":
                    continue
                for sample in family.samples:
                    ending = sample.name.removeprefix(family.name)
                    if ending in _PLACE:
                        key = (process, sample.labels["side"], sample.labels["method"])
                        found.setdefault(key, [0.0, 0.0])[_PLACE[ending]] += sample.value
        return {key: (values[0], values[1]) for key, values in found.items()}


@contextmanager
def running() -> Iterator[Mesh]:
    """Bring the benchmark's mesh up in a state folder of its own, and take it down."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        state, stack, shift = Path(folder) / "state", Path(folder) / "stack.yaml", _free_shift()
        stack.write_text(_PORT.sub(lambda port: str(int(port[0]) + shift), STACK.read_text()))
        try:
            done = _headrace(state, "up", "--stack", str(stack), "--json")
            if done.returncode != 0:
                raise SystemExit(done.stderr)
            up: dict[str, Any] = json.loads(done.stdout)
            yield Mesh(state, up["url"], up["key"], shift)
        finally:
            _headrace(state, "down")


def _free_shift() -> int:
    """The smallest distance to ports that nobody uses: a mesh may be running on those of the file."""
    ports = [int(port) for port in _PORT.findall(STACK.read_text())]
    return next(shift for shift in range(1000) if all(_free(port + shift) for port in ports))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def between(
    before: dict[tuple[str, str, str], tuple[float, float]], after: dict[tuple[str, str, str], tuple[float, float]]
) -> list[Hop]:
    """What was counted between two readings."""
    hops = []
    for (process, side, method), (count, seconds) in after.items():
        count_before, seconds_before = before.get((process, side, method), (0.0, 0.0))
        if calls := int(count - count_before):
            hops.append(Hop(process, side, method, calls, (seconds - seconds_before) / calls * 1e3))
    return hops


def _headrace(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops", "--state-dir", str(state), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
