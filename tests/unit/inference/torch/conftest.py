"""Tiny random models of every supported family, written as Hugging Face folders by transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from inference.native import build, library

SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
    "initializer_range": 0.1,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(12)],
    "long_factor": [2.0 + i for i in range(12)],
    "partial_rotary_factor": 0.75,
}
_EXPERTS: dict[str, Any] = {"num_experts": 6, "moe_intermediate_size": 48, "num_experts_per_tok": 2}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama2": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, tie_word_embeddings=False)),
    "llama3": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, rope_parameters=_LLAMA3, tie_word_embeddings=True)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SMALL, sliding_window=24)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SMALL)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SMALL, head_dim=32)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(
            **SMALL | {"num_hidden_layers": 7}, head_dim=32, sliding_window=24, query_pre_attn_scalar=48
        )
    ),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**SMALL, num_local_experts=5)),
    "qwen2moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(**SMALL, **_EXPERTS, shared_expert_intermediate_size=64, mlp_only_layers=[1])
    ),
    "qwen3moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**SMALL, **_EXPERTS, head_dim=32, norm_topk_prob=True)
    ),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SMALL, pad_token_id=0, sliding_window=24)),
    "phi4": lambda: hf.Phi3ForCausalLM(
        hf.Phi3Config(**SMALL, pad_token_id=0, rope_parameters=_LONGROPE, original_max_position_embeddings=128)
    ),
    "yarn": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SMALL, rope_parameters=_YARN)),
}

# What the native kernels leave to plain torch.
IN_TORCH = ("mixtral", "qwen2moe", "qwen3moe", "phi4")


def write_model(family: str, folder: Path) -> Any:
    """Build the family's model with random weights, biases and norms included; saved, and returned in float32."""
    torch.manual_seed(1)
    model = FAMILIES[family]().float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def kernels() -> None:
    """The native kernels, built if they are not; a machine without a compiler skips what needs them."""
    try:
        library.load()
    except library.NativeUnavailable:
        try:
            build.build()
        except FileNotFoundError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model folder and the transformers model that it was written from."""
    folder = tmp_path_factory.mktemp("model") / request.param
    return folder, write_model(request.param, folder)


@pytest.fixture(scope="session", params=[name for name in FAMILIES if name not in IN_TORCH])
def native_family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """As `family`, of those that the native kernels run."""
    folder = tmp_path_factory.mktemp("model") / request.param
    return folder, write_model(request.param, folder)


@pytest.fixture(scope="session", params=IN_TORCH)
def torch_family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """As `family`, of those that plain torch runs."""
    folder = tmp_path_factory.mktemp("model") / request.param
    return folder, write_model(request.param, folder)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A Llama folder and the transformers model that it was written from."""
    folder = tmp_path_factory.mktemp("model") / "llama"
    return folder, write_model("llama2", folder)
