"""A gateway with both its fronts on free ports, in front of a scripted router."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import yaml

from gateway.app import build
from gateway.config import GatewayConfig
from mesh.lifecycle import Service
from tests.fakes.router import FakeRouter

KEY = "hr-integration-key"
HEADERS = {"authorization": f"Bearer {KEY}"}
CHAT = {"model": "fake-model", "messages": [{"role": "user", "content": "hello"}]}


def stored(key_id: str, tenant: str, plain: str) -> dict[str, str]:
    """A key as the keys file has it."""
    return {"id": key_id, "tenant": tenant, "sha256": hashlib.sha256(plain.encode()).hexdigest()}


@dataclass
class Running:
    """A gateway and its surroundings."""

    service: Service
    router: FakeRouter
    keys: Path
    url: str
    http: httpx.AsyncClient
    task: asyncio.Task[int]

    @property
    def openai(self) -> openai.AsyncOpenAI:
        """The official client, which does not retry."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


async def until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.002)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.asynccontextmanager
async def gateway(path: Path, **settings: object) -> AsyncIterator[Running]:
    """A running gateway that is ready."""
    keys = path / "keys.yaml"
    keys.write_text(yaml.safe_dump([stored("key-1", "tenant-1", KEY)]))
    router = FakeRouter()
    await router.start()
    port = free_port()
    options = {"drain_delay_s": 0.0, "drain_deadline_s": 5.0, "reload_s": 0.02} | settings
    config = GatewayConfig(keys=keys, http=f"127.0.0.1:{port}", router=router.address, **options)
    service = await build(config)
    task = asyncio.create_task(service.run())
    url = f"http://127.0.0.1:{port}"
    try:
        await until(lambda: service.readiness.ready or task.done())
        async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=20) as http:
            yield Running(service, router, keys, url, http, task)
    finally:
        service.stop()
        await task
        await router.stop()
