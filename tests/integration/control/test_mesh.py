"""The control plane as a process of its own, with real replicas and real proxyless gRPC clients."""

import signal

import grpc

from headrace.control.v1 import control_pb2 as pb

from .conftest import Mesh, until

HEALTHY, DRAINING, UNHEALTHY = pb.HEALTH_HEALTHY, pb.HEALTH_DRAINING, pb.HEALTH_UNHEALTHY


async def who(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> str:
    """Who answers; the code's name where nobody does."""
    try:
        return (await channel.unary_unary("/test.Replica/Who")(b"", timeout=3, metadata=metadata)).decode()
    except grpc.aio.AioRpcError as error:
        return error.code().name


async def answers(channel: grpc.aio.Channel, calls: int = 12) -> set[str]:
    return {await who(channel) for _ in range(calls)}


async def test_a_death_leaves_and_a_new_replica_takes_traffic_within_two_seconds(mesh: Mesh) -> None:
    mesh.add_service("small", replicas=2)
    mesh.write()
    first = await mesh.start_replica("small-0")
    await mesh.start_replica("small-1")
    await mesh.start_control()
    stub, channel = mesh.stub(), mesh.channel("small")
    assert await mesh.health(stub) == {"small-0": HEALTHY, "small-1": HEALTHY}
    assert await answers(channel) == {"small-0", "small-1"}

    first.signal(signal.SIGKILL)
    left = await until(lambda: _is(mesh, stub, "small-0", UNHEALTHY), 2, "leaving after SIGKILL")
    await until(lambda: _equal(channel, {"small-1"}), 2, "traffic away from the dead")

    await mesh.start_replica("small-0")
    back = await until(lambda: _equal(channel, {"small-0", "small-1"}), 2, "traffic to the replica that came back")

    mesh.stack["services"]["small"]["replicas"] = 3
    mesh.write()
    await mesh.start_replica("small-2")
    new = await until(lambda: _equal(channel, {"small-0", "small-1", "small-2"}), 2, "traffic to a new replica")
    print(f"left {left:.3f} back {back:.3f} new {new:.3f}")


async def _is(mesh: Mesh, stub, replica: str, health: int) -> bool:
    return (await mesh.health(stub))[replica] == health


async def _equal(channel: grpc.aio.Channel, expected: set[str]) -> bool:
    return await answers(channel) == expected
