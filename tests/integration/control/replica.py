"""A replica to look at, in a process of its own: gRPC health, a call that says who answers, a stream, and HTTP.

It answers as `test.Replica` and under the name of a service that the edge lets through.
SIGUSR1 makes it say NOT_SERVING, SIGUSR2 SERVING again, SIGHUP fail calls while it says SERVING.
"""

import asyncio
import json
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1 with keepalive: every path answers 200 with the name; with `?stream` in ten pieces."""
    with_name = sys.argv[1].encode()
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = [int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")]
            await reader.readexactly(length[0] if length else 0)
            if b"?stream" in head.split(b"\r\n")[0]:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for _ in range(10):
                    writer.write(b"%x\r\n%b\r\n" % (len(with_name), with_name))
                    await writer.drain()
                    await asyncio.sleep(0.1)
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(with_name), with_name))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


failing = asyncio.Event()


async def who(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    if failing.is_set():
        await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
    return sys.argv[1].encode()


async def stream(_request: bytes, _context: object):
    for i in range(20):
        yield b"%d" % i
        await asyncio.sleep(0.1)


async def main() -> None:
    ports = json.loads(sys.argv[2])
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    handlers = {
        "Who": grpc.unary_unary_rpc_method_handler(who),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers(
        (
            *(
                grpc.method_handlers_generic_handler(name, handlers)
                for name in ("test.Replica", "headrace.gateway.v1.Gateway")
            ),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{ports['grpc']}")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    if "http" in ports:
        await asyncio.start_server(http, "127.0.0.1", ports["http"], backlog=64)
    loop = asyncio.get_running_loop()
    for number, status in (
        (signal.SIGUSR1, health_pb2.HealthCheckResponse.NOT_SERVING),
        (signal.SIGUSR2, health_pb2.HealthCheckResponse.SERVING),
    ):
        loop.add_signal_handler(number, lambda s=status: asyncio.ensure_future(servicer.set("", s)))
    loop.add_signal_handler(signal.SIGHUP, failing.set)
    print("listening", flush=True)
    await server.wait_for_termination()


asyncio.run(main())
