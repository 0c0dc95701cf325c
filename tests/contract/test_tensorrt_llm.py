"""The adapter asks of TensorRT-LLM only what its public API has: names and parameters, at the commits held to."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from inference.adapters.tensorrt_llm.library import SUPPORTED, Library
from inference.adapters.tensorrt_llm.model_folder import ModelFolder
from inference.adapters.tensorrt_llm.settings import TensorRtLlmSettings
from inference.core.port import (
    Constraint,
    ConstraintKind,
    EngineError,
    EngineRequest,
    SamplingParams,
    UnsupportedConstraint,
)
from tests.contract import tensorrt_llm_api as api
from tests.fakes import tensorrt_llm as fake

FOLDER = ModelFolder(Path("model"), (2, 5), 32, 100)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    for name, module in fake.modules(lambda _request: fake.Script([])).items():
        monkeypatch.setitem(sys.modules, name, module)
    return Library()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kv_tokens": 4096, "kv_precision": "fp8", "prefix_cache": False, "tensor_parallel": 2},
        {"speculation": "prompt_lookup"},
        {"speculation": "draft", "draft_path": Path("draft")},
    ],
)
def test_every_setting_reaches_an_argument_that_exists(library: Library, changes: dict) -> None:
    """`LLM` and the configs within it refuse unknown names; so does the fake."""
    llm = library.load(TensorRtLlmSettings(model_path=Path("model"), **changes))
    assert set(llm.given) <= api.LLM_INIT
    assert llm.given["kv_cache_config"].given["enable_block_reuse"] is changes.get("prefix_cache", True)
    kind = {"prompt_lookup": fake.NGramDecodingConfig, "draft": fake.DraftTargetDecodingConfig}
    expected = kind.get(changes.get("speculation", "off"), type(None))
    assert isinstance(llm.given.get("speculative_config"), expected)


def test_prompt_lookup_keeps_each_requests_text_to_itself(library: Library) -> None:
    """The default there is a pool for all."""
    llm = library.load(TensorRtLlmSettings(model_path=Path("model"), speculation="prompt_lookup"))
    assert llm.given["speculative_config"].given["is_public_pool"] is False


EVERYTHING = SamplingParams(
    max_tokens=9,
    temperature=0.5,
    top_p=0.9,
    top_k=7,
    min_p=0.1,
    presence_penalty=0.2,
    frequency_penalty=0.3,
    repetition_penalty=1.1,
    logit_bias={3: 4.0},
    logprobs=0,
)


def test_every_parameter_reaches_one_that_exists(library: Library) -> None:
    request = EngineRequest("r", (1,), EVERYTHING, emitted=((8, 9),))
    given = library.sampling(request, 0, 77, FOLDER).given
    bias = given.pop("embedding_bias")
    assert (bias.shape, float(bias[3]), float(bias.abs().sum())) == ((32,), 4.0, 4.0)
    assert given == {
        "max_tokens": 7,
        "n": 1,
        "seed": 77,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "ignore_eos": False,
        "detokenize": False,
        "add_special_tokens": False,
        "end_id": 2,
        "stop_token_ids": [5],
        "logprobs": 1,
    }


def test_greedy_and_endless_answers(library: Library) -> None:
    """A temperature of 0 is refused there, and further ends of text would stop an answer that ignores the first."""
    params = SamplingParams(max_tokens=9, temperature=0.0, ignore_eos=True)
    given = library.sampling(EngineRequest("r", (1,), params), 0, 1, FOLDER).given
    assert given["top_k"] == 1
    assert given["ignore_eos"] is True
    assert not {"temperature", "top_p", "stop_token_ids", "logprobs"} & set(given)


@pytest.mark.parametrize("kind", sorted(SUPPORTED, key=lambda kind: kind.value))
def test_each_constraint_becomes_one_guide(library: Library, kind: ConstraintKind) -> None:
    tags = {"type": "structural_tag", "format": {"type": "json_schema", "json_schema": {"type": "object"}}}
    source = json.dumps(tags if kind is ConstraintKind.STRUCTURAL_TAG else {"type": "object"})
    params = SamplingParams(max_tokens=9, ignore_eos=True, constraint=Constraint(kind, source))
    given = library.sampling(EngineRequest("r", (1,), params), 0, 1, FOLDER).given
    assert len(given["guided_decoding"].given) == 1
    assert set(given["guided_decoding"].given.values()) <= {source, True}
    assert given["ignore_eos"] is False, "a guide's end is the answer's end"


def test_what_schemas_cannot_be_held_to_is_refused_there_too(library: Library) -> None:
    params = SamplingParams(max_tokens=9, constraint=Constraint(ConstraintKind.JSON_SCHEMA, '{"$ref": "#"}'))
    with pytest.raises(UnsupportedConstraint, match="leads back to itself"):
        library.sampling(EngineRequest("r", (1,), params), 0, 1, FOLDER)


def test_text_without_calls_is_no_guide_there(library: Library) -> None:
    source = json.dumps({"type": "structural_tag", "format": {"type": "any_text", "excludes": ["<tool_call>"]}})
    params = SamplingParams(max_tokens=9, constraint=Constraint(ConstraintKind.STRUCTURAL_TAG, source))
    assert "guided_decoding" not in library.sampling(EngineRequest("r", (1,), params), 0, 1, FOLDER).given


def test_what_is_read_of_results_exists() -> None:
    """The fake's results have what the adapter reads, and nothing that the real ones lack."""
    fields = {field.name for field in dataclasses.fields(fake.RequestOutput) if not field.name.startswith("_")}
    assert fields - {"script", "was_aborted"} <= api.REQUEST_OUTPUT
    assert {"abort", "finished", "outputs"} <= api.REQUEST_OUTPUT
    assert {"token_ids", "finish_reason", "logprobs"} <= api.COMPLETION_OUTPUT


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    with pytest.raises(EngineError, match=r"tensorrt_llm cannot be imported.*CUDA device"):
        Library()
