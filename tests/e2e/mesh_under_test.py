"""A whole mesh for tests: real processes under the real supervisor, started and driven with the `headrace` command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# How long a mesh may take to be well again. Of a busy machine: it limits a wait, and no test is about it.
_WELL_S = 60.0


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

    def wait_healthy(self) -> None:
        """Return when every process runs and takes work."""
        eventually(lambda: self.status()["healthy"], _WELL_S, "healthy again")

    def wait_replaced(self, process: str, pid: int) -> None:
        """Return when another process stands where one was that ended, and every process runs and takes work."""

        def replaced() -> bool:
            status = self.status()
            (now,) = (row["pid"] for row in status["rows"] if row["name"] == process)
            return bool(status["healthy"]) and now not in (0, pid)

        eventually(replaced, _WELL_S, f"{process} is started again")


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
