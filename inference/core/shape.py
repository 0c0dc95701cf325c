"""What a decoder is, as far as its memory and its pace follow from it."""

from __future__ import annotations

from dataclasses import dataclass


class SizingError(ValueError):
    """A config that says too little or nothing to size by; the message names what is missing."""


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention: a position's keys and values are one vector of `kv_rank`, and a rotated key.

    Source: DeepSeek-AI, "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model", 2024.
    """

    kv_rank: int
    # Width of the vector that queries are made of; 0: they are made of the residual stream.
    query_rank: int
    # Of each head: what is rotated and what is not of a query and key, and the value.
    rotated: int
    plain: int
    value: int
    # Width of the key by which positions are picked before attention (DeepSeek-V3.2); 0: all are attended to.
    index_key: int = 0

    @property
    def cached(self) -> int:
        """Numbers that a layer keeps of a token."""
        return self.kv_rank + self.rotated + self.index_key

    def weights(self, hidden: int, heads: int) -> int:
        """Weights of one layer's projections and their norms."""
        head = self.rotated + self.plain
        made_of = self.query_rank or hidden
        queries = made_of * heads * head + self.query_rank * (hidden + 1)
        keys = hidden * (self.kv_rank + self.rotated) + self.kv_rank * (1 + heads * (self.plain + self.value))
        return queries + keys + heads * self.value * hidden


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a decoder that its memory follows from."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab_size: int
    context_length: int
    tied: bool
    # Mixture of experts: how many there are, how many a token passes, how wide each is, and the width of those that
    # every token passes. 0 experts: an ordinary feed-forward layer.
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    # Layers whose feed-forward is ordinary though others have experts.
    dense_layers: int = 0
    # Layers that see a sliding window only, and its length.
    windowed_layers: int = 0
    window: int = 0
    # Layers that keep no keys and values, such as those with linear attention.
    cacheless_layers: int = 0
    latent: LatentAttention | None = None

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's attention and norms."""
        if self.latent is not None:
            return self.latent.weights(self.hidden, self.heads) + 2 * self.hidden
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (2 * queries + 2 * keys) + 2 * self.hidden

    def feed_forward_weights(self, *, active: bool) -> int:
        """Weights of all feed-forward layers; `active`: only those that one token passes."""
        ordinary = 3 * self.hidden * self.intermediate
        if not self.experts:
            return self.layers * ordinary
        count = self.active_experts if active else self.experts
        routed = 3 * self.hidden * (count * self.expert_intermediate + self.shared_intermediate)
        routed += self.hidden * self.experts
        return self.dense_layers * ordinary + (self.layers - self.dense_layers) * routed

    @property
    def embedding_weights(self) -> int:
        """Weights of one vocabulary table."""
        return self.vocab_size * self.hidden

    @property
    def weights(self) -> int:
        """All weights."""
        tables = self.embedding_weights * (1 if self.tied else 2)
        return self.layers * self.attention_weights + self.feed_forward_weights(active=False) + tables + self.hidden

    @property
    def active_weights(self) -> int:
        """Weights that one token's pass reads; of the embedding only its row, so just the output table counts."""
        body = self.layers * self.attention_weights + self.feed_forward_weights(active=True)
        return body + self.embedding_weights + self.hidden

    def weights_read(self, sequences: int) -> int:
        """Weights that a step over `sequences` reads: with experts, those that any of them is expected to pass."""
        if not self.experts:
            return self.active_weights
        # Each token misses an expert with this chance, if routing is even.
        missed = (1 - self.active_experts / self.experts) ** sequences
        routed = (self.layers - self.dense_layers) * 3 * self.hidden * self.expert_intermediate
        return self.active_weights + int(routed * (self.experts * (1 - missed) - self.active_experts))

    @property
    def cache_heads(self) -> int:
        """Parts that a token's cache can be split in between devices: a latent vector is needed whole by every head."""
        return 1 if self.latent is not None else self.kv_heads

    @property
    def cache_width(self) -> int:
        """Numbers that share a scale where the cache has one."""
        return self.latent.cached if self.latent is not None else self.head_dim

    @property
    def attention_width(self) -> int:
        """A token's queries, keys and values in one layer, as they are computed."""
        if self.latent is None:
            return (self.heads + 2 * self.kv_heads) * self.head_dim
        head = self.latent.rotated + self.latent.plain
        return self.heads * (2 * head + self.latent.value) + self.latent.cached + self.latent.query_rank

    def kv_values(self, tokens: int) -> int:
        """Numbers that the keys and values of a sequence of `tokens` are, over all layers."""
        per_layer = self.latent.cached if self.latent is not None else 2 * self.kv_heads * self.head_dim
        windowed = min(tokens, self.window) if self.window else tokens
        whole = self.layers - self.windowed_layers - self.cacheless_layers
        return per_layer * (whole * tokens + self.windowed_layers * windowed)
