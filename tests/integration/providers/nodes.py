"""Inference nodes in front of scriptable providers, in this process and over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from inference.app import build
from inference.config import config_type
from mesh.config import load
from mesh.lifecycle import Service
from ops.drills.provider.app import Provider, ProviderOptions

_PREFIX = "HEADRACE_INFERENCE_"


@dataclass(frozen=True)
class ProviderNode:
    """A node called `name` and the provider behind it."""

    name: str
    address: str
    provider: Provider


@contextlib.asynccontextmanager
async def provider_node(name: str, options: ProviderOptions, **settings: str) -> AsyncIterator[ProviderNode]:
    """A provider and a ready node; settings are HEADRACE_INFERENCE_<NAME>."""
    provider = Provider(options)
    await provider.start()
    env = {
        "ENGINE": "openai", "MODEL": name, "UPSTREAM_MODEL": "demo",
        "BASE_URL": f"http://127.0.0.1:{provider.port}/v1", "DRAIN_DELAY_S": "0", "DRAIN_DEADLINE_S": "0.1",
    } | settings  # fmt: skip
    prefixed = {_PREFIX + key: value for key, value in env.items()}
    service = await build(load(config_type(prefixed), _PREFIX, prefixed))
    async with _serving(service) as port:
        yield ProviderNode(name, f"127.0.0.1:{port}", provider)
    await provider.close()


@contextlib.asynccontextmanager
async def _serving(service: Service) -> AsyncIterator[int]:
    task = asyncio.create_task(service.run())
    try:
        while not service.readiness.ready and not task.done():
            await asyncio.sleep(0.001)
        yield service.server.port
    finally:
        service.stop()
        await task
