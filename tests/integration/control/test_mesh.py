"""The control plane as a process of its own, with real replicas and real proxyless gRPC clients."""

import asyncio
import signal

import grpc
import pytest

from headrace.control.v1 import control_pb2 as pb
from headrace.control.v1.control_pb2_grpc import ControlStub as Stub
from mesh.control.adapters.replica_health import CHECK_EVERY_S, CHECK_TIMEOUT_S
from mesh.discovery import SnapshotWatcher

from .clients import LONG_S, answers, reaches, rest, stream, who
from .conftest import Mesh, until

HEALTHY, DRAINING, UNHEALTHY = pb.HEALTH_HEALTHY, pb.HEALTH_DRAINING, pb.HEALTH_UNHEALTHY


async def small(mesh: Mesh, running: int = 2, **settings: str) -> Stub:
    """A service of two replicas, all or some of them running, and the control plane."""
    mesh.add_service("small", replicas=2)
    mesh.write()
    await asyncio.gather(*(mesh.start_replica(f"small-{i}") for i in range(running)))
    await mesh.start_control(**settings)
    return mesh.stub()


async def becomes(mesh: Mesh, stub: Stub, replica: str, health: int) -> float:
    async def has() -> bool:
        return (await mesh.health(stub)).get(replica) == health

    return await until(has, f"{replica} becoming {health}")


async def test_a_death_leaves_and_a_new_replica_takes_traffic(mesh: Mesh) -> None:
    stub = await small(mesh)
    channel = mesh.channel("small")
    await becomes(mesh, stub, "small-0", HEALTHY)
    await becomes(mesh, stub, "small-1", HEALTHY)
    await reaches(channel, "small-0", "small-1")

    mesh.processes["small-0"].signal(signal.SIGKILL)
    left = await becomes(mesh, stub, "small-0", UNHEALTHY)
    await reaches(channel, "small-1")

    await mesh.start_replica("small-0")
    back = await reaches(channel, "small-0", "small-1")

    mesh.stack["services"]["small"]["replicas"] = 3
    await mesh.start_replica("small-2")
    mesh.write()
    new = await reaches(channel, "small-0", "small-1", "small-2")

    mesh.stack["services"]["small"]["replicas"] = 1
    mesh.write()
    await reaches(channel, "small-0")
    print(f"left {left:.3f} s, back {back:.3f} s, new {new:.3f} s")


async def test_a_stopped_replica_leaves_and_comes_back(mesh: Mesh) -> None:
    """Nothing breaks when it is stopped: an unanswered check tells, and is made so often that two seconds suffice."""
    assert CHECK_EVERY_S + CHECK_TIMEOUT_S < 2
    stub = await small(mesh)
    await becomes(mesh, stub, "small-1", HEALTHY)
    mesh.processes["small-1"].signal(signal.SIGSTOP)
    left = await becomes(mesh, stub, "small-1", UNHEALTHY)
    (service,) = (await stub.GetSnapshot(pb.GetSnapshotRequest())).snapshot.services
    assert service.replicas[1].reason == f"no answer within {CHECK_TIMEOUT_S:g} s"
    mesh.processes["small-1"].signal(signal.SIGCONT)
    back = await becomes(mesh, stub, "small-1", HEALTHY)
    print(f"left {left:.3f} s, back {back:.3f} s")


async def test_a_drain_leaves_at_once_and_severs_no_stream(mesh: Mesh) -> None:
    """Streams by the service's and by the replica's own name go on while the replica drains and leaves the stack."""
    stub = await small(mesh, running=1)
    channels = [mesh.channel("small"), mesh.channel("small-0")]
    calls = [stream(channel) for channel in channels]
    for call in calls:
        assert await call.read() == b"0"
    mesh.processes["small-0"].signal(signal.SIGUSR1)
    await becomes(mesh, stub, "small-0", DRAINING)
    for channel in (*channels, mesh.channel("small"), mesh.channel("small-0")):
        await reaches(channel, "UNAVAILABLE")
    mesh.stack["services"]["small"]["replicas"] = 0
    mesh.write()
    await until(lambda: _gone(mesh, stub))
    for call in calls:
        assert [int(m) for m in await rest(call)] == list(range(1, 20))


async def _gone(mesh: Mesh, stub: Stub) -> bool:
    return await mesh.health(stub) == {}


