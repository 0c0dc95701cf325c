"""The forward pass of Llama-like models on the device: seven kernels and four matrix products a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.adapters.torch.loading import Checkpoint, ModelConfig, UnsupportedModel
from inference.adapters.torch.network import StepAdapters

from .inputs import StepInputs
from .kernels.activation import silu_times
from .kernels.decode_attention import decode_attention, splits_for
from .kernels.norms import add_norm
from .kernels.prefill_attention import prefill_attention
from .kernels.rotary import HeadNorms, Rotary
from .linear import Choices, Linear, rows_for
from .memory import DevicePages
from .rows import Rows
from .weights import DeviceWeights

# Multiprocessors that the split of decode attention is made for where there is no device to ask.
_ASSUMED_PROCESSORS = 132


@dataclass(frozen=True, slots=True)
class _Layer:
    input_norm: torch.Tensor
    qkv: Linear
    head_norms: HeadNorms | None
    output: Linear
    feed_forward_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class _Run:
    """What every layer of a step needs."""

    step: StepInputs
    memory: DevicePages
    adapters: StepAdapters | None


def check_supported(config: ModelConfig) -> None:
    """Raises UnsupportedModel for what these kernels do not have; plain torch runs it."""
    missing = config.only_in_torch()
    if missing is not None:
        raise UnsupportedModel(f"{config.name}: no CUDA kernels for {missing}")
    if config.post_norms or config.activation != "silu":
        raise UnsupportedModel(f"{config.name}: no CUDA kernels for architecture {config.architecture!r}")
    if config.head_dim < 16 or config.head_dim & (config.head_dim - 1):
        raise UnsupportedModel(f"{config.name}: head size {config.head_dim} is not a power of two of at least 16")


class Network:
    """A model's weights on a device, and one step over them."""

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, precision: str, dtype: torch.dtype | None = None
    ) -> None:
        check_supported(checkpoint.config)
        self.config = checkpoint.config
        self.device = device
        self.choices = Choices()
        weights = DeviceWeights(checkpoint, device, precision, self.choices, dtype)
        self.precision, self.dtype = weights.precision, weights.dtype
        self._rotary = Rotary(self.config, device)
        self._embedding, self.head = weights.tables()
        self._final_norm = weights.vector("norm")
        self._layers = [_layer(weights, self.config, index) for index in range(self.config.layers)]
        self._processors = _ASSUMED_PROCESSORS
        if device.type == "cuda":
            self._processors = torch.cuda.get_device_properties(device).multi_processor_count

    def products(self) -> list[Linear]:
        """Every projection, in the order of a step."""
        return [p for layer in self._layers for p in (layer.qkv, layer.output, layer.gate_up, layer.down)] + [self.head]

    @torch.no_grad()
    def forward(
        self, step: StepInputs, drawn: torch.Tensor, memory: DevicePages, adapters: StepAdapters | None = None
    ) -> torch.Tensor:
        """Logits in float32 [R, vocab]. `drawn` holds the tokens that `step.sources` point into, int64."""
        residual = self._embedding(step.tokens, step.sources, drawn, self.config.embedding_scale)
        x: torch.Tensor | None = None
        run = _Run(step, memory, adapters)
        for index in range(self.config.layers):
            x = self._attention(index, x, residual, run)
            x = self._feed_forward(index, x, residual, run)
        if step.logits_rows is not None:
            residual = residual[step.logits_rows]
            x = None if x is None else x[step.logits_rows]
        if not len(residual):
            return torch.empty((0, self.config.vocab_size), dtype=torch.float32, device=self.device)
        return self.head(add_norm(x, residual, self._final_norm, self.config.norm_eps))

    def _attention(self, index: int, x: torch.Tensor | None, residual: torch.Tensor, run: _Run) -> torch.Tensor:
        c, layer, step, adapters = self.config, self._layers[index], run.step, run.adapters
        normed, plain = self._normed(x, residual, layer.input_norm, layer.qkv, adapters)
        qkv = layer.qkv(normed)
        if adapters is not None:
            keys = c.kv_heads * c.head_dim
            parts = {"q_proj": c.heads * c.head_dim, "k_proj": keys, "v_proj": keys}
            self._adapt(qkv, plain, index, parts, adapters)
        pages = run.memory.layer(index)
        queries = self._rotary.apply(qkv, step.positions, step.slots, pages, layer.head_norms)
        attended = torch.empty_like(queries)
        scale, window = c.attention_scale, c.windows[index]
        if len(step.members):
            splits = splits_for(len(step.members), c.kv_heads, self._processors)
            decode_attention(
                queries, pages, step.members, step.contexts, attended, scale=scale, window=window, splits=splits
            )
        if len(step.tiles[0]):
            prefill_attention(queries, pages, step.tiles, step.contexts, attended, scale=scale, window=window)
        flat = attended.flatten(1)
        y = layer.output(rows_for(layer.output, flat))
        return y if adapters is None else adapters.add(y, flat, (index, "o_proj"))

    def _feed_forward(self, index: int, x: torch.Tensor, residual: torch.Tensor, run: _Run) -> torch.Tensor:
        c, layer, adapters = self.config, self._layers[index], run.adapters
        normed, plain = self._normed(x, residual, layer.feed_forward_norm, layer.gate_up, adapters)
        gate_up = layer.gate_up(normed)
        if adapters is None:
            return layer.down(silu_times(gate_up, layer.down.quantized))
        parts = {"gate_proj": c.intermediate, "up_proj": c.intermediate}
        self._adapt(gate_up, plain, index, parts, adapters)
        inner = silu_times(gate_up).values
        return adapters.add(layer.down(rows_for(layer.down, inner)), inner, (index, "down_proj"))

    def _normed(
        self,
        x: torch.Tensor | None,
        residual: torch.Tensor,
        weight: torch.Tensor,
        linear: Linear,
        adapters: StepAdapters | None,
    ) -> tuple[Rows, torch.Tensor]:
        """The norm as `linear` takes it, and as adapters do (the same unless there are some)."""
        if adapters is None:
            rows = add_norm(x, residual, weight, self.config.norm_eps, linear.quantized)
            return rows, rows.values
        plain = add_norm(x, residual, weight, self.config.norm_eps).values
        return rows_for(linear, plain), plain

    def _adapt(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        index: int,
        parts: dict[str, int],
        adapters: StepAdapters,
    ) -> None:
        """Add the adapters' shares to projections that lie side by side in y: their names, and how wide each is."""
        at = 0
        for name, width in parts.items():
            adapters.add(y[:, at : at + width], x, (index, name))
            at += width


def _layer(weights: DeviceWeights, config: ModelConfig, index: int) -> _Layer:
    prefix = f"layers.{index}"
    head_norms = None
    if config.qk_norm:
        query, key = (weights.vector(f"{prefix}.self_attn.{kind}_norm") for kind in "qk")
        head_norms = HeadNorms(query, key, config.norm_eps)
    return _Layer(
        input_norm=weights.vector(f"{prefix}.input_layernorm"),
        qkv=weights.linear(*(f"{prefix}.self_attn.{kind}_proj" for kind in "qkv")),
        head_norms=head_norms,
        output=weights.linear(f"{prefix}.self_attn.o_proj"),
        feed_forward_norm=weights.vector(f"{prefix}.post_attention_layernorm"),
        gate_up=weights.linear(f"{prefix}.mlp.gate_proj", f"{prefix}.mlp.up_proj"),
        down=weights.linear(f"{prefix}.mlp.down_proj"),
    )
