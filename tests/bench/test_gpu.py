"""The CUDA benchmark as far as a machine without a device can say: what it imports, how it counts, how it declines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu.model import LLAMA3_8B, bytes_per_step, kv_bytes_per_token
from bench.gpu.workload import Clients, Work
from tests.unit.inference.cuda.launching_runner import LaunchingFake

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_it_says_so_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {"bench": "gpu", "figures": [], "skipped": "no CUDA device"}


def test_a_plain_checkout_is_enough() -> None:
    """Only torch, triton, transformers and numpy are asked of the machine."""
    code = """
import sys
import bench.gpu.__main__, bench.gpu.measure
print(sorted({name.split('.')[0] for name in sys.modules} & {
    'grpc', 'google', 'msgspec', 'gguf', 'structlog', 'xgrammar', 'numba', 'jinja2', 'prometheus_client', 'tenacity',
    'uvloop', 'yaml', 'mesh', 'headrace'}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_clients_send_their_rounds_and_every_token_is_counted() -> None:
    """A first round of spread lengths, then full ones; the window counts tokens of the steady state alone."""
    runner = LaunchingFake(num_blocks=64)
    clients = Clients(runner, 4, Work(prompt=20, answer=12, rounds=2))
    measured = clients.run()
    done = clients._done
    assert [sum(r.round == number for r in done) for number in range(3)] == [4, 4, 4]
    assert sorted(r.tokens for r in done if r.round == 0) == [3, 6, 9, 12]
    assert all(r.tokens == 12 and len(r.gaps) == 11 for r in done if r.round)
    assert 0 < measured.tokens < sum(r.tokens for r in done)
    assert measured.tok_s == pytest.approx(measured.tokens / measured.seconds)
    assert 0 < measured.ttft_median <= measured.ttft_p95
    assert clients._stepper.scheduler.pool.held == 0


def test_roofline_counts_the_bytes_of_the_public_model() -> None:
    """Llama 3 8B has 8.03 billion parameters, 0.53 of them in the input embedding, which a step does not read."""
    parameters = 8_030_261_248
    embedding = 128256 * 4096
    assert bytes_per_step(LLAMA3_8B, "bfloat16") == 2 * (parameters - embedding - 4096)
    assert kv_bytes_per_token(LLAMA3_8B, "auto") == 131072
