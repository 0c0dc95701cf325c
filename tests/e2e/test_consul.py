"""The mesh with a real Consul agent as the source of who is there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.mesh_under_test import eventually, running
from tests.ports import free_ports

CONSUL = shutil.which("consul")
pytestmark = [
    pytest.mark.skipif(CONSUL is None, reason="no consul binary: deploy/consul/install.sh installs it"),
    # A mesh of its own, brought up, scaled twice and taken down: on a busy machine that takes a while.
    pytest.mark.timeout(300),
]

_STACK = """\
name: registered
control: 127.0.0.1:{control}
edge: {{listen: "127.0.0.1:{edge}", admin: "127.0.0.1:{admin}"}}
consul: 127.0.0.1:{consul}
services:
  gateway: {{kind: gateway, ports: {{grpc: {gateway}, http: {http}}}}}
  router: {{kind: router, ports: {{grpc: {router}}}, env: {{HEADRACE_ROUTER_CONFIG: "{routing}"}}}}
  node: {{kind: inference, ports: {{grpc: {node}}}, env: {{HEADRACE_INFERENCE_ENGINE: static}}}}
"""
_ROUTING = """\
deployments: [{name: node, service: node, model: static, capabilities: [chat, completion]}]
models: [{name: node, chain: [node]}]
"""
_NAMES = ("control", "edge", "admin", "consul", "serf_lan", "serf_wan", "server", "gateway", "http", "router", "node")


@contextmanager
def agent(ports: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    """Consul in development mode: everything in memory."""
    flags = [f"-http-port={ports['consul']}", f"-server-port={ports['server']}", "-dns-port=-1", "-grpc-port=-1"]
    flags += [f"-serf-lan-port={ports['serf_lan']}", f"-serf-wan-port={ports['serf_wan']}"]
    consul = subprocess.Popen([str(CONSUL), "agent", "-dev", "-bind=127.0.0.1", *flags], stdout=subprocess.DEVNULL)
    try:

        def leads() -> bool:
            try:
                return len(httpx.get(f"http://127.0.0.1:{ports['consul']}/v1/status/leader").text) > 2
            except httpx.TransportError:
                return False

        eventually(leads, 30, "Consul has a leader")
        yield consul
    finally:
        consul.kill()
        consul.wait()


def test_replicas_are_found_through_consul_and_kept_when_it_goes_away(tmp_path: Path) -> None:
    base = free_ports(2 * len(_NAMES))
    ports = {name: base + 2 * i for i, name in enumerate(_NAMES)}
    routing = tmp_path / "router.yaml"
    routing.write_text(_ROUTING)
    stack = _STACK.format(**ports, routing=routing)
    with agent(ports) as consul, running(tmp_path, stack, ports) as mesh:
        client = openai.OpenAI(base_url=mesh.url, api_key=mesh.key, max_retries=0, timeout=30)

        def answered() -> bool:
            messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
            return bool(client.chat.completions.create(model="node", messages=messages).choices)

        with client:
            assert answered()
            services = httpx.get(f"http://127.0.0.1:{ports['consul']}/v1/agent/services", timeout=30).json()
            assert set(services) == {"gateway-0", "router-0", "node-0"}
            mesh.headrace("scale", "node=2")
            mesh.wait_healthy()
            assert "node-1" in mesh.rows()
            mesh.headrace("scale", "node=1")
            assert answered()
            consul.kill()
            consul.wait()
            # What Consul said last stays in force.
            assert all(answered() for _ in range(20))
