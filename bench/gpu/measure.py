"""The measurements: this engine's by precision and number of streams, and transformers' beside them."""

from __future__ import annotations

import gc
import time
import traceback
from dataclasses import dataclass
from typing import Any

import torch

from bench.gpu.bandwidth import copy_bandwidth
from bench.gpu.model import LLAMA3_8B, bytes_per_step, embedding_bytes, kv_bytes_per_token, random_checkpoint
from bench.gpu.transformers_generate import Peer
from bench.gpu.workload import Clients, Measured, Work
from inference.adapters.torch.cuda.runner import CudaRunner

STREAMS = (1, 16, 64, 128)
TARGETS = {"gpu_fp8_tok_s_64": 12000, "gpu_fp8_ttft_ms_64": 100, "gpu_bf16_roofline_1": 0.75}
SHORT = {"bfloat16": "bf16", "fp8": "fp8", "int4": "int4", "int8": "int8"}
# What a full run measures, in this order: the last only if it began less than so many seconds ago.
FULL = ("bfloat16", "fp8", "int4")
_TIME_FOR_THE_LAST_S = 360
BLOCK = 16
HEADER = (
    f"{'streams':>8}{'tok/s':>9}{'transformers':>14}{'ttft p50':>10}{'p95':>8}{'burst':>8}{'step':>8}{'roofline':>10}"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What holds for a whole run. Bandwidth in bytes a second."""

    device: torch.device
    kv: str
    streams: tuple[int, ...]
    work: Work
    bandwidth: float


def measure(quick: bool, only: str | None, kv: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Every figure of the device, printed as it comes, and the precisions that failed, with a traceback each."""
    began = time.monotonic()
    device, work = torch.device("cuda"), Work(rounds=2 if quick else 4)
    setting = Setting(device, kv, (1, 64) if quick else STREAMS, work, copy_bandwidth(device))
    free_memory()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; Llama-3-8B shapes, random weights, greedy;")
    print(f"{work.prompt} tokens in, {work.answer} out; copies at {setting.bandwidth / 1e12:.2f} TB/s; KV in {kv}.")
    print("Closed loop: a client sends its next prompt when an answer ends; arrivals are evenly spread, after a first")
    print("round in which all come at once (burst: the median first token of that round). Times in milliseconds.")
    figures = [figure("gpu_copy_tb_s", setting.bandwidth / 1e12, "TB/s")]
    peers = {} if quick or only not in (None, "bfloat16") else transformers_tok_s(setting)
    failed = []
    for precision in FULL if only is None else (only,):
        if precision == FULL[-1] and only is None and time.monotonic() - began > _TIME_FOR_THE_LAST_S:
            print(f"\n{precision}: left out, for time")
            continue
        try:
            figures += measure_precision(precision, setting, peers)
        except Exception:
            # Device time is rare: what the others would show is not lost with this one.
            traceback.print_exc()
            failed.append(precision)
        free_memory()
    return figures, failed


def measure_precision(precision: str, setting: Setting, peers: dict[int, float]) -> list[dict[str, Any]]:
    """One precision at each number of streams that memory has room for."""
    work, short = setting.work, SHORT[precision]
    each = -(-(work.prompt + work.answer) // BLOCK) + 1
    blocks = min(max(setting.streams) * each + 64, blocks_that_fit(precision, setting.kv))
    fitting = [n for n in setting.streams if n * each <= blocks]
    if not fitting:
        print(f"\n{short}: the model does not fit this device")
        return []
    began = time.perf_counter()
    checkpoint = random_checkpoint(LLAMA3_8B, setting.device)
    runner = CudaRunner(checkpoint, setting.device, precision, blocks, kv_precision=setting.kv)
    print(f"\n{short}: ready after {time.perf_counter() - began:.0f} s (weights drawn, kernels compiled and timed)")
    print(HEADER)
    figures = []
    for n in fitting:
        result = Clients(runner, n, work).run()
        share = floor_seconds(precision, n, setting) / result.step_median
        print(line(n, result, peers.get(n), share), flush=True)
        figures += figures_of(f"gpu_{short}", n, result, peers.get(n), share)
    runner.close()
    return figures


def blocks_that_fit(precision: str, kv: str) -> int:
    """KV blocks beside the weights, the input embedding included, with room for a step's own memory."""
    weights = bytes_per_step(LLAMA3_8B, precision) + embedding_bytes(LLAMA3_8B, precision)
    memory_check = int(0.85 * torch.cuda.mem_get_info()[0]) - weights
    return memory_check // (BLOCK * kv_bytes_per_token(LLAMA3_8B, kv))


def floor_seconds(precision: str, streams: int, setting: Setting) -> float:
    """What reading a step's bytes takes: the weights, and of every stream the prompt and half the answer."""
    context = setting.work.prompt + setting.work.answer // 2
    kv = streams * context * kv_bytes_per_token(LLAMA3_8B, setting.kv)
    return (bytes_per_step(LLAMA3_8B, precision) + kv) / setting.bandwidth


def line(streams: int, result: Measured, peer: float | None, share: float) -> str:
    """A row of the table."""
    beside = f"{peer:>14.0f}" if peer else f"{'-':>14}"
    times = f"{1000 * result.ttft_median:>10.1f}{1000 * result.ttft_p95:>8.1f}{1000 * result.burst_ttft_median:>8.0f}"
    return f"{streams:>8}{result.tok_s:>9.0f}{beside}{times}{1000 * result.step_median:>8.2f}{share:>10.2f}"


def figures_of(prefix: str, streams: int, result: Measured, peer: float | None, share: float) -> list[dict[str, Any]]:
    """A row's figures by name."""
    return [
        figure(f"{prefix}_tok_s_{streams}", result.tok_s, "tok/s", {"transformers": peer} if peer else {}),
        figure(f"{prefix}_ttft_ms_{streams}", 1000 * result.ttft_median, "ms"),
        figure(f"{prefix}_ttft_p95_ms_{streams}", 1000 * result.ttft_p95, "ms"),
        figure(f"{prefix}_ttft_burst_ms_{streams}", 1000 * result.burst_ttft_median, "ms"),
        figure(f"{prefix}_roofline_{streams}", share, "share"),
        figure(f"{prefix}_kv_waste_{streams}", result.kv_waste, "share"),
    ]


def transformers_tok_s(setting: Setting) -> dict[int, float]:
    """The peer's tokens a second by streams; fewer, with a word, where transformers cannot run them."""
    measured: dict[int, float] = {}
    try:
        peer = Peer(LLAMA3_8B, setting.device)
        for n in setting.streams:
            measured[n] = peer.tok_s(n, setting.work)
    except Exception as error:
        # Whatever keeps the peer from running keeps ours from nothing.
        print(f"transformers was measured at {list(measured) or 'no'} streams only: {error}")
    peer = None
    free_memory()
    return measured


def figure(name: str, value: float, unit: str, peers: dict[str, float] | None = None) -> dict[str, Any]:
    """One figure as every benchmark hands it over."""
    rounded = {key: round(peer, 1) for key, peer in (peers or {}).items()}
    return {"name": name, "value": round(value, 3), "unit": unit, "target": TARGETS.get(name), "peers": rounded}


def free_memory() -> None:
    """Give the device's memory back."""
    gc.collect()
    torch.cuda.empty_cache()
