"""A whole mesh for tests: real processes under the real supervisor, started and driven with the `headrace` command."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Below the ports that the kernel gives to clients, so that no outgoing connection takes one of ours.
_LOWEST, _HIGHEST = 18_000, 32_000


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for _ in range(200):
        base = random.randrange(_LOWEST, _HIGHEST - count)
        if all(_free(base + i) for i in range(count)):
            return base
    raise AssertionError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The condition's first true value. It is asked again and again until the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Mesh:
    """One running mesh."""

    state: Path
    url: str
    key: str
    # The first port of each service's gRPC, by service; control's and Envoy's too.
    ports: dict[str, int]

    def headrace(
        self, *arguments: str, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the operator's command against this mesh."""
        return headrace(self.state, *arguments, check=check, input=input)

    def status(self) -> dict[str, Any]:
        """What `headrace status --json` says."""
        done = self.headrace("status", "--json", check=False)
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))

    def rows(self) -> dict[str, dict[str, Any]]:
        """The processes by name."""
        return {row["name"]: row for row in self.status()["rows"]}

    def pid(self, process: str) -> int:
        """The process's id."""
        return int(self.rows()[process]["pid"])

    def signal(self, process: str, number: signal.Signals) -> int:
        """Send a signal to a process; returns the pid that it had."""
        pid = self.pid(process)
        os.kill(pid, number)
        return pid

    def wait_healthy(self, seconds: float = 30.0) -> None:
        """Return when every process runs and takes work."""
        eventually(lambda: self.status()["healthy"], seconds, "healthy again")


def headrace(
    state: Path, *arguments: str, check: bool = True, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the operator's command with a state folder."""
    command = [sys.executable, "-m", "ops", "--state-dir", str(state), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False, input=input)
    assert not check or done.returncode == 0, f"headrace {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
    return done


@contextmanager
def running(folder: Path, stack: str, ports: dict[str, int]) -> Iterator[Mesh]:
    """Start a mesh from a stack file's text and stop it at the end."""
    state, file = folder / "s", folder / "stack.yaml"
    file.write_text(stack)
    try:
        up = json.loads(headrace(state, "up", "--stack", str(file), "--json").stdout)
        yield Mesh(state, up["url"], up["key"], ports)
    finally:
        headrace(state, "down", check=False)
