# ruff: noqa: PLC0415 - importing an engine only when it is chosen is what this file is for
"""The engines by name. Nothing heavy is imported before an engine is chosen.

An entry gives the engine's own settings (a frozen dataclass; its fields are HEADRACE_INFERENCE_<FIELD>) and a function
that builds it from them. Building does no I/O beyond checking the model's files; `start` loads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inference.core.backend import Backend, TokenBackend


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine: the dataclass of its settings, and its builder from them.

    The builder raises ValueError or OSError, in words that name the file, when one is missing or not what was expected.
    """

    settings: type[Any]
    build: Callable[[Any], Backend]


_SPECS: dict[str, Callable[[], EngineSpec]] = {}
_VARIABLES: dict[str, Mapping[str, str]] = {}


def register(
    name: str, variables: Mapping[str, str] | None = None
) -> Callable[[Callable[[], EngineSpec]], Callable[[], EngineSpec]]:
    """Enter an engine under `name`; the decorated function imports it.

    `variables` are read from the environment by its libraries when they are loaded.
    """
    _VARIABLES[name] = variables or {}

    def enter(describe: Callable[[], EngineSpec]) -> Callable[[], EngineSpec]:
        _SPECS[name] = functools.cache(describe)
        return describe

    return enter


def variables(name: str) -> Mapping[str, str]:
    """What the environment should hold, unless it says otherwise, before that engine is imported."""
    return _VARIABLES.get(name, {})


def names() -> tuple[str, ...]:
    """Every engine that can be chosen."""
    return tuple(sorted(_SPECS))


def spec(name: str) -> EngineSpec:
    """The engine of that name; imports it. Raises KeyError for an unknown one."""
    return _SPECS[name]()


@register("anthropic")
def _anthropic() -> EngineSpec:
    from inference.adapters.providers.anthropic import AnthropicSettings, build

    return EngineSpec(AnthropicSettings, build)


@register("gemini")
def _gemini() -> EngineSpec:
    from inference.adapters.providers.gemini import GeminiSettings, build

    return EngineSpec(GeminiSettings, build)


# llama.cpp's threads meet after every operation, and OpenMP has them spin until all are there. Where another process
# needs the core, as the rest of the mesh does on a small machine, spinning keeps the missing thread from its core.
# Measured on two busy cores, 16 streams: 75 to 128 tokens/s spinning, 149 to 173 sleeping.
@register("llamacpp", variables={"OMP_WAIT_POLICY": "passive"})
def _llamacpp() -> EngineSpec:
    from inference.adapters.llamacpp.engine import build
    from inference.adapters.llamacpp.settings import LlamaCppSettings

    return EngineSpec(LlamaCppSettings, build)


@register("openai")
def _openai() -> EngineSpec:
    from inference.adapters.providers.openai import OpenAISettings, build

    return EngineSpec(OpenAISettings, build)


@register("static")
def _static() -> EngineSpec:
    from inference.adapters.static.engine import StaticSettings, build

    return EngineSpec(StaticSettings, build)


@register("tensorrt_llm")
def _tensorrt_llm() -> EngineSpec:
    from inference.adapters.tensorrt_llm.engine import build
    from inference.adapters.tensorrt_llm.settings import TensorRtLlmSettings

    return EngineSpec(TensorRtLlmSettings, build)


@register("torch")
def _torch() -> EngineSpec:
    from inference.adapters.model_files import SMOLLM2
    from inference.adapters.tokenizer import load_text_model
    from inference.adapters.torch.config import TorchEngineConfig
    from inference.adapters.torch.engine import build

    @dataclass(frozen=True, kw_only=True)
    class TorchSettings(TorchEngineConfig):
        """The engine's settings, with the model that every node serves unless told otherwise."""

        model_path: Path = field(default_factory=SMOLLM2.path)

    def backend(settings: TorchSettings) -> TokenBackend:
        path, name = settings.model_path, settings.model_path.stem
        if path == SMOLLM2.path():
            name = SMOLLM2.name
            settings = replace(settings, model_sha256=settings.model_sha256 or SMOLLM2.sha256)
        return TokenBackend(build(settings), lambda: load_text_model(path), default_model=name)

    return EngineSpec(TorchSettings, backend)