async def test_a_replica_is_reached_by_its_own_name_and_nobody_fails_fast(mesh: Mesh) -> None:
    await small(mesh, running=1)
    await reaches(mesh.channel("small-0"), "small-0")
    # At its deadline a call that waits would end as DEADLINE_EXCEEDED.
    assert await who(mesh.channel("small-1")) == "UNAVAILABLE"


async def test_a_replica_that_fails_where_others_do_not_is_left_out(mesh: Mesh) -> None:
    """It says SERVING, so only its callers can tell: gRPC's outlier detection, as the cluster sets it."""
    mesh.add_service("small", replicas=3)
    mesh.write()
    await asyncio.gather(*(mesh.start_replica(f"small-{i}") for i in range(3)))
    await mesh.start_control()
    channel = mesh.channel("small")
    await reaches(channel, "small-0", "small-1", "small-2")
    mesh.processes["small-2"].signal(signal.SIGHUP)
    await reaches(channel, "small-0", "small-1", "UNAVAILABLE")

    async def left_out() -> bool:
        return await answers(channel, 90) == {"small-0", "small-1"}

    await until(left_out, "leaving the outlier out")


async def test_a_wrong_stack_file_changes_nothing_and_is_shown(mesh: Mesh) -> None:
    stub = await small(mesh)
    good = mesh.stack_file.read_text()
    mesh.stack_file.write_text("services: [")

    async def source() -> pb.Source:
        return (await stub.GetSnapshot(pb.GetSnapshotRequest())).snapshot.sources[0]

    async def refused() -> bool:
        seen = await source()
        return not seen.alive and "stack.yaml:1: not YAML" in seen.error

    # Before that it may be seen empty.
    await until(refused)
    await reaches(mesh.channel("small"), "small-0", "small-1")
    mesh.stack_file.write_text(good)

    async def fine() -> bool:
        return (await source()).alive

    await until(fine)


async def test_faults_hit_whom_they_name_and_heal_by_themselves(mesh: Mesh) -> None:
    stub = await small(mesh, faults="true")
    channel, one, other = mesh.channel("small"), mesh.channel("small-0"), mesh.channel("small-1")
    await reaches(channel, "small-0", "small-1")
    aborts = pb.Fault(service="small", abort_code=8, percent=100, tenant="acme")
    aborts.lasts.FromSeconds(60)
    put = await stub.InjectFault(pb.InjectFaultRequest(fault=aborts))
    assert (await stub.GetSnapshot(pb.GetSnapshotRequest())).snapshot.version == put.version

    async def hit(over: grpc.aio.Channel) -> bool:
        return await who(over, ("x-headrace-tenant", "acme")) == "RESOURCE_EXHAUSTED"

    for over in (channel, one, other):
        await until(lambda over=over: hit(over))
    assert await who(channel, ("x-headrace-tenant", "other")) in {"small-0", "small-1"}
    # Longer than any call here takes.
    slow = pb.Fault(id="slow", service="small", replica="small-0", percent=100)
    slow.delay.FromSeconds(2 * round(LONG_S))
    slow.lasts.FromSeconds(600)
    await stub.InjectFault(pb.InjectFaultRequest(fault=slow))

    async def delayed(over: grpc.aio.Channel) -> bool:
        return await who(over, timeout_s=0.5) == "DEADLINE_EXCEEDED"

    await until(lambda: delayed(one), "a delay")
    assert await who(other) == "small-1"
    slow.lasts.FromMilliseconds(200)
    await stub.InjectFault(pb.InjectFaultRequest(fault=slow))
    await until(lambda: _faults(stub, [put.id]), "healing")
    assert (await stub.ClearFaults(pb.ClearFaultsRequest(ids=["nobody"]))).cleared == 0
    assert (await stub.ClearFaults(pb.ClearFaultsRequest())).cleared == 1
    await until(lambda: _not(hit(channel)))
    await until(lambda: _not(delayed(one)))
    assert await who(one) == "small-0"


async def _faults(stub: Stub, expected: list[str]) -> bool:
    return [f.id for f in (await stub.GetSnapshot(pb.GetSnapshotRequest())).snapshot.faults] == expected


async def _not(held) -> bool:
    return not await held


