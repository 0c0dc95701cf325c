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
}


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


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A Llama folder and the transformers model that it was written from."""
    folder = tmp_path_factory.mktemp("model") / "llama"
    return folder, write_model("llama2", folder)
