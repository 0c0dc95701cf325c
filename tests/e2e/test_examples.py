"""The examples do what they say, against the real model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.e2e.mesh_under_test import ROOT, Mesh

_EXAMPLES = {
    "openai_chat.py": (sys.executable, "examples/openai_chat.py"),
    "grpc_chat.py": (sys.executable, "examples/grpc_chat.py"),
    "curl.sh": ("examples/curl.sh",),
    "tool_calls.py": (sys.executable, "examples/tool_calls.py"),
}


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")} == set(_EXAMPLES)


@pytest.mark.parametrize("name", _EXAMPLES)
def test_an_example_prints_the_models_answer(mesh: Mesh, name: str) -> None:
    if name == "curl.sh" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    env = {**os.environ, "HEADRACE_URL": mesh.url, "HEADRACE_API_KEY": mesh.key}
    done = subprocess.run(_EXAMPLES[name], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
