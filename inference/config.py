"""The settings of an inference node: its own and those of the engine that was chosen.

Which engine's settings exist depends on HEADRACE_INFERENCE_ENGINE; a setting of another engine is a mistake, like any
other unknown name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference import engines
from mesh.config import ConfigErrors
from mesh.lifecycle import ProcessConfig

ENGINE_VARIABLE = "HEADRACE_INFERENCE_ENGINE"


@dataclass(frozen=True, kw_only=True)
class NodeConfig(ProcessConfig):
    """What every inference node has, whatever its engine."""

    # See inference/engines.py.
    engine: str
    # The deployment's own name for what is served; empty takes the engine's.
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(NodeConfig):
    """A node's settings together with its engine's; `config_type` makes one of these for each engine."""

    settings: Any


def config_type(env: Mapping[str, str]) -> type[InferenceConfig]:
    """The configuration of the engine that `env` names. Raises ConfigErrors if it names none."""
    name = env.get(ENGINE_VARIABLE, "")
    if name not in engines.names():
        known = ", ".join(engines.names())
        raise ConfigErrors([f"{ENGINE_VARIABLE}: {name!r} is no engine; one of {known}"])
    settings = engines.spec(name).settings
    made = dataclasses.make_dataclass(
        f"{name.title()}Config", [("settings", settings)], bases=(InferenceConfig,), frozen=True, kw_only=True
    )
    made.__module__ = __name__
    return made
