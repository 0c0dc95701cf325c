"""A second mesh beside the first: starts again as it was, clear when it cannot, and quietly gone when it is stopped."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.mesh_under_test import headrace
from tests.ports import free_ports

# A mesh of its own for each, twice brought up and taken down: on a busy machine that takes a while.
pytestmark = pytest.mark.timeout(300)
_STACK = """\
name: second
control: 127.0.0.1:{0}
edge: {{listen: "127.0.0.1:{1}", admin: "127.0.0.1:{2}"}}
services:
  gateway: {{kind: gateway, ports: {{grpc: {3}, http: {4}}}}}
  router: {{kind: router, ports: {{grpc: {5}}}, env: {{HEADRACE_ROUTER_CONFIG: deploy/stacks/router.yaml}}}}
  inference-small: {{kind: inference, ports: {{grpc: {6}}}, env: {{HEADRACE_INFERENCE_ENGINE: {engine}}}}}
"""


def write_stack(folder: Path, engine: str) -> Path:
    base = free_ports(7)
    path = folder / "stack.yaml"
    path.write_text(_STACK.format(*range(base, base + 7), engine=engine))
    return path


def test_a_stopped_mesh_starts_again_with_the_same_key(tmp_path: Path) -> None:
    stack, state = write_stack(tmp_path, "llamacpp"), tmp_path / "s"
    try:
        headrace(state, "up", "--stack", str(stack))
        key = (state / "dev.key").read_text().strip()
        headrace(state, "down")
        assert "no mesh is running" in headrace(state, "down").stderr
        shown = headrace(state, "up", "--stack", str(stack)).stdout
        assert key in shown
        (curl,) = (line for line in shown.splitlines() if line.startswith("curl "))
        pasted = subprocess.run(["/bin/sh", "-c", curl], capture_output=True, text=True, timeout=60, check=False)
        assert pasted.returncode == 0, pasted.stderr
        assert pasted.stdout.rstrip().endswith("data: [DONE]")
    finally:
        headrace(state, "down")
    assert headrace(state, "status", check=False).returncode == 69


def test_a_process_that_cannot_start_is_shown_with_its_own_words(tmp_path: Path) -> None:
    stack, state = write_stack(tmp_path, "no-such-engine"), tmp_path / "s"
    done = headrace(state, "up", "--stack", str(stack), check=False)
    assert done.returncode == 69
    assert "inference-small-0 does not start" in done.stderr
    assert "no-such-engine" in done.stderr
    assert headrace(state, "status", check=False).returncode == 69
