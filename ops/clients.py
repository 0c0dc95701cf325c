"""Asking the mesh over its contracts: the control plane's view, and each router's."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace.router.v1 import router_pb2, router_pb2_grpc
from mesh.channel import open_channel
from mesh.errors import from_rpc_error
from mesh.stack import Stack
from ops.failure import Failure

_TIMEOUT_S: Final = 2.0


async def snapshot(stack: Stack) -> control_pb2.Snapshot:
    """The snapshot in force. Raises Failure where the control plane does not answer."""
    async with open_channel(stack.control) as channel:
        try:
            answer = await control_pb2_grpc.ControlStub(channel).GetSnapshot(
                control_pb2.GetSnapshotRequest(), timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise _silent("the control plane", stack.control, "control", error) from error
    return answer.snapshot


async def xds_clients(stack: Stack) -> list[control_pb2.Client]:
    """The xDS clients that are connected. Raises Failure where the control plane does not answer."""
    async with open_channel(stack.control) as channel:
        try:
            answer = await control_pb2_grpc.ControlStub(channel).ListClients(
                control_pb2.ListClientsRequest(), timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise _silent("the control plane", stack.control, "control", error) from error
    return list(answer.clients)


def router_addresses(stack: Stack) -> tuple[str, ...]:
    """The gRPC addresses of the stack's router replicas."""
    routers = (service for service in stack.services if service.kind == "router")
    return tuple(replica.address for service in routers for replica in service.each_replica())


async def router_states(stack: Stack) -> dict[str, router_pb2.GetStateResponse]:
    """What each router replica that answers sees, by its address."""

    async def ask(address: str) -> router_pb2.GetStateResponse | None:
        async with open_channel(address) as channel:
            try:
                return await router_pb2_grpc.RouterStub(channel).GetState(
                    router_pb2.GetStateRequest(), timeout=_TIMEOUT_S
                )
            except grpc.aio.AioRpcError:
                return None

    addresses = router_addresses(stack)
    answers = await asyncio.gather(*map(ask, addresses))
    return {address: answer for address, answer in zip(addresses, answers, strict=True) if answer is not None}


async def explanation(stack: Stack, request_id: str) -> router_pb2.ExplainResponse:
    """Why a request was answered as it was, from the router replica that served it. Raises Failure."""
    last: grpc.aio.AioRpcError | None = None
    for address in router_addresses(stack):
        async with open_channel(address) as channel:
            try:
                return await router_pb2_grpc.RouterStub(channel).Explain(
                    router_pb2.ExplainRequest(request_id=request_id), timeout=_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                if last is None or error.code() is not grpc.StatusCode.NOT_FOUND:
                    last = error
    if last is None:
        raise Failure("the stack has no router", "see what there is: headrace status")
    if last.code() is grpc.StatusCode.NOT_FOUND:
        raise Failure(
            f"no router remembers the request {request_id!r}",
            "take the id from the answer's x-request-id header; routers forget old requests, and all when they restart",
        )
    raise _silent("the router", ", ".join(router_addresses(stack)), "router", last)


def _silent(who: str, where: str, service: str, error: grpc.aio.AioRpcError) -> Failure:
    return Failure(
        f"{who} at {where} does not answer: {from_rpc_error(error).message}",
        f"see whether it runs: headrace status; and what it says: headrace logs {service}",
    )
