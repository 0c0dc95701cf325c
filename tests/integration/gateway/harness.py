"""A gateway with both its fronts on free ports, in front of a scripted router."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import yaml

from gateway.app import build
from gateway.config import GatewayConfig
from mesh.lifecycle import Service
from tests.fakes.router import FakeRouter
from tests.ports import free_ports

KEY = "hr-integration-key"
HEADERS = {"authorization": f"Bearer {KEY}"}
# For what never comes: how busy the machine is may fail no test. Well below the time that a request gets by default.
PATIENCE_S = 30.0
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

    def write_keys(self, text: str) -> None:
        """Replace the keys file in one step, as `headrace keys` does: half of it is nobody's to read."""
        draft = self.keys.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self.keys)


async def until(holds: Callable[[], bool | Awaitable[bool]], within_s: float = PATIENCE_S) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(within_s):
        while True:
            held = holds()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def gateway(path: Path, **settings: object) -> AsyncIterator[Running]:
    """A running gateway that is ready."""
    keys = path / "keys.yaml"
    keys.write_text(yaml.safe_dump([stored("key-1", "tenant-1", KEY)]))
    router = FakeRouter()
    await router.start()
    port = free_ports()
    options = {"drain_delay_s": 0.0, "drain_deadline_s": 20.0, "reload_s": 0.02} | settings
    config = GatewayConfig(keys=keys, http=f"127.0.0.1:{port}", router=router.address, **options)
    service = await build(config)
    task = asyncio.create_task(service.run())
    url = f"http://127.0.0.1:{port}"
    try:
        await until(lambda: service.readiness.ready or task.done())
        async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=PATIENCE_S) as http:
            yield Running(service, router, keys, url, http, task)
    finally:
        service.stop()
        await task
        await router.stop()
