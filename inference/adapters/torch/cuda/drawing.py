"""Drawing a step's tokens on the device, with nothing waited for, and their way to the host afterwards."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from inference.adapters.torch.sampling import Drawn, Filters
from inference.adapters.torch.sampling_table import RequestRows, SamplingTable
from inference.core.counter_rng import uniform

from .launching import Launched, LaunchingRunner
from .transfer import to_device


class Fetch:
    """One transfer of a step's results to the host, begun when made."""

    def __init__(
        self, tokens: torch.Tensor, logprob: torch.Tensor, entropy: torch.Tensor, margin: torch.Tensor
    ) -> None:
        # Token ids are exact in float64.
        columns = torch.stack((tokens.double(), logprob.double(), entropy.double(), margin.double()))
        self._event: torch.cuda.Event | None = None
        self._host = columns
        if columns.is_cuda:
            self._host = torch.empty(columns.shape, dtype=columns.dtype, pin_memory=True)
            self._host.copy_(columns, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
            self._event.record()

    def wait(self) -> Drawn:
        """The results; waits for the device to have made them."""
        if self._event is not None:
            self._event.synchronize()
        host = self._host.numpy()
        logprob, entropy, margin = host[1:].astype(np.float32)
        # Each is made of all of a row's logits.
        finite = np.isfinite(host[1:]).all(axis=0)
        return Drawn(host[0].astype(np.int32), logprob, entropy, margin, {}, finite)


class Mark:
    """The end of a step that draws nothing: something to wait for, so that the host is never more than a step ahead."""

    def __init__(self, launched: Launched) -> None:
        self._event: torch.cuda.Event | None = None
        if launched.drawn.is_cuda:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
            self._event.record()

    def wait(self) -> None:
        """Wait for the device to have come here."""
        if self._event is not None:
            self._event.synchronize()


def draw(
    runner: LaunchingRunner,
    launched: Launched,
    table: SamplingTable,
    request_rows: RequestRows,
    positions: NDArray[np.int64],
) -> Fetch:
    """Draw one token for each row into `launched.drawn`, as `Sampler.draw` would: same seed, same token.

    For tickets without penalties, biases, constraints or alternatives to report.
    """
    summary, logprob = launched.summary, launched.summary.best_logprob
    # Logits that are not finite may give any number, which the next step would take for a token.
    launched.drawn.clamp_(0, runner.spec.vocab_size - 1)
    hot = np.flatnonzero(table.temperature[request_rows] > 0)
    if len(hot):
        request_rows, positions = request_rows[hot], positions[hot]
        top_k = table.top_k[request_rows]
        chance = uniform(table.seed[request_rows], table.stream[request_rows], positions)
        columns = (
            hot,
            table.temperature[request_rows],
            top_k,
            table.top_p[request_rows],
            table.min_p[request_rows],
            chance,
        )
        _draw_hot(runner, launched, np.stack([column.astype(np.float64) for column in columns]))
        logprob = launched.logits.gather(1, launched.drawn[:, None])[:, 0] - summary.logsumexp
    return Fetch(launched.drawn, logprob, summary.entropy, summary.margin)


def _draw_hot(runner: LaunchingRunner, launched: Launched, columns: NDArray[np.float64]) -> None:
    """Overwrite the tokens of some rows; columns: row, temperature, top-k, top-p, min-p, chance."""
    on_device = to_device(columns, launched.logits.device)
    rows, top_k = on_device[0].long(), on_device[2].int()
    temperature, top_p, min_p = (on_device[i].float() for i in (1, 3, 4))
    filters = Filters(temperature, top_k, top_p, min_p)
    launched.drawn[rows] = runner.draw_rows(launched.logits, rows, filters, on_device[5])
