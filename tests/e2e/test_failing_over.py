"""A replica is killed under load: what had no token yet succeeds elsewhere, what had is continued or ends in words."""

from __future__ import annotations

import asyncio
import os
import signal

import openai

from headrace.control.v1 import control_pb2, control_pb2_grpc
from mesh.channel import open_channel
from tests.e2e.mesh_under_test import Mesh
from tests.e2e.streams import Streams, assert_whole, whole_answer


async def test_a_killed_replica_fails_no_request(mesh: Mesh, client: openai.AsyncOpenAI) -> None:
    """Requests without a token fail over; those with one are resumed by the replica that is left, word for word."""
    text = await whole_answer(client, "paced")
    pid = await asyncio.to_thread(mesh.pid, "paced-0")
    early = Streams(client, "paced", 16)
    await early.under_way()
    late = Streams(client, "paced", 16)
    os.kill(pid, signal.SIGKILL)
    assert_whole(await late.end(), text)
    assert_whole(await early.end(), text)
    await asyncio.to_thread(mesh.wait_replaced, "paced-0", pid)


async def test_a_dead_replica_leaves_the_snapshot_and_comes_back(mesh: Mesh) -> None:
    """How soon is judged by the drill replica-kill, on a machine of its own."""
    pid = await asyncio.to_thread(mesh.pid, "paced-1")
    async with open_channel(f"127.0.0.1:{mesh.ports['control']}") as channel:
        watch = control_pb2_grpc.ControlStub(channel).WatchSnapshot(control_pb2.WatchSnapshotRequest(), timeout=60)

        async def until(healthy: bool) -> None:
            async for answer in watch:
                for service in answer.snapshot.services:
                    for replica in service.replicas:
                        if replica.id == "paced-1" and (replica.health == control_pb2.HEALTH_HEALTHY) == healthy:
                            return
            raise AssertionError("the watch ended")

        await until(True)
        os.kill(pid, signal.SIGKILL)
        await until(False)
        await until(True)
        watch.cancel()
    await asyncio.to_thread(mesh.wait_replaced, "paced-1", pid)


async def test_the_control_plane_may_be_killed_without_anyone_noticing(mesh: Mesh, client: openai.AsyncOpenAI) -> None:
    text = await whole_answer(client, "paced")
    pid = await asyncio.to_thread(mesh.pid, "control")
    streams = Streams(client, "paced", 4)
    await streams.under_way()
    os.kill(pid, signal.SIGKILL)
    while_away = Streams(client, "paced", 4)
    assert_whole(await while_away.end(), text)
    assert_whole(await streams.end(), text)
    await asyncio.to_thread(mesh.wait_replaced, "control", pid)
    after = Streams(client, "paced", 2)
    assert_whole(await after.end(), text)
