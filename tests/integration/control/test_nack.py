"""An xDS client that refuses what it is sent, over a raw ADS stream."""

import asyncio

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.rpc import status_pb2

from headrace.control.v1 import control_pb2 as pb
from mesh.control.core.xds.resources import CLUSTER, ENDPOINTS, LISTENER

from .conftest import Mesh, until


class RawClient:
    """Speaks ADS by hand."""

    def __init__(self, address: str, node: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self._channel).StreamAggregatedResources()
        self._node = node

    async def ask(self, type_url: str, *names: str, nonce: str = "", error: str = "") -> None:
        request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names, response_nonce=nonce)
        request.node.id = self._node
        if error:
            request.error_detail.CopyFrom(status_pb2.Status(code=3, message=error))
        await self._stream.write(request)

    async def read(self) -> discovery_pb2.DiscoveryResponse:
        return await asyncio.wait_for(self._stream.read(), 30)

    async def silence(self, seconds: float) -> bool:
        reading = asyncio.ensure_future(self._stream.read())
        done, _ = await asyncio.wait((reading,), timeout=seconds)
        reading.cancel()
        return not done

    async def close(self) -> None:
        self._stream.cancel()
        await self._channel.close()


async def test_a_refusal_is_recorded_not_repeated_and_cleared_by_the_next_acknowledgement(mesh: Mesh) -> None:
    mesh.add_service("small")
    mesh.write()
    await mesh.start_replica("small-0")
    await mesh.start_control()
    stub, client = mesh.stub(), RawClient(mesh.control, "picky")

    async def shown() -> pb.Subscription:
        (listed,) = (await stub.ListClients(pb.ListClientsRequest())).clients
        assert listed.node_id == "picky"
        return next(s for s in listed.subscriptions if s.type_url == CLUSTER)

    await client.ask(CLUSTER, "small", "nobody")
    first = await client.read()
    assert len(first.resources) == 1
    await client.ask(CLUSTER, "small", "nobody", nonce=first.nonce, error="lb_policy: I would rather not")

    async def refused() -> bool:
        return bool((await shown()).nack_message)

    await until(refused)
    subscription = await shown()
    assert subscription.nack_message == "lb_policy: I would rather not"
    assert (subscription.nacked_version, subscription.acked_version) == (first.version_info, "")
    log = mesh.processes["control"].log.read_text()
    assert "xds.refused" in log

    # Asking for one more gives a new answer with a new version; what was refused was not sent again by itself.
    await client.ask(CLUSTER, "small", "small-0", nonce=first.nonce)
    second = await client.read()
    assert (len(second.resources), second.nonce != first.nonce) == (2, True)
    await client.ask(CLUSTER, "small", "small-0", nonce=second.nonce)

    async def acknowledged() -> bool:
        return (await shown()).acked_version == second.version_info

    await until(acknowledged)
    assert (await shown()).nack_message == ""
    assert await client.silence(0.3)
    await client.close()


async def test_types_are_sent_in_an_order_that_refers_to_nothing_unsent(mesh: Mesh) -> None:
    """A burst of changes comes as one response a type, clusters and endpoints before listeners."""
    mesh.add_service("small")
    mesh.write()
    await mesh.start_control()
    client = RawClient(mesh.control, "ordered")
    names = ("small", *(f"small-{i}" for i in range(4)))
    for type_url in (LISTENER, ENDPOINTS, CLUSTER):
        await client.ask(type_url, *names)
        response = await client.read()
        await client.ask(type_url, *names, nonce=response.nonce)
    mesh.stack["services"]["small"]["replicas"] = 4
    mesh.write()
    responses = [await client.read() for _ in range(3)]
    assert [r.type_url for r in responses] == [CLUSTER, ENDPOINTS, LISTENER]
    assert [len(r.resources) for r in responses] == [5, 5, 5]
    await client.close()
