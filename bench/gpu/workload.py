"""Clients in a closed loop over the engine's own step, as the engine's thread drives it.

How requests arrive: every client sends a prompt of its own, waits for the whole answer, and sends the next at once. In
the first round all arrive together (the burst) and ask for answers of evenly spread lengths, so that later requests
arrive one by one at an even pace. Throughput and first-token times are taken over the rounds after that; the burst's
first-token times are reported apart.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

import numpy as np

from inference.adapters.torch.cuda.launching import LaunchingRunner
from inference.adapters.torch.cuda.overlapped import OverlappedStepper
from inference.adapters.torch.event_queue import Delivery, EventQueue
from inference.adapters.torch.generation import Generation
from inference.adapters.torch.sampling_table import SamplingTable
from inference.core.blocks import BlockPool
from inference.core.port import EngineRequest, SamplingParams
from inference.core.scheduling.scheduled_step import Limits
from inference.core.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens in and out of each request, and how many requests each client sends after its first."""

    prompt: int = 512
    answer: int = 256
    rounds: int = 4

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise ValueError("rounds must be at least 2: the first client is through with one when the last begins it")


@dataclass(slots=True)
class _Request:
    client: int
    round: int
    sent: float
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds, tokens a second, shares."""

    tok_s: float
    ttft_median: float
    ttft_p95: float
    burst_ttft_median: float
    step_median: float
    kv_waste: float
    tokens: int
    seconds: float


class Clients:
    """`streams` clients and the engine between them; run once."""

    def __init__(self, runner: LaunchingRunner, streams: int, work: Work, seed: int = 0) -> None:
        limits = Limits(streams, streams + work.prompt, work.prompt + work.answer)
        # Prompts are all different: without a prompt cache nothing is hashed in vain.
        pool = BlockPool(runner.num_blocks, runner.block_size, share_prefixes=False)
        self._stepper = OverlappedStepper(runner, Scheduler(limits, pool), SamplingTable(streams), streams)
        self._work, self._streams = work, streams
        self._vocabulary = runner.spec.vocab_size
        self._rng = np.random.default_rng(seed)
        self._open: dict[int, tuple[_Request, Generation]] = {}
        self._done: list[_Request] = []
        self._ramping = streams
        self._window: tuple[float, float] = (0.0, 0.0)
        self._counted = 0
        self._waste: list[float] = []

    def run(self) -> Measured:
        """Every client's rounds."""
        for client in range(self._streams):
            self._send(client, 0, self._work.answer * (client + 1) // self._streams)
        while self._open:
            deliveries = self._stepper.step()
            now = time.perf_counter()
            for delivery in deliveries:
                self._take(delivery, now)
            if not self._ramping:
                self._waste.append(self._stepper.scheduler.waste())
        return self._measured()

    def _send(self, client: int, number: int, answer: int) -> None:
        prompt = tuple(self._rng.integers(0, self._vocabulary, self._work.prompt).tolist())
        params = SamplingParams(max_tokens=max(1, answer), temperature=0.0, ignore_eos=True)
        generation = Generation(EngineRequest(f"{client}.{number}", prompt, params), EventQueue(), time.monotonic())
        self._open[id(generation.event_queue)] = _Request(client, number, time.perf_counter()), generation
        self._stepper.add(generation)

    def _take(self, delivery: Delivery, now: float) -> None:
        request, _generation = self._open[id(delivery.event_queue)]
        if delivery.gain is not None and delivery.gain.token is not None:
            if request.tokens == 0:
                request.first = now
            else:
                request.gaps.append(now - request.last)
            request.last = now
            request.tokens += 1
            if not self._ramping and now <= self._window[1]:
                self._counted += 1
        if delivery.end is not None:
            if isinstance(delivery.end, Exception):
                raise delivery.end
            self._ended(request, delivery, now)

    def _ended(self, request: _Request, delivery: Delivery, now: float) -> None:
        del self._open[id(delivery.event_queue)]
        self._done.append(request)
        if request.round == 0:
            self._ramping -= 1
            if not self._ramping:
                # The window opens with the last of the first round, and closes when a client has nothing more to send.
                self._window = now, float("inf")
        if request.round < self._work.rounds:
            self._send(request.client, request.round + 1, self._work.answer)
        elif self._window[1] == float("inf"):
            self._window = self._window[0], now

    def _measured(self) -> Measured:
        begin, end = self._window
        steady = [r for r in self._done if begin <= r.sent <= end] or [r for r in self._done if r.round > 0]
        first = sorted(r.first - r.sent for r in steady)
        gaps = [gap for r in steady for gap in r.gaps]
        return Measured(
            tok_s=self._counted / (end - begin),
            ttft_median=statistics.median(first),
            ttft_p95=first[min(len(first) - 1, int(0.95 * len(first)))],
            burst_ttft_median=statistics.median(r.first - r.sent for r in self._done if r.round == 0),
            step_median=statistics.median(gaps),
            kv_waste=statistics.mean(self._waste),
            tokens=self._counted,
            seconds=end - begin,
        )
