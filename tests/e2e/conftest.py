"""The meshes that the end-to-end tests share; each is started once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.e2e.mesh_under_test import Mesh, running
from tests.ports import free_ports

# Two of everything that can have two, and one node that is alone; `small` is the real model. `endless` answers for
# minutes, so that whatever ends its answer in a test was not their end.
_STACK = """\
name: e2e
control: 127.0.0.1:{control}
edge: {{listen: "127.0.0.1:{edge}", admin: "127.0.0.1:{admin}"}}
services:
  gateway: {{kind: gateway, replicas: 2, ports: {{grpc: {gateway}, http: {http}}}}}
  router:
    kind: router
    replicas: 2
    ports: {{grpc: {router}}}
    env: {{HEADRACE_ROUTER_CONFIG: "{routing}"}}
  small:
    kind: inference
    replicas: 1
    ports: {{grpc: {small}}}
    env: {{HEADRACE_INFERENCE_ENGINE: torch}}
  paced:
    kind: inference
    replicas: 2
    ports: {{grpc: {paced}}}
    env: &paced
      HEADRACE_INFERENCE_ENGINE: static
      HEADRACE_INFERENCE_ANSWER_TOKENS: 100
      HEADRACE_INFERENCE_FIRST_TOKEN_S: 0.1
      HEADRACE_INFERENCE_TOKEN_INTERVAL_S: 0.02
  alone: {{kind: inference, replicas: 1, ports: {{grpc: {alone}}}, env: *paced}}
  endless:
    kind: inference
    replicas: 1
    ports: {{grpc: {endless}}}
    env:
      HEADRACE_INFERENCE_ENGINE: static
      HEADRACE_INFERENCE_ANSWER_TOKENS: 8000
      HEADRACE_INFERENCE_TOKEN_INTERVAL_S: 0.02
"""
_ROUTING = """\
deployments:
  - {name: small, service: small, model: smollm2-135m-instruct, capabilities: [chat, completion, tools, logprobs, seed]}
  - {name: paced, service: paced, model: static, capabilities: [chat, completion, logprobs, seed, resume]}
  - {name: alone, service: alone, model: static, capabilities: [chat, completion, logprobs, seed, resume]}
  - {name: endless, service: endless, model: static, capabilities: [chat]}
models:
  - {name: smollm2-135m-instruct, chain: [small]}
  - {name: paced, chain: [paced]}
  - {name: alone, chain: [alone]}
  - {name: endless, chain: [endless]}
"""
# Each service has room to be scaled up.
_ROOM = 5


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("e2e")
    routing = folder / "router.yaml"
    routing.write_text(_ROUTING)
    names = ("control", "edge", "admin", "gateway", "http", "router", "small", "paced", "alone", "endless")
    base = free_ports(_ROOM * len(names))
    ports = {name: base + _ROOM * i for i, name in enumerate(names)}
    with running(folder, _STACK.format(**ports, routing=routing), ports) as mesh:
        yield mesh


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=mesh.url, api_key=mesh.key, max_retries=0, timeout=30.0) as client:
        yield client
