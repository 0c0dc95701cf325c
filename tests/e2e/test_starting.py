"""A second mesh beside the first: starts again as it was, clear when it cannot, and quietly gone when it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.mesh_under_test import ROOT, headrace
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


def test_two_starts_at_once_make_one_mesh_and_a_changed_file_is_not_passed_over(tmp_path: Path) -> None:
    stack, state = write_stack(tmp_path, "static"), tmp_path / "s"
    try:
        both = [_begun(state, stack) for _ in range(2)]
        ends = [(*one.communicate(timeout=150), one.returncode) for one in both]
        assert [code for _, _, code in ends] == [0, 0], ends
        said = "".join(err for _, err, _ in ends)
        assert "waiting for another headrace command" in said
        assert said.count("is up already") == 1
        assert f"headrace --state-dir {state} status" in ends[0][0]

        changed = stack.read_text().replace("kind: inference,", "kind: inference, replicas: 2,")
        stack.write_text(
            changed.replace(
                "env: {HEADRACE_INFERENCE", "env: {HEADRACE_INFERENCE_PREFIX_CACHE: true, HEADRACE_INFERENCE"
            )
        )
        for arguments in ([], ["--stack", str(stack)]):
            done = headrace(state, "up", *arguments, check=False)
            assert done.returncode == 1
            assert "services.inference-small.replicas: 1, now 2" in done.stderr
            assert "services.inference-small.env.HEADRACE_INFERENCE_PREFIX_CACHE: is new" in done.stderr
            assert (
                f"headrace --state-dir {state} down && headrace --state-dir {state} up --stack {stack}" in done.stderr
            )
        stack.write_text(changed)
        assert "scale inference-small=2" in headrace(state, "up", check=False).stderr
        headrace(state, "scale", "inference-small=2")
        assert "is up already" in headrace(state, "up").stderr
    finally:
        headrace(state, "down")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_start_that_is_stopped_leaves_no_process(tmp_path: Path, number: signal.Signals, code: int) -> None:
    stack, state = write_stack(tmp_path, "static"), tmp_path / "s"
    process = _begun(state, stack)
    try:
        assert process.stderr is not None
        while (line := process.stderr.readline()) and "waiting for" not in line:
            pass
        assert line
        process.send_signal(number)
        process.communicate(timeout=150)
        assert process.returncode == code
        assert not [one for one in psutil.process_iter() if str(state) in _command_of(one)]
    finally:
        headrace(state, "down")


def _begun(state: Path, stack: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ops", "--state-dir", str(state), "up", "--stack", str(stack)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
