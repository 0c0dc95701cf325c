"""The composition root."""

from echo.config import EchoConfig
from echo.contract import NAME, pb_grpc
from echo.core.echoing import Echoing
from echo.servicer import EchoServicer
from mesh.discovery import registration
from mesh.lifecycle import Service


async def build(config: EchoConfig) -> Service:
    """An echo process, ready to run."""
    service = Service(config, (NAME,))
    service.registration = registration(config, kind="echo")
    pb_grpc.add_EchoServicer_to_server(EchoServicer(Echoing(config.max_chars)), service.server.grpc)
    return service
