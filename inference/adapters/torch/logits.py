"""Greedy choice and confidence out of logits, in torch: what the native kernel is held to, and what runs elsewhere."""

from __future__ import annotations

import torch

from .runner_api import LogitsSummary


def summarize(logits: torch.Tensor) -> LogitsSummary:
    """See ModelRunner.summarize."""
    best = logits.argmax(dim=-1)
    top = logits.topk(2, dim=-1).values
    logsumexp = logits.logsumexp(dim=-1)
    logprobs = logits - logsumexp[:, None]
    entropy = -(logprobs.exp() * logprobs.nan_to_num(neginf=0.0)).sum(dim=-1)
    return LogitsSummary(best, top[:, 0] - logsumexp, top[:, 0] - top[:, 1], entropy, logsumexp)