async def test_faults_are_refused_where_they_are_switched_off_or_wrong(mesh: Mesh) -> None:
    stub = await small(mesh)
    fault = pb.Fault(service="small", abort_code=14, percent=100)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.InjectFault(pb.InjectFaultRequest(fault=fault))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "HEADRACE_CONTROL_FAULTS" in (caught.value.details() or "")


async def test_a_restart_of_the_control_plane_disturbs_nobody(mesh: Mesh) -> None:
    """Calls and a stream go on while control is away and after it is back; versions stay."""
    stub = await small(mesh)
    channel = mesh.channel("small")
    await reaches(channel, "small-0", "small-1")
    sent = await _acknowledged(stub)
    before = (await stub.GetSnapshot(pb.GetSnapshotRequest())).snapshot.version
    watcher = SnapshotWatcher(mesh.control)
    watching = asyncio.create_task(watcher.run())
    await watcher.changed()
    live = stream(channel)
    await live.read()
    over, failures = asyncio.Event(), []

    async def keep_calling() -> None:
        while not over.is_set():
            answer = await who(channel)
            if not answer.startswith("small-"):
                failures.append(answer)
            await asyncio.sleep(0.005)

    caller = asyncio.create_task(keep_calling())
    mesh.processes["control"].signal(signal.SIGTERM)
    assert await asyncio.wait_for(mesh.processes["control"].child.wait(), 30) == 0
    assert watcher.version == before
    await mesh.start_control()
    again = mesh.stub()

    async def all_back() -> bool:
        return {state[:3] for state in await _subscriptions(again)} == sent

    # gRPC's own xDS client comes back by itself, after ever longer pauses.
    await until(all_back, "clients coming back to the same versions")
    assert (await again.GetSnapshot(pb.GetSnapshotRequest())).snapshot.version == before
    over.set()
    await caller
    assert failures == []
    assert len(await rest(live)) == 19
    watching.cancel()


async def _subscriptions(stub: Stub) -> set[tuple[str, str, str, str]]:
    """Each client's node, and of each type the versions that it acknowledged and that it was sent last."""
    clients = (await stub.ListClients(pb.ListClientsRequest())).clients
    return {(c.node_id, s.type_url, s.acked_version, s.sent_version) for c in clients for s in c.subscriptions}


async def _acknowledged(stub: Stub) -> set[tuple[str, str, str]]:
    """What clients acknowledged, once that is everything: they use what they got before they say so."""

    async def everything() -> bool:
        return all(acked == sent != "" for _, _, acked, sent in await _subscriptions(stub))

    await until(everything, "acknowledging")
    return {state[:3] for state in await _subscriptions(stub)}


async def test_clients_are_listed_with_what_they_acknowledged(mesh: Mesh) -> None:
    stub = await small(mesh)
    channel = mesh.channel("small", node="router-7")
    await reaches(channel, "small-0", "small-1")
    await _acknowledged(stub)
    (client,) = (await stub.ListClients(pb.ListClientsRequest())).clients
    assert client.node_id == "router-7"
    assert client.user_agent.startswith("gRPC")
    assert [s.type_url.rpartition(".")[2] for s in client.subscriptions] == [
        "Cluster",
        "ClusterLoadAssignment",
        "Listener",
        "RouteConfiguration",
    ]
    for subscription in client.subscriptions:
        assert list(subscription.resource_names) == ["small"]
        assert subscription.sent_version == subscription.acked_version != ""
        assert subscription.nack_message == ""


async def test_a_change_elsewhere_is_not_sent_to_a_client_that_did_not_ask(mesh: Mesh) -> None:
    mesh.add_service("large")
    stub = await small(mesh)
    await reaches(mesh.channel("small"), "small-0", "small-1")
    before = await _acknowledged(stub)
    await mesh.start_replica("large-0")
    await becomes(mesh, stub, "large-0", HEALTHY)
    assert await _acknowledged(stub) == before


async def test_a_wrong_stack_ends_the_start_with_every_mistake(mesh: Mesh) -> None:
    mesh.add_service("small-1")
    mesh.stack["control"] = "nowhere"
    mesh.write()
    with pytest.raises(AssertionError, match="start of control"):
        await mesh.start_control()
    control = mesh.processes["control"]
    assert control.child.returncode == 64
    assert "'nowhere' is not host:port" in control.log.read_text()
    assert "services.small-1" in control.log.read_text()
