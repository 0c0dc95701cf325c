"""The forward pass in torch, any device: the reference for the native kernels, and what runs where they do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from .experts import mixed, product, route
from .loading import Checkpoint, ModelConfig
from .lora import Lora, LoraPair
from .paged_attention import PagedKV, StepLayout
from .runner_api import StepBatch


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square norm over the last dimension, computed in float32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + eps)
    return (wide * weight.float()).to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding, halves paired; x [T, heads, d], cos and sin [T, r / 2] for the first r dimensions."""
    rotated = 2 * cos.shape[-1]
    first, second = x[..., :rotated].float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    parts = [(first * cos - second * sin).to(x.dtype), (second * cos + first * sin).to(x.dtype), x[..., rotated:]]
    return torch.cat(parts, dim=-1)


class StepAdapters:
    """The LoRA adapters of a step and the rows that each applies to."""

    def __init__(self, batch: StepBatch, loaded: dict[int, Lora], device: torch.device) -> None:
        counts = torch.from_numpy(batch.query_starts[1:] - batch.query_starts[:-1]).to(torch.int64)
        slots = torch.repeat_interleave(torch.from_numpy(batch.adapter_ids).to(torch.int64), counts)
        self._parts = [
            (loaded[int(slot)], (slots == slot).nonzero().squeeze(1).to(device))
            for slot in np.unique(batch.adapter_ids)
            if slot
        ]

    def add(self, y: torch.Tensor, x: torch.Tensor, place: tuple[int, str]) -> torch.Tensor:
        """Y with each adapter's share for input x added, in place."""
        for adapter, rows in self._parts:
            pair = adapter.get(place)
            if pair is not None:
                y[rows] += self._share(pair, x[rows])
        return y

    def _share(self, pair: LoraPair, x: torch.Tensor) -> torch.Tensor:
        return (x.float() @ pair.down.T @ pair.up.T).to(x.dtype)


class TorchNetwork:
    """A model's weights on a device, and one step over them."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self.config: ModelConfig = checkpoint.config
        self.device, self.dtype = device, dtype
        self._weights = {name: weight.dense().to(device, dtype) for name, weight in checkpoint.weights.items()}
        if self.config.tied:
            self._weights["lm_head.weight"] = self._weights["embed_tokens.weight"]
        self._frequencies = [
            torch.from_numpy(self.config.inverse_frequencies(layer)).to(device) for layer in range(self.config.layers)
        ]

    @torch.no_grad()
    def forward(self, batch: StepBatch, memory: PagedKV, loaded: dict[int, Lora]) -> torch.Tensor:
        """Logits in float32, [R, vocab]."""
        layout = StepLayout(batch, self.device)
        adapters = StepAdapters(batch, loaded, self.device)
        tokens = torch.from_numpy(batch.token_ids).to(self.device, torch.int64)
        x = F.embedding(tokens, self._weights["embed_tokens.weight"]) * self.config.embedding_scale
        for layer in range(self.config.layers):
            x = x + self._attention(layer, x, layout, memory, adapters)
            x = x + self._feed_forward(layer, x, adapters)
        x = x[torch.from_numpy(batch.logits_rows).to(self.device, torch.int64)]
        logits = self.product(self._norm(x, "norm"), "lm_head.weight").float()
        limit = self.config.logit_softcap
        return torch.tanh(logits / limit) * limit if limit else logits

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return rms_norm(x, self._weights[f"{name}.weight"], self.config.norm_eps)

    def _linear(self, x: torch.Tensor, layer: int, group: str, projection: str, adapters: StepAdapters) -> torch.Tensor:
        name = f"layers.{layer}.{group}.{projection}"
        y = self.product(x, f"{name}.weight")
        bias = self._weights.get(f"{name}.bias")
        return adapters.add(y if bias is None else y + bias, x, (layer, projection))

    def product(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Rows x [T, in] times the named weights [out, in]: the one place where precision is more than a dtype."""
        return F.linear(x, self._weights[name])

    def _attention(
        self, layer: int, x: torch.Tensor, layout: StepLayout, memory: PagedKV, adapters: StepAdapters
    ) -> torch.Tensor:
        c, prefix = self.config, f"layers.{layer}"
        x = self._norm(x, f"{prefix}.input_layernorm")
        q, k, v = (
            self._linear(x, layer, "self_attn", f"{kind}_proj", adapters).view(len(x), -1, c.head_dim) for kind in "qkv"
        )
        if c.qk_norm:
            q, k = self._norm(q, f"{prefix}.self_attn.q_norm"), self._norm(k, f"{prefix}.self_attn.k_norm")
        angles = layout.positions[:, None].float() * self._frequencies[layer]
        cos, sin = angles.cos() * c.rotation_scale, angles.sin() * c.rotation_scale
        qkv = rotate(q, cos, sin), rotate(k, cos, sin), v
        attended = memory.attend(layer, layout, qkv, c.attention_scale, c.windows[layer])
        y = self._linear(attended.flatten(1), layer, "self_attn", "o_proj", adapters)
        return self._norm(y, f"{prefix}.post_attention_layernorm") if c.post_norms else y

    def _feed_forward(self, layer: int, x: torch.Tensor, adapters: StepAdapters) -> torch.Tensor:
        c, prefix = self.config, f"layers.{layer}"
        before = "pre_feedforward_layernorm" if c.post_norms else "post_attention_layernorm"
        x = self._norm(x, f"{prefix}.{before}")
        if c.has_experts(layer):
            return self._mixture(layer, x)
        y = self._gated(x, lambda kind, rows: self._linear(rows, layer, "mlp", f"{kind}_proj", adapters))
        return self._norm(y, f"{prefix}.post_feedforward_layernorm") if c.post_norms else y

    def _gated(self, x: torch.Tensor, linear: Callable[[str, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """A gated feed-forward part; `linear` computes its "gate", "up" and "down"."""
        gate = linear("gate", x)
        gate = F.silu(gate) if self.config.activation == "silu" else F.gelu(gate, approximate="tanh")
        return linear("down", gate * linear("up", x))

    def _mixture(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """The experts that each row is routed to, and the one that all pass."""
        experts, place = self.config.experts, f"layers.{layer}.mlp"
        assert experts is not None  # only asked for layers that have experts
        held = {kind: self._weights[f"{place}.experts.{kind}_proj.weight"] for kind in ("gate", "up", "down")}
        routing = route(x, self._weights[f"{place}.gate.weight"], experts.active, normalized=experts.normalized)
        y = mixed(
            x,
            routing,
            lambda expert, rows: self._gated(rows, lambda kind, inner: product(inner, held[kind][expert])),
        )
        if experts.shared_intermediate:
            shared = self._gated(
                x, lambda kind, rows: product(rows, self._weights[f"{place}.shared_expert.{kind}_proj.weight"])
            )
            y = y + torch.sigmoid(product(x, self._weights[f"{place}.shared_expert_gate.weight"])) * shared
        return y
