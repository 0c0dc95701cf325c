"""vLLM's own server on the CPU, as a process of its own that can be killed. `make test-peers` installs it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference.adapters.model_files import SMOLLM2

_ROOT = Path(__file__).resolve().parents[2]
_PYTHON = _ROOT / ".tools/peers/vllm/bin/python"
INSTALLED = _ROOT / ".tools/peers/vllm/installed"
_MODEL = _ROOT / ".tools/peers/smollm2"
# Loading, and compiling for this CPU.
_START_S = 900.0
_CONVERT = """
import sys, torch, transformers as hf
source, target = sys.argv[1:]
folder, _, file = source.rpartition("/")
read = hf.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.bfloat16)
if hasattr(read.config, "quantization_config"):
    del read.config.quantization_config
plain = type(read)(read.config).to(torch.bfloat16)
plain.load_state_dict(read.state_dict())
plain.save_pretrained(target)
hf.AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)
"""


@dataclass(frozen=True)
class VllmServer:
    """A running server: its base URL, and its process, which leads a group of its own."""

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it and all that it started, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def vllm_server() -> Iterator[VllmServer]:
    """A server with SmolLM2 in bfloat16, ready; killed at the end."""
    if not (_MODEL / "config.json").exists():
        subprocess.run([sys.executable, "-c", _CONVERT, SMOLLM2.path(), _MODEL], check=True, timeout=_START_S)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    options = {
        "--model": _MODEL, "--served-model-name": "smollm2", "--host": "127.0.0.1", "--port": port,
        "--dtype": "bfloat16", "--max-model-len": 2048, "--max-num-seqs": 4, "--tool-call-parser": "hermes",
    }  # fmt: skip
    flags = ["--enforce-eager", "--enable-auto-tool-choice"]
    command = [_PYTHON, "-m", "vllm.entrypoints.openai.api_server", *flags]
    command += [str(word) for pair in options.items() for word in pair]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = _ROOT / ".tools/peers/vllm.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        server = VllmServer(f"http://127.0.0.1:{port}/v1", process)
        try:
            _wait_ready(server, port, log)
            yield server
        finally:
            server.kill()
            process.wait()


def _wait_ready(server: VllmServer, port: int, log: Path) -> None:
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends:
        assert server.process.poll() is None, log.read_text(errors="replace")[-3000:]
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise AssertionError(f"not ready within {_START_S:.0f} s: {log.read_text(errors='replace')[-3000:]}")
