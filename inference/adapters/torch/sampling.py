"""Drawing tokens from a step's logits, for the whole batch at once, on the device that the logits are on.

Order of operations: penalties and bias, grammar mask, temperature, top-k, top-p over what top-k left, min-p. Log
probabilities and confidence are those of the model's own distribution, before any of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inference.core.counter_rng import uniform

from .runner_api import Candidates, LogitsSummary, ModelRunner
from .sampling_table import Adjustments, RequestRows, SamplingTable

# How many of the best tokens to look at first; rows whose draw falls beyond are looked at again.
FIRST_CANDIDATES = 64
MORE_CANDIDATES = 1024

# Of an adjusted logit: finite after a division by the lowest temperature as well.
_LARGEST = 1e30

TopLogprobs = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Filters:
    """How the rows of a draw are cut down; every tensor has D entries on the logits' device."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def pick(self, rows: torch.Tensor) -> Filters:
        """The filters of some of the rows."""
        return Filters(self.temperature[rows], self.top_k[rows], self.top_p[rows], self.min_p[rows])


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token for each row, on the host."""

    tokens: NDArray[np.int32]
    logprob: NDArray[np.float32]
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]
    # The best alternatives of the rows that asked for them.
    top: dict[int, TopLogprobs]
    # Whether the row's logits were finite; what is drawn from others means nothing.
    finite: NDArray[np.bool_]


class Sampler:
    """Draws for a runner's logits as a sampling table says. Used on the engine's thread only."""

    def __init__(self, runner: ModelRunner, table: SamplingTable) -> None:
        self._runner = runner
        self._table = table

    def draw(
        self,
        logits: torch.Tensor,
        request_rows: RequestRows,
        positions: NDArray[np.int64],
        allowed: torch.Tensor | None = None,
    ) -> Drawn:
        """Draw one token for each row of `logits` [R, vocab], which is used up.

        `positions[i]` numbers the token in its answer: with the request row's seed it fixes the random number.
        `allowed`, on the host, is a mask as in ModelRunner.summarize.
        """
        table, device = self._table, logits.device
        allowed = None if allowed is None else allowed.to(device, non_blocking=True)
        summary = self._runner.summarize(logits, allowed)
        finite = finite_rows(logits, summary)
        if not finite.all():
            # Whatever is drawn from them counts for nothing, but must not disturb the rows beside them.
            logits[torch.from_numpy(~finite).to(device)] = 0.0
            summary = self._runner.summarize(logits, allowed)
        top = self._top(logits, summary, table.logprobs[request_rows])
        special = np.flatnonzero(table.special[request_rows])
        if not len(special):
            return _to_host(summary.best, summary.best_logprob, summary, top, finite)
        adjustments = table.adjustments(request_rows)
        raw = None if adjustments is None else _adjust(logits, adjustments)
        try:
            tokens = self._draw_special(
                logits, summary, special, request_rows=request_rows, positions=positions, allowed=allowed
            )
        finally:
            if raw is not None and adjustments is not None:
                _restore(logits, adjustments, raw)
        logprob = summary.best_logprob.clone()
        rows = torch.from_numpy(special).to(device)
        logprob[rows] = logits[rows, tokens[rows]] - summary.logsumexp[rows]
        return _to_host(tokens, logprob, summary, top, finite)

    def _draw_special(
        self,
        logits: torch.Tensor,
        summary: LogitsSummary,
        special: NDArray[np.intp],
        *,
        request_rows: RequestRows,
        positions: NDArray[np.int64],
        allowed: torch.Tensor | None,
    ) -> torch.Tensor:
        """The tokens of all rows, where those of `special` are not simply the best of the logits as they came."""
        table, device = self._table, logits.device
        tokens = summary.best.clone()
        is_hot = table.temperature[request_rows[special]] > 0
        adjusted, hot = special[~is_hot], special[is_hot]
        if len(adjusted):
            rows = torch.from_numpy(adjusted).to(device)
            tokens[rows] = self._runner.summarize(logits[rows], None if allowed is None else allowed[rows]).best
        if len(hot):
            rows = torch.from_numpy(hot).to(device)
            tokens[rows] = self._draw_hot(logits, rows, request_rows[hot], positions[hot], allowed)
        return tokens

    def _draw_hot(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        request_rows: RequestRows,
        positions: NDArray[np.int64],
        allowed: torch.Tensor | None,
    ) -> torch.Tensor:
        table, device = self._table, logits.device
        filters = Filters(
            torch.from_numpy(table.temperature[request_rows]).to(device),
            torch.from_numpy(table.top_k[request_rows]).to(device),
            torch.from_numpy(table.top_p[request_rows]).to(device),
            torch.from_numpy(table.min_p[request_rows]).to(device),
        )
        chance = torch.from_numpy(uniform(table.seed[request_rows], table.stream[request_rows], positions)).to(device)
        return draw_rows(self._runner, logits, rows, filters, chance, allowed=allowed)

    def _top(self, logits: torch.Tensor, summary: LogitsSummary, wanted: NDArray[np.int32]) -> dict[int, TopLogprobs]:
        rows = np.flatnonzero(wanted > 0)
        if not len(rows):
            return {}
        on_device = torch.from_numpy(rows).to(logits.device)
        best = logits[on_device].topk(min(int(wanted.max()), logits.shape[1]), dim=-1)
        logprobs = (best.values - summary.logsumexp[on_device, None]).tolist()
        return {
            int(row): tuple(zip(ids[: wanted[row]], values[: wanted[row]], strict=True))
            for row, ids, values in zip(rows, best.indices.tolist(), logprobs, strict=True)
        }


def draw_rows(
    runner: ModelRunner,
    logits: torch.Tensor,
    rows: torch.Tensor,
    filters: Filters,
    chance: torch.Tensor,
    *,
    allowed: torch.Tensor | None = None,
) -> torch.Tensor:
    """Inverse-transform sampling, best token first: int64 [D] for D of the rows of `logits`, `chance` [D] in [0, 1).

    Only as many of the best tokens are sorted as the draws turn out to need.
    """
    vocab = logits.shape[1]
    tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    left = torch.arange(len(rows), device=logits.device)
    for count in (FIRST_CANDIDATES, MORE_CANDIDATES, vocab):
        some = filters.pick(left)
        best = runner.candidates(logits, rows[left], some.temperature, min(count, vocab), allowed)
        drawn, certain = draw_among(best, some, chance[left], vocab)
        tokens[left[certain]] = drawn[certain]
        left = left[~certain]
        if not len(left):
            break
    return tokens


def draw_among(
    best: Candidates, filters: Filters, chance: torch.Tensor, vocab: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw among the best tokens; also says of each row whether they were enough to be certain."""
    probs = (best.values.double() - best.logsumexp[:, None]).exp()
    count = probs.shape[1]
    rank = torch.arange(count, device=probs.device)
    mass = probs.cumsum(dim=-1)
    # Nothing that could be drawn lies beyond these.
    whole = probs[:, -1] == 0 if count < vocab else torch.ones_like(chance, dtype=torch.bool)
    # Mass that top-k leaves. Where k reaches beyond the candidates it is not known; the row is then not certain.
    k = filters.top_k.long()
    left = torch.where(k > 0, mass.gather(1, (k - 1).clamp(0, count - 1)[:, None])[:, 0], 1.0)
    keep = (mass - probs < filters.top_p[:, None] * left[:, None]) & (probs >= filters.min_p[:, None] * probs[:, :1])
    keep &= ((k[:, None] == 0) | (rank < k[:, None])) & (probs > 0)
    # The best token always stays, whatever rounding does.
    keep[:, 0] = True
    plain = (k == 0) & (filters.top_p >= 1) & (filters.min_p <= 0)
    certain = whole | torch.where(plain, chance < mass[:, -1], ~keep[:, -1] & (k <= count))
    kept = torch.where(keep, probs, 0.0).cumsum(dim=-1)
    total = torch.where(plain & (kept[:, -1] < 1) & ~whole, 1.0, kept[:, -1])
    place = (kept <= (chance * total)[:, None]).sum(dim=-1)
    last = keep.sum(dim=-1) - 1
    return best.tokens.gather(1, torch.minimum(place, last)[:, None])[:, 0], certain


