"""llama.cpp's own server as a process of its own, which can be killed: OpenAI's interface on a port of loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xllamacpp

from inference.adapters.llamacpp.loading import Loading, parameters
from inference.adapters.model_files import SMOLLM2

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class LlamaServer:
    """A running server: its base URL, and its process."""

    url: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def llama_server() -> Iterator[LlamaServer]:
    """A server with SmolLM2, ready; killed at the end unless it is dead already."""
    env = os.environ | {"PYTHONPATH": f"{_ROOT}{os.pathsep}{_ROOT / 'protos' / 'gen'}", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "tests.integration.providers.llama_server"]
    with subprocess.Popen(command, cwd=_ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = next((line.strip() for line in process.stdout if line.startswith("http")), "")
            assert url, "the server ended before it was ready"
            yield LlamaServer(f"{url}/v1", process)
        finally:
            process.kill()


def _serve() -> None:
    loading = Loading(str(SMOLLM2.path()), "127.0.0.1", slots=4, context=4096, batch=256, threads=2)
    params = parameters(loading)
    params.port = 0
    params.api_keys = []
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    _serve()
