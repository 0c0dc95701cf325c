"""Everything that is asked of the `tensorrt_llm` module: the model, sampling parameters, guides.

The names and parameters used are those that tests/contract/tensorrt_llm_api.py records, and the commits they are of.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np

from inference.core.constraints.checking import check
from inference.core.port import Constraint, ConstraintKind, EngineError, EngineRequest, SamplingParams

from .model_folder import ModelFolder
from .settings import TensorRtLlmSettings

_GUIDES = {
    ConstraintKind.JSON_SCHEMA: "json",
    ConstraintKind.REGEX: "regex",
    ConstraintKind.GRAMMAR: "grammar",
    ConstraintKind.STRUCTURAL_TAG: "structural_tag",
}
SUPPORTED = frozenset({ConstraintKind.JSON_OBJECT, *_GUIDES})


class Library:
    """The imported module. Importing takes seconds and needs a CUDA device: EngineError says so where there is none."""

    def __init__(self) -> None:
        try:
            self._module: Any = importlib.import_module("tensorrt_llm")
            self._llmapi: Any = importlib.import_module("tensorrt_llm.llmapi")
        except (ImportError, OSError) as error:
            raise EngineError(f"tensorrt_llm cannot be imported: {error}; install it beside a CUDA device") from error

    def load(self, settings: TensorRtLlmSettings) -> Any:
        """An `LLM` of the settings; takes minutes. Raises what TensorRT-LLM raises."""
        optional: dict[str, Any] = {}
        speculative = self._speculative(settings)
        if speculative is not None:
            optional["speculative_config"] = speculative
        if settings.speculation == "prompt_lookup":
            # Its guesses need the tokens on the host before the next step.
            optional["disable_overlap_scheduler"] = True
        return self._module.LLM(
            model=str(settings.model_path),
            tensor_parallel_size=settings.tensor_parallel,
            max_batch_size=settings.max_running,
            max_seq_len=settings.context_length,
            max_num_tokens=settings.step_tokens,
            enable_chunked_prefill=True,
            guided_decoding_backend="xgrammar",
            kv_cache_config=self._kv_cache(settings),
            **optional,
        )

    def sampling(self, request: EngineRequest, index: int, seed: int, folder: ModelFolder) -> Any:
        """`SamplingParams` of one choice: text stays outside, and every value is said, defaults too."""
        params = request.sampling
        emitted = len(request.emitted[index]) if request.emitted else 0
        optional: dict[str, Any] = {}
        if folder.eos_ids:
            optional["end_id"] = folder.eos_ids[0]
            if len(folder.eos_ids) > 1 and not params.ignore_eos:
                optional["stop_token_ids"] = list(folder.eos_ids[1:])
        if params.logprobs is not None:
            # 0 would mean none at all; the drawn token's comes in any case.
            optional["logprobs"] = max(1, params.logprobs)
        if params.constraint is not None and not _is_any_text(params.constraint):
            optional["guided_decoding"] = self._guide(params.constraint)
        if params.logit_bias:
            optional["embedding_bias"] = _bias(params, folder.vocab_size)
        return self._module.SamplingParams(
            max_tokens=params.max_tokens - emitted,
            n=1,
            seed=seed,
            **_draw(params),
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            ignore_eos=params.ignore_eos and params.constraint is None,
            detokenize=False,
            add_special_tokens=False,
            **optional,
        )

    def _kv_cache(self, settings: TensorRtLlmSettings) -> Any:
        return self._llmapi.KvCacheConfig(
            enable_block_reuse=settings.prefix_cache,
            max_tokens=settings.kv_tokens,
            free_gpu_memory_fraction=settings.kv_share,
            dtype=settings.kv_precision,
        )

    def _speculative(self, settings: TensorRtLlmSettings) -> Any:
        if settings.speculation == "prompt_lookup":
            # A pool of its own for each request: a shared one would offer one tenant's text to another.
            return self._llmapi.NGramDecodingConfig(max_draft_len=settings.draft_tokens, is_public_pool=False)
        if settings.speculation == "draft":
            return self._llmapi.DraftTargetDecodingConfig(
                max_draft_len=settings.draft_tokens, speculative_model=str(settings.draft_path)
            )
        return None

    def _guide(self, constraint: Constraint) -> Any:
        check(constraint)
        if constraint.kind is ConstraintKind.JSON_OBJECT:
            return self._llmapi.GuidedDecodingParams(json_object=True)
        return self._llmapi.GuidedDecodingParams(**{_GUIDES[constraint.kind]: constraint.source})


def _is_any_text(constraint: Constraint) -> bool:
    """Text without calls of tools: the xgrammar that TensorRT-LLM pins, 0.1.25, knows no exclusions, and refuses it."""
    if constraint.kind is not ConstraintKind.STRUCTURAL_TAG:
        return False
    form = json.loads(constraint.source).get("format", {})
    return bool(form.get("type") == "any_text")


def _draw(params: SamplingParams) -> dict[str, Any]:
    """Greedy is asked for as the best of one; a temperature of 0 is not allowed there."""
    if params.temperature == 0:
        return {"top_k": 1}
    return {
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
    }


def _bias(params: SamplingParams, vocab_size: int) -> Any:
    bias = np.zeros(vocab_size, np.float32)
    bias[list(params.logit_bias)] = list(params.logit_bias.values())
    return importlib.import_module("torch").from_numpy(bias)
