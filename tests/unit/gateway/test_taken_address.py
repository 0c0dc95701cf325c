"""The gateway's HTTP port, where another process has it."""

import socket

import pytest

from gateway.adapters.http.server import HttpServer
from mesh.server import AddressTaken


def test_a_taken_http_port_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressTaken, match=f"cannot listen on {address}") as refused:
            HttpServer(None, address, 1.0)
    assert refused.value.setting == "HTTP"
