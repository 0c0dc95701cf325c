"""A real Consul agent as the source, and mesh.discovery's registration with it."""

import asyncio
import shutil
import signal

import httpx
import pytest

from headrace.control.v1 import control_pb2 as pb
from headrace.control.v1.control_pb2_grpc import ControlStub
from mesh.discovery import ConsulRegistration
from mesh.lifecycle import ProcessConfig
from tests.ports import free_ports

from .clients import answers, reaches
from .conftest import Mesh, until

CONSUL = shutil.which("consul")
pytestmark = pytest.mark.skipif(CONSUL is None, reason="no consul binary: deploy/consul/install.sh installs it")


class Agent:
    """A Consul agent in development mode: everything in memory, so a restart forgets."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.address = f"127.0.0.1:{free_ports()}"
        self._ports = [free_ports() for _ in range(3)]

    async def start(self) -> None:
        serf_lan, serf_wan, server = self._ports
        command = [str(CONSUL), "agent", "-dev", "-bind=127.0.0.1", "-http-port=" + self.address.rpartition(":")[2]]
        ports = ["-dns-port=-1", "-grpc-port=-1", f"-serf-lan-port={serf_lan}", f"-serf-wan-port={serf_wan}"]
        await self.mesh.spawn("consul", [*command, *ports, f"-server-port={server}"], {})
        await until(self._leads, "start of Consul")

    async def _leads(self) -> bool:
        async with httpx.AsyncClient(timeout=20) as client:
            try:
                return len((await client.get(f"http://{self.address}/v1/status/leader")).text) > 2
            except httpx.TransportError:
                return False

    async def kill(self) -> None:
        await self.mesh.processes["consul"].kill()

    async def register(self, replica: str) -> ConsulRegistration:
        service, _, _ = replica.rpartition("-")
        config = ProcessConfig(listen="127.0.0.1:0", consul=self.address, service=service, replica=replica)
        registration = ConsulRegistration(config, kind="inference", ports={"http": 4321})
        await registration.register(int(self.mesh.address(replica).rpartition(":")[2]))
        return registration


@pytest.fixture
async def agent(mesh: Mesh) -> Agent:
    agent = Agent(mesh)
    await agent.start()
    mesh.add_service("small", replicas=2)
    mesh.stack["consul"] = agent.address
    mesh.write()
    await asyncio.gather(mesh.start_replica("small-0"), mesh.start_replica("small-1"))
    return agent


async def healthy(mesh: Mesh, stub: ControlStub) -> set[str]:
    return {r for r, health in (await mesh.health(stub)).items() if health == pb.HEALTH_HEALTHY}


async def sees(mesh: Mesh, stub: ControlStub, *expected: str) -> float:
    async def does() -> bool:
        return await healthy(mesh, stub) == set(expected)

    return await until(does, f"seeing {expected}")


async def test_replicas_come_by_registering_and_go_by_dying_or_deregistering(mesh: Mesh, agent: Agent) -> None:
    await mesh.start_control()
    stub = mesh.stub()
    assert await mesh.health(stub) == {}
    first, second = [await agent.register(f"small-{i}") for i in range(2)]
    new = await sees(mesh, stub, "small-0", "small-1")
    await reaches(mesh.channel("small"), "small-0", "small-1")
    (service,) = (await stub.GetSnapshot(pb.GetSnapshotRequest())).snapshot.services
    assert (service.kind, dict(service.replicas[0].ports)) == ("inference", {"http": 4321})
    mesh.processes["small-1"].signal(signal.SIGKILL)
    left = await sees(mesh, stub, "small-0")
    await first.deregister()
    gone = await sees(mesh, stub)
    await second.deregister()
    print(f"new {new:.3f} s, left {left:.3f} s, gone {gone:.3f} s")


async def test_what_consul_said_last_outlives_it_and_its_restart(mesh: Mesh, agent: Agent) -> None:
    registrations = [await agent.register(f"small-{i}") for i in range(2)]
    await mesh.start_control()
    stub = mesh.stub()
    await sees(mesh, stub, "small-0", "small-1")
    channel = mesh.channel("small")
    over, lost = asyncio.Event(), set()

    async def keep_asking() -> None:
        while not over.is_set():
            lost.update(await answers(channel, 1) - {"small-0", "small-1"})
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(keep_asking())

    async def alive() -> bool:
        sources = (await stub.GetSnapshot(pb.GetSnapshotRequest())).snapshot.sources
        return {s.name: s.alive for s in sources}["consul"]

    await agent.kill()
    await until(lambda: _not(alive()), "noticing that Consul is gone")
    assert await healthy(mesh, stub) == {"small-0", "small-1"}
    await agent.start()
    await until(alive, "noticing that Consul is back")
    # It has forgotten both; they tell it again, and nobody was lost in between.
    await until(lambda: _knows(agent, 2), "registering again")
    assert await healthy(mesh, stub) == {"small-0", "small-1"}
    over.set()
    await asking
    assert lost == set()
    for registration in registrations:
        await registration.deregister()


async def test_registering_without_an_agent_is_retried_and_never_fatal(mesh: Mesh, agent: Agent) -> None:
    await agent.kill()
    registration = await agent.register("small-0")
    await agent.start()
    await until(lambda: _knows(agent, 1), "registering late")
    await registration.deregister()
    await until(lambda: _knows(agent, 0))
    await agent.kill()
    await registration.deregister()


async def _knows(agent: Agent, count: int) -> bool:
    async with httpx.AsyncClient(timeout=20) as client:
        found = (await client.get(f"http://{agent.address}/v1/agent/services")).json()
    return len(found) == count


async def _not(held) -> bool:
    return not await held
