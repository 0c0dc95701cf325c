"""The gateways that a user would pick instead, in front of a static provider. `make bench-gateway-peers` gets them.

They live in .tools/peers and are no dependency of the mesh; one that is not there is left out, and said to be.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".tools/peers"
UPSTREAM_PORT = 17601
_LITELLM_PORT, _PORTKEY_PORT = 17605, 17602
# LiteLLM takes its time to start.
_START_S = 90
_LITELLM_KEY = "sk-bench-0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Peer:
    """One gateway: how it is started, and how it is asked."""

    name: str
    program: Path
    command: tuple[str, ...]
    port: int
    headers: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether `make bench-gateway-peers` has brought it."""
        return self.program.exists()

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"


def peers() -> tuple[Peer, ...]:
    """Those that run here, with a key check where the peer has one."""
    portkey = PEERS / "node_modules/@portkey-ai/gateway/build/start-server.js"
    litellm = PEERS / "litellm/bin/litellm"
    config = Path(__file__).with_name("litellm.yaml")
    return (
        Peer(
            "litellm",
            litellm,
            (str(litellm), "--config", str(config), "--host", "127.0.0.1", "--port", str(_LITELLM_PORT)),
            _LITELLM_PORT,
            {"authorization": f"Bearer {_LITELLM_KEY}"},
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": _LITELLM_KEY, "LITELLM_LOG": "ERROR"},
        ),
        Peer(
            "portkey",
            portkey,
            ("node", str(portkey), f"--port={_PORTKEY_PORT}", "--headless"),
            _PORTKEY_PORT,
            {
                "authorization": "Bearer unused",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"http://127.0.0.1:{UPSTREAM_PORT}/v1",
            },
        ),
    )


@contextmanager
def upstream() -> Iterator[None]:
    """The static provider."""
    command = (sys.executable, "-m", "bench.gateway_path.upstream", str(UPSTREAM_PORT))
    with _process(command, {}, f"http://127.0.0.1:{UPSTREAM_PORT}/"):
        yield


@contextmanager
def running(peer: Peer) -> Iterator[psutil.Process]:
    """The peer, answering."""
    with _process(peer.command, peer.env, f"http://127.0.0.1:{peer.port}/") as process:
        yield process


def rss_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


@contextmanager
def _process(command: tuple[str, ...], env: Mapping[str, str], url: str) -> Iterator[psutil.Process]:
    started = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_S
        while not _answers(url):
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not answer at {url}")
            time.sleep(0.2)
        yield psutil.Process(started.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
