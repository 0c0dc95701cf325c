"""What a gateway says of itself to a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app import build
from gateway.config import GatewayConfig
from mesh.discovery import ConsulRegistration

pytest.importorskip("consul", reason="only processes with a registry need its client library")


async def test_the_port_that_is_registered_is_the_one_that_was_bound(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("")
    nobody = "127.0.0.1:9"
    config = GatewayConfig(keys=keys, http="127.0.0.1:0", router=nobody, consul=nobody, drain_delay_s=0.0)
    service = await build(config)
    assert isinstance(service.registration, ConsulRegistration)
    assert service.registration.ports["http"] > 0
    service.stop()
    assert await service.run() == 0
