"""Inference nodes in this process and over real gRPC, some of them in front of scriptable providers."""

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
class RunningNode:
    """A node called `name`."""

    name: str
    address: str


@dataclass(frozen=True)
class ProviderNode(RunningNode):
    """A node and the provider behind it."""

    provider: Provider


@contextlib.asynccontextmanager
async def running_node(name: str, **settings: str) -> AsyncIterator[RunningNode]:
    """A ready node; settings are HEADRACE_INFERENCE_<NAME>."""
    env = {"MODEL": name, "DRAIN_DELAY_S": "0", "DRAIN_DEADLINE_S": "0.1"} | settings
    prefixed = {_PREFIX + key: value for key, value in env.items()}
    service = await build(load(config_type(prefixed), _PREFIX, prefixed))
    async with _serving(service) as port:
        yield RunningNode(name, f"127.0.0.1:{port}")


@contextlib.asynccontextmanager
async def provider_node(name: str, options: ProviderOptions, **settings: str) -> AsyncIterator[ProviderNode]:
    """A provider and a ready node; settings are HEADRACE_INFERENCE_<NAME>."""
    provider = Provider(options)
    await provider.start()
    upstream = {"ENGINE": "openai", "UPSTREAM_MODEL": "demo", "BASE_URL": f"http://127.0.0.1:{provider.port}/v1"}
    async with running_node(name, **upstream | settings) as node:
        yield ProviderNode(name, node.address, provider)
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
