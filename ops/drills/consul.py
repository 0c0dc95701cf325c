"""A Consul agent of the drill's own, in development mode: everything in memory."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp

from ops.failure import Failure

_READY_S: Final = 15.0
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class Agent:
    """The agent that runs; `address` is its HTTP host:port."""

    address: str
    pid: int


@asynccontextmanager
async def agent(first_port: int) -> AsyncIterator[Agent]:
    """Start the agent on four ports in a row; it is killed afterwards. Raises Failure where Consul is not installed."""
    binary = shutil.which("consul")
    if binary is None:
        raise Failure("this drill needs Consul", "install it: deploy/consul/install.sh")
    http, server, lan, wan = range(first_port, first_port + 4)
    flags = (f"-http-port={http}", f"-server-port={server}", f"-serf-lan-port={lan}", f"-serf-wan-port={wan}")
    process = await asyncio.create_subprocess_exec(
        *(binary, "agent", "-dev", "-bind=127.0.0.1", "-dns-port=-1", "-grpc-port=-1", *flags),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _wait_for_leader(http)
        yield Agent(f"127.0.0.1:{http}", process.pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _wait_for_leader(port: int) -> None:
    try:
        async with asyncio.timeout(_READY_S), aiohttp.ClientSession() as http:
            while True:
                if await _has_leader(http, port):
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Failure(f"Consul has no leader after {_READY_S:g} s", "see whether `consul agent -dev` works") from error


async def _has_leader(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{port}/v1/status/leader") as answer:
            # An empty string in JSON is no leader.
            return len(await answer.read()) > len('""')
    except aiohttp.ClientError:
        return False
