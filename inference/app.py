"""The composition root: engine, servicer and process, put together."""

from __future__ import annotations

import asyncio

from headrace.inference.v1 import inference_pb2
from headrace.inference.v1.inference_pb2_grpc import add_InferenceServicer_to_server
from inference import engines
from inference.config import InferenceConfig
from inference.core.backend import ChatBackend
from inference.core.chat_port import ChatEngine
from inference.core.lora_port import LoraHost
from inference.core.text_engine import TextEngine
from inference.servicer import Servicer
from mesh.config import ConfigErrors
from mesh.discovery import registration
from mesh.lifecycle import Service, State

_NAME = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name
_MODEL_LOAD = "model_load"


async def build(config: InferenceConfig) -> Service:
    """A node that has opened no port yet. Raises ConfigErrors when the model's files are not what was asked for."""
    try:
        backend = engines.spec(config.engine).build(config.settings)
    except (ValueError, OSError) as error:
        raise ConfigErrors([f"engine {config.engine}: {error}"]) from error
    engine: ChatEngine
    if isinstance(backend, ChatBackend):
        engine, tokenize = backend.engine, None
    else:
        engine = TextEngine(backend.engine, backend.load_text)
        tokenize = engine.tokenize
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def failed(error: Exception) -> None:
        if not broken.done():
            broken.set_exception(error)

    service = Service(config, (_NAME,), blockers=(_MODEL_LOAD,))
    service.registration = registration(config, kind="inference")
    servicer = Servicer(
        name=config.model or backend.default_model,
        engine_name=config.engine,
        engine=engine,
        tokenize=tokenize,
        adapters=backend.engine if isinstance(backend.engine, LoraHost) else None,
        failed=failed,
        draining=lambda: service.state is State.DRAINING,
    )
    add_InferenceServicer_to_server(servicer, service.server.grpc)
    service.closing(engine.close)

    async def load() -> None:
        await engine.start()
        servicer.loaded()

    service.starting(_MODEL_LOAD, load())
    # An engine that broke cannot be repaired from outside: the process ends, and its supervisor starts another.
    service.background("engine", _wait(broken))
    service.drains.append(servicer.end_watches)
    return service


async def _wait(broken: asyncio.Future[None]) -> None:
    await broken
