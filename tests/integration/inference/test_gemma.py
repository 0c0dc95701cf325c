"""Gemma 3 in a real file, where somebody has fetched it: python -m bench.engine.gemma --install."""

from __future__ import annotations

import pydoc_data.topics

import pytest
import torch
import transformers as hf

from bench.engine.gemma import BEYOND, FILE, SHA256, read
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import build
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.core.port import EngineDelta, EngineRequest, SamplingParams

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE.name} is not there: bench.engine.gemma --install")


def tokens() -> list[int]:
    prose = "\n".join(part for _, part in sorted(pydoc_data.topics.topics.items()))
    return list(load_text_model(FILE).encode_text(prose[: 8 * BEYOND]))[:BEYOND]


def test_logits_are_transformers_beyond_the_window_too() -> None:
    model = hf.AutoModelForCausalLM.from_pretrained(FILE.parent, gguf_file=FILE.name, dtype=torch.float32)
    runner = build_runner(RunnerOptions(FILE, SHA256, precision="float32", num_blocks=64))
    text = tokens()
    assert text[0] == model.config.bos_token_id
    assert len(text) > model.config.sliding_window + 100
    with torch.inference_mode():
        expected = model(torch.tensor([text])).logits[0]
    error = (read(runner, text) - expected).abs().amax(dim=-1) / expected.abs().amax(dim=-1)
    assert float(error.max()) < 1e-3


def test_kernels_are_near_float32_beyond_the_window_too() -> None:
    text = tokens()
    rows = []
    for precision in ("float32", "auto"):
        runner = build_runner(RunnerOptions(FILE, SHA256, precision=precision, num_blocks=64))
        rows.append(read(runner, text)[-150:].log_softmax(-1))
        runner.close()
    exact, kernels = rows
    assert float((exact.exp() * (exact - kernels)).sum(-1).mean()) < 0.02, "nats between the two, on average"


async def test_the_engine_goes_on_with_a_sentence() -> None:
    text = load_text_model(FILE)
    assert text.template is None
    engine = build(TorchEngineConfig(model_path=FILE, model_sha256=SHA256, kv_tokens=512, context_length=256))
    await engine.start()
    prompt = tuple(text.encode_text("The capital of France is"))
    said: list[int] = []
    async for event in engine.generate(EngineRequest("r", prompt, SamplingParams(8, temperature=0.0))):
        said += event.tokens if isinstance(event, EngineDelta) else ()
    await engine.close()
    assert "France" in b"".join(map(text.tokenizer.token_bytes, said)).decode()
