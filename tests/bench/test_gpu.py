"""The CUDA benchmark as far as a machine without a device can say: what it imports, how it counts, how it declines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import measure
from bench.gpu.model import LLAMA3_8B, bytes_per_step, kv_bytes_per_token
from bench.gpu.workload import Clients, Work
from tests.unit.inference.cuda.launching_runner import LaunchingFake

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_it_says_so_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {"bench": "gpu", "figures": [], "skipped": "no CUDA device"}


def test_a_plain_checkout_is_enough() -> None:
    """Only torch, triton, transformers and numpy are asked of the machine, and safetensors, which transformers brings.

    Whatever else our own modules import fails here, also while a model is made and a step is run.
    """
    code = """
import builtins, os, sys
os.environ["TRITON_INTERPRET"] = "1"
allowed = {*sys.stdlib_module_names, "torch", "triton", "transformers", "numpy", "safetensors", "bench", "inference"}
own = builtins.__import__

def checked(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").split(".")[0]
    if importer in ("bench", "inference") and not level and name.split(".")[0] not in allowed:
        raise ModuleNotFoundError(f"{globals['__name__']} imports {name}")
    return own(name, globals, locals, fromlist, level)

builtins.__import__ = checked
import dataclasses
import bench.gpu.__main__
from bench.gpu.measure import CudaRunner, Peer
from bench.gpu.model import LLAMA3_8B, random_checkpoint
from bench.gpu.workload import Clients, Work
import torch

small = dataclasses.replace(
    LLAMA3_8B, layers=1, hidden=32, intermediate=32, heads=2, kv_heads=1, head_dim=16, vocab_size=64, eos_ids=(1,),
    context_length=64, windows=(0,))
runner = CudaRunner(random_checkpoint(small, torch.device("cpu")), torch.device("cpu"), "int4", 16, graph_rows=2)
print(Clients(runner, 2, Work(prompt=3, answer=2, rounds=2)).run().tokens)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 0


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
    # Layers in half a byte and a scale and a minimum of two for 32; the output layer in a byte and as much.
    layers = parameters - 2 * embedding - 4096
    assert bytes_per_step(LLAMA3_8B, "int4") == layers * 5 // 8 + embedding * 9 // 8


def test_one_that_fails_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Device time is rare: bfloat16 and int4 are measured though fp8 breaks, and the failure is told."""

    def measured(precision: str, setting: measure.Setting, peers: dict[int, float]) -> list[dict[str, str]]:
        if precision == "fp8":
            raise RuntimeError("no such kernel")
        return [{"name": precision}]

    monkeypatch.setattr(measure, "measure_precision", measured)
    monkeypatch.setattr(measure, "transformers_tok_s", lambda setting: {})
    monkeypatch.setattr(measure, "copy_bandwidth", lambda device: 4e12)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a device")
    figures, failed = measure.measure(quick=False, only=None, kv="auto")
    assert [figure["name"] for figure in figures] == ["gpu_copy_tb_s", "bfloat16", "int4"]
    assert failed == ["fp8"]
    assert "no such kernel" in capsys.readouterr().err
