"""Matrices that hold several projections below each other (Phi-3), taken apart."""

from __future__ import annotations

from collections.abc import Iterator

from .config import ModelConfig
from .weights import Rows, Weight


def parts_of(config: ModelConfig, name: str, whole: Weight) -> Iterator[tuple[str, Weight]]:
    """The projections that a joined matrix holds, by name; nothing for any other weight or shape."""
    if config.architecture != "phi3":
        return
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    joined = {
        "self_attn.qkv_proj.weight": {"q_proj": queries, "k_proj": keys, "v_proj": keys},
        "mlp.gate_up_proj.weight": dict.fromkeys(("gate_proj", "up_proj"), config.intermediate),
    }
    for end, sizes in joined.items():
        if name.endswith(end) and whole.shape == (sum(sizes.values()), config.hidden):
            group, at = name.rsplit(".", 2)[0], 0
            for part, rows in sizes.items():
                yield f"{group}.{part}.weight", Rows(whole, at, at + rows)
                at += rows
