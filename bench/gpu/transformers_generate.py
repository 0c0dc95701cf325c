"""What a user would pick instead: transformers' own `generate`, static batch, bfloat16, the same shapes."""

from __future__ import annotations

import time

import torch

from bench.gpu.workload import Work
from inference.adapters.torch.loading import ModelConfig

# Answers are long and alike: a few tokens say what the others take.
_SAMPLE = 32


class Peer:
    """A transformers model with random weights on the device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        import transformers as hf  # noqa: PLC0415 - the benchmark goes on without it

        hf.logging.set_verbosity_error()
        settings = hf.LlamaConfig(
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.context_length,
            rope_theta=config.rope_theta,
            tie_word_embeddings=False,
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device(device):
                self._model = hf.LlamaForCausalLM(settings).eval()
        finally:
            torch.set_default_dtype(before)
        self._device, self._vocabulary = device, config.vocab_size

    def tok_s(self, streams: int, work: Work) -> float:
        """Tokens a second of `streams` that start together; prefill and pace are measured, the length computed."""
        self._seconds(streams, work.prompt, 2)
        prefill = self._seconds(streams, work.prompt, 1)
        sample = self._seconds(streams, work.prompt, 1 + _SAMPLE)
        return streams * work.answer / (prefill + (work.answer - 1) * (sample - prefill) / _SAMPLE)

    def _seconds(self, streams: int, prompt: int, tokens: int) -> float:
        ids = torch.randint(0, self._vocabulary, (streams, prompt), device=self._device)
        torch.cuda.synchronize()
        began = time.perf_counter()
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        torch.cuda.synchronize()
        return time.perf_counter() - began
