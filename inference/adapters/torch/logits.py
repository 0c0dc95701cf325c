"""What is drawn from, out of logits, in torch: what the native kernels are held to, and what runs elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .runner_api import Candidates, LogitsSummary

_WORD = 32


def summarize(logits: torch.Tensor, allowed: torch.Tensor | None = None) -> LogitsSummary:
    """See ModelRunner.summarize."""
    best = best_of(logits, allowed)
    top = logits.topk(2, dim=-1).values
    logsumexp = logits.logsumexp(dim=-1)
    logprobs = logits - logsumexp[:, None]
    entropy = -(logprobs.exp() * logprobs.nan_to_num(neginf=0.0)).sum(dim=-1)
    best_logprob = logprobs.gather(1, best[:, None])[:, 0]
    return LogitsSummary(best, best_logprob, top[:, 0] - top[:, 1], entropy, logsumexp)


def candidates(
    logits: torch.Tensor,
    rows: torch.Tensor,
    temperature: torch.Tensor,
    count: int,
    allowed: torch.Tensor | None = None,
    *,
    logsumexp: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows.logsumexp(dim=-1),
) -> Candidates:
    """See ModelRunner.candidates; `logsumexp` is that of a device which has a better one."""
    tempered = logits[rows] / temperature[:, None]
    if allowed is not None:
        tempered.masked_fill_(~allowed_tokens(allowed[rows], logits.shape[1]), -torch.inf)
    best = tempered.topk(count, dim=-1)
    return Candidates(best.values, best.indices, logsumexp(tempered))


def best_of(logits: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
    """The first of the largest logits that are allowed, int64 [R], be it minus infinity; 0 where nothing is allowed."""
    if allowed is None:
        return logits.argmax(dim=-1)
    may = allowed_tokens(allowed, logits.shape[1])
    best = logits.masked_fill(~may, -torch.inf).argmax(dim=-1, keepdim=True)
    return torch.where(may.gather(1, best), best, may.int().argmax(dim=-1, keepdim=True))[:, 0]


def allowed_tokens(words: torch.Tensor, width: int) -> torch.Tensor:
    """A mask's bits, bool [R, width], for int32 words [R, ceil(width / 32)]."""
    bits = (words[:, :, None] >> torch.arange(_WORD, dtype=torch.int32, device=words.device)) & 1
    return bits.reshape(len(words), -1)[:, :width] != 0
