"""The mesh that a drill is played on: a stack of its own with its providers, or one that runs already."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from mesh.stack import Stack
from ops.drills.consul import Agent, agent
from ops.drills.provider.app import Provider, ProviderOptions
from ops.drills.spec import Drill, Scalar
from ops.failure import ExitCode, Failure
from ops.keystore import KeyStore
from ops.state import CHECKOUT, StateDir

# Below the ports that the kernel gives to clients, so that no outgoing connection takes one of ours.
_LOWEST, _HIGHEST = 18_000, 32_000
_UP_S: Final = 90.0
_DOWN_S: Final = 60.0
# What is cut short when the drill is over: nobody is left to wait for.
_QUICK_DRAIN: Final = {"DRAIN_DELAY_S": "0.2", "DRAIN_DEADLINE_S": "5"}


@dataclass(frozen=True)
class DrillEnvironment:
    """A mesh that runs. `url` ends in /v1."""

    stack: Stack
    state: StateDir
    url: str
    key: str
    # Of another tenant.
    bystanders_key: str = ""
    # Of a third one, whose requests are the fault.
    requests_key: str = ""
    providers: dict[str, Provider] = field(default_factory=dict)
    consul: Agent | None = None


def running_environment(state: StateDir) -> DrillEnvironment:
    """The mesh that runs from a state folder. Raises Failure."""
    stack = state.load_stack()
    if stack.edge is None:
        raise Failure("the running stack has no edge", "drills go through one", ExitCode.USAGE)
    key = state.dev_key.read_text(encoding="utf-8").strip()
    return DrillEnvironment(stack, state, f"http://{stack.edge.listen}/v1", key)


@asynccontextmanager
async def own_environment(drill: Drill) -> AsyncIterator[DrillEnvironment]:
    """Bring the drill's stack up in a folder of its own; everything is gone afterwards. Raises Failure."""
    folder = Path(tempfile.mkdtemp(prefix="hd-"))
    state = StateDir(folder / "s")
    async with AsyncExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        ports = _Ports()
        # Ports of ours for them, too: while a provider refuses connections, the kernel could give away one of its own.
        providers = {name: await _provider(drill, name, ports.take(), undo) for name in drill.stack.providers}
        consul = await undo.enter_async_context(agent(ports.take(4))) if drill.stack.consul else None
        routing = folder / "router.yaml"
        routing.write_text(yaml.safe_dump(drill.stack.routing, sort_keys=False), encoding="utf-8")
        document = _document(drill, ports, routing, providers, consul)
        (folder / "stack.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        state.create()
        bystanders_key = KeyStore(state.keys).new("bystander", "bystander")
        requests_key = KeyStore(state.keys).new("requests", "requests")
        undo.push_async_callback(_headrace, state, "down", timeout_s=_DOWN_S)
        up = json.loads(await _headrace(state, "up", "--stack", str(folder / "stack.yaml"), "--json", timeout_s=_UP_S))
        keys = {"key": up["key"], "bystanders_key": bystanders_key, "requests_key": requests_key}
        yield DrillEnvironment(state.load_stack(), state, up["url"], **keys, providers=providers, consul=consul)


class _Ports:
    """Free ports, all from one stretch that nobody listens on."""

    def __init__(self, count: int = 100) -> None:
        for _ in range(200):
            self._next = random.randrange(_LOWEST, _HIGHEST - count)  # noqa: S311 - a port is no secret
            if all(_free(self._next + i) for i in range(count)):
                return
        raise Failure("no stretch of free ports", "stop what listens on so many of them", ExitCode.UNAVAILABLE)

    def take(self, count: int = 1) -> int:
        """The first of `count` ports in a row."""
        first, self._next = self._next, self._next + count
        return first


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _provider(drill: Drill, name: str, port: int, undo: AsyncExitStack) -> Provider:
    part = drill.stack.providers[name]
    options = ProviderOptions(
        port=port,
        answer_tokens=part.answer_tokens,
        first_token_s=part.first_token_s,
        token_interval_s=part.token_interval_s,
    )
    provider = Provider(options)
    await provider.start()
    undo.push_async_callback(provider.close)
    return provider


def _document(
    drill: Drill, ports: _Ports, routing: Path, providers: dict[str, Provider], consul: Agent | None
) -> dict[str, Any]:
    """The stack file."""
    services: dict[str, Any] = {
        "gateway": _service("gateway", 1, {}, grpc=ports.take(), http=ports.take()),
        "router": _service(
            "router",
            drill.stack.routers,
            {"CONFIG": str(routing), "RELOAD_S": "0.2"},
            grpc=ports.take(drill.stack.routers),
        ),
    }
    for name, nodes in drill.stack.nodes.items():
        env = {"ENGINE": "static", **nodes.env}
        services[name] = _service("inference", nodes.replicas, env, grpc=ports.take(nodes.replicas))
    for name, part in drill.stack.providers.items():
        base_url = f"http://127.0.0.1:{providers[name].port}/v1"
        env = {"ENGINE": "openai", "MODEL": name, "UPSTREAM_MODEL": name, "BASE_URL": base_url, **part.env}
        services[name] = _service("inference", 1, env, grpc=ports.take())
    document: dict[str, Any] = {
        "name": drill.name,
        "control": f"127.0.0.1:{ports.take()}",
        "edge": {"listen": f"127.0.0.1:{ports.take()}", "admin": f"127.0.0.1:{ports.take()}"},
        "services": services,
    }
    return document | ({"consul": consul.address} if consul is not None else {})


def _service(kind: str, replicas: int, env: dict[str, Scalar], **ports: int) -> dict[str, Any]:
    prefix = f"HEADRACE_{kind.upper()}_"
    texts = {f"{prefix}{name}": _text(value) for name, value in (_QUICK_DRAIN | env).items()}
    return {"kind": kind, "replicas": replicas, "ports": ports, "env": texts}


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _headrace(state: StateDir, *arguments: str, timeout_s: float) -> str:
    """Run the operator's command with the drill's state folder; returns its stdout. Raises Failure."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops", "--state-dir", str(state.path), *arguments),
        cwd=CHECKOUT,
        # The control plane injects faults only where it was told that it may.
        env={**os.environ, "HEADRACE_CONTROL_FAULTS": "true"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise Failure(f"headrace {arguments[0]} took longer than {timeout_s:g} s", "try again") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != ExitCode.OK:
        raise Failure(f"the drill's mesh: {err.decode(errors='replace').strip()}", "see what is said above")
    return out.decode()
