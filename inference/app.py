"""The composition root: engine, servicer and process, put together."""

from __future__ import annotations

import asyncio

import structlog

from headrace.inference.v1 import inference_pb2
from headrace.inference.v1.inference_pb2_grpc import add_InferenceServicer_to_server
from inference import engines
from inference.adapters import metrics
from inference.config import InferenceConfig
from inference.core.backend import ChatBackend
from inference.core.chat_port import ChatEngine
from inference.core.lora_port import LoraHost
from inference.core.port import NonFiniteLogits
from inference.core.self_check import SelfCheck
from inference.core.text_engine import TextEngine
from inference.servicer import Servicer
from mesh.config import ConfigErrors
from mesh.discovery import registration
from mesh.lifecycle import Service, State

_NAME = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name
# What readiness waits for: the model, and that the engine can answer at all (inference.core.self_check).
_MODEL_LOAD, _ANSWERS = "model_load", "answers_fail"
_log = structlog.get_logger("inference")


async def build(config: InferenceConfig) -> Service:
    """A node that has opened no port yet. Raises ConfigErrors when the model's files are not what was asked for."""
    try:
        backend = engines.spec(config.engine).build(config.settings)
    except (ValueError, OSError) as error:
        raise ConfigErrors([f"engine {config.engine}: {error}"]) from error
    engine: ChatEngine
    probe = _no_probe
    if isinstance(backend, ChatBackend):
        engine, tokenize = backend.engine, None
    else:
        engine = TextEngine(backend.engine, backend.load_text)
        tokenize, probe = engine.tokenize, engine.probe
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def failed(error: Exception) -> None:
        if not broken.done():
            broken.set_exception(error)

    service = Service(config, (_NAME,), blockers=(_MODEL_LOAD,))

    async def failing(error: Exception) -> None:
        _log.error("engine.answers_fail", error=str(error), reason=getattr(error, "reason", type(error).__name__))
        if not isinstance(error, NonFiniteLogits):
            # Another process may be well. Logits are as their file is: with those another process would fail as well.
            failed(error)
        await service.readiness.block(_ANSWERS)

    check = SelfCheck(probe, failing, lambda: service.readiness.clear(_ANSWERS))
    service.registration = registration(config, kind="inference")
    servicer = Servicer(
        name=config.model or backend.default_model,
        engine_name=config.engine,
        engine=engine,
        tokenize=tokenize,
        adapters=backend.engine if isinstance(backend.engine, LoraHost) else None,
        failed=failed,
        check=check,
        draining=lambda: service.state is State.DRAINING,
    )
    add_InferenceServicer_to_server(servicer, service.server.grpc)
    service.closing(engine.close)

    async def load() -> None:
        await engine.start()
        servicer.loaded()
        metrics.watch(engine.load)

    service.starting(_MODEL_LOAD, load())
    # An engine that broke cannot be repaired from outside: the process ends, and its supervisor starts another.
    service.background("engine", _wait(broken))
    service.background("self_check", check.run())
    service.drains.append(servicer.end_watches)
    return service


async def _no_probe() -> None:
    """A provider's answers say nothing of this process."""


async def _wait(broken: asyncio.Future[None]) -> None:
    await broken
