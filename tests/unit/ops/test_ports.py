"""A port that is taken is named, with who holds it, before anything is started."""

import os
import socket

import pytest

from mesh.stack import parse
from ops.failure import Failure
from ops.local.ports import Listener, listeners, require_free
from tests.ports import free_ports

STACK = """
name: small
control: 127.0.0.1:17000
edge: {listen: "0.0.0.0:18080", admin: 127.0.0.1:19901}
services:
  router: {kind: router, replicas: 2, ports: {grpc: 17200, metrics: 17290}}
"""


def test_every_address_of_a_stack_is_listed() -> None:
    found = {one.owner: (one.host, one.port) for one in listeners(parse(STACK))}
    assert found == {
        "control": ("127.0.0.1", 17000),
        "edge.listen": ("0.0.0.0", 18080),
        "edge.admin": ("127.0.0.1", 19901),
        "router-0.grpc": ("127.0.0.1", 17200),
        "router-0.metrics": ("127.0.0.1", 17290),
        "router-1.grpc": ("127.0.0.1", 17201),
        "router-1.metrics": ("127.0.0.1", 17291),
    }


def test_a_taken_port_is_named_with_its_owner_and_its_holder() -> None:
    with socket.socket() as holder:
        port = free_ports()
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(Failure) as caught:
            require_free((Listener("router-0.grpc", "127.0.0.1", port),))
    assert f"port {port} (for router-0.grpc) is in use" in caught.value.what
    assert f"pid {os.getpid()}" in caught.value.what
    assert "--stack" in caught.value.next_step
    require_free((Listener("router-0.grpc", "127.0.0.1", port),))