def finite_rows(logits: torch.Tensor, summary: LogitsSummary) -> NDArray[np.bool_]:
    """Whether each row of `logits` [R, vocab] can be drawn from: no NaN, no infinity but minus infinity beside others.

    A sum sees them all in one quick pass; summaries may pass over a single one.
    """
    total = logits.sum(dim=-1)
    fine = ~total.isnan() & ~total.isposinf() & summary.logsumexp.isfinite()
    finite: NDArray[np.bool_] = fine.cpu().numpy()
    return finite


def _adjust(logits: torch.Tensor, changes: Adjustments) -> torch.Tensor:
    """Apply penalties and biases; the values before, for `_restore`."""
    device = logits.device
    place = torch.from_numpy(changes.row).to(device), torch.from_numpy(changes.token).to(device)
    raw = logits[place]
    repetition = torch.from_numpy(changes.repetition).to(device)
    changed = torch.where(raw > 0, raw / repetition, raw * repetition) + torch.from_numpy(changes.shift).to(device)
    # A repetition penalty near 0 would make infinities, which softmax cannot be taken of.
    logits[place] = changed.clamp(-_LARGEST, _LARGEST)
    return raw


def _restore(logits: torch.Tensor, changes: Adjustments, raw: torch.Tensor) -> None:
    device = logits.device
    logits[torch.from_numpy(changes.row).to(device), torch.from_numpy(changes.token).to(device)] = raw


def _to_host(
    tokens: torch.Tensor,
    logprob: torch.Tensor,
    summary: LogitsSummary,
    top: dict[int, TopLogprobs],
    finite: NDArray[np.bool_],
) -> Drawn:
    """One transfer, and with it one wait for the device. Token ids are exact in float64."""
    if not tokens.is_cuda:
        floats = logprob.numpy(), summary.entropy.numpy(), summary.margin.numpy()
        return Drawn(tokens.numpy().astype(np.int32), *floats, top, finite)
    columns = torch.stack((tokens.double(), logprob.double(), summary.entropy.double(), summary.margin.double()))
    host = columns.cpu().numpy()
    logprobs, entropy, margin = host[1:].astype(np.float32)
    return Drawn(host[0].astype(np.int32), logprobs, entropy, margin, top, finite)
