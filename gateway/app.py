"""The composition root: builds the adapters and hands them to the core."""

from __future__ import annotations

from typing import Final

from gateway.adapters import keys_file
from gateway.adapters.http.asgi_app import AsgiApp, Routes
from gateway.adapters.http.cors import Cors
from gateway.adapters.http.generating import GeneratingEndpoint, HttpLimits
from gateway.adapters.http.info_endpoints import MODELS_PATH, DocsEndpoints, HealthEndpoints, ModelsEndpoints
from gateway.adapters.http.server import HttpServer
from gateway.adapters.metrics import Meter, watch_inflight
from gateway.adapters.router_client import RouterClient
from gateway.config import GatewayConfig
from gateway.core.admission import Admission
from gateway.core.keys import KeyRing
from gateway.core.model_catalog import ModelCatalog
from gateway.core.openai.api_requests import ChatApiRequest, CompletionApiRequest
from gateway.core.request_pipeline import RequestPipeline
from gateway.servicer import GatewayServicer
from headrace.gateway.v1 import gateway_pb2_grpc
from mesh.client import ServiceClient
from mesh.clock import SYSTEM
from mesh.discovery import SnapshotWatcher, registration
from mesh.errors import MeshError
from mesh.lifecycle import Service, State
from mesh.resilience import BreakerPolicy, LoadShed
from mesh.watched_file import WatchedFile

_NAME: Final = "headrace.gateway.v1.Gateway"
_FIRST_ANSWER_S: Final = 1.0
# Routers that come back are asked at once: what they are asked for outside of generations costs next to nothing.
_ROUTERS_BREAKER: Final = BreakerPolicy(reset_s=0.1, max_reset_s=0.5)


async def build(config: GatewayConfig) -> Service:
    """A gateway, ready to run. Raises FileErrors when the keys file cannot be used, OSError for a taken address."""
    file = WatchedFile("keys", config.keys, keys_file.read, interval_s=config.reload_s)
    keys = file.load()
    service = Service(config, (_NAME,), blockers=("http", "router"))
    routers = ServiceClient(config.router, breaker=_ROUTERS_BREAKER)
    service.closing(routers.close)
    if config.control:
        watcher = SnapshotWatcher(config.control)
        service.background("snapshot", watcher.run())
        service.background("routers", routers.follow(watcher))
    router = RouterClient(routers)
    admission = Admission(keys, LoadShed(config.max_inflight), SYSTEM, config.deadline_s)
    watch_inflight(lambda: admission.shed.inflight)
    request_pipeline = RequestPipeline(router, SYSTEM)
    catalog = ModelCatalog(router, SYSTEM, config.models_s, config.answer_model)
    service.background("models", catalog.run())

    servicer = GatewayServicer(admission, request_pipeline, router, Meter("grpc"), catalog)
    gateway_pb2_grpc.add_GatewayServicer_to_server(servicer, service.server.grpc)

    routes = _routes(config, service, admission, request_pipeline, router=router, catalog=catalog)
    cors = Cors(config.cors_origins)
    asgi_app = AsgiApp(routes, Meter("http"), closing=lambda: service.state is State.DRAINING, cors=cors)
    http = HttpServer(asgi_app, config.http, config.stall_s)
    service.background("http_server", http.run())
    service.starting("http", http.started())
    service.drains.append(http.drain)
    service.registration = registration(config, kind="gateway", ports={"http": http.port})

    # Once only: a gateway without routers answers 503 itself, which is better than not being there.
    service.starting("router", _first_answer(router))

    def use(ring: KeyRing) -> None:
        admission.keys = ring

    service.follow(file, use)
    return service


def _routes(
    config: GatewayConfig,
    service: Service,
    admission: Admission,
    request_pipeline: RequestPipeline,
    *,
    router: RouterClient,
    catalog: ModelCatalog,
) -> Routes:
    limits = HttpLimits(config.max_body_bytes, config.body_timeout_s, config.keep_alive_s)

    def generating(decode: type[ChatApiRequest] | type[CompletionApiRequest]) -> GeneratingEndpoint:
        return GeneratingEndpoint(decode.decode, admission, request_pipeline, catalog=catalog, limits=limits)

    models, health, docs = ModelsEndpoints(admission, router), HealthEndpoints(service.readiness), DocsEndpoints()
    return {
        "/v1/chat/completions": {"POST": generating(ChatApiRequest)},
        "/v1/completions": {"POST": generating(CompletionApiRequest)},
        MODELS_PATH: {"GET": models.list_all, "HEAD": models.list_all},
        f"{MODELS_PATH}/": {"GET": models.show, "HEAD": models.show},
        "/healthz": {"GET": health.live, "HEAD": health.live},
        "/readyz": {"GET": health.ready, "HEAD": health.ready},
        "/openapi.json": {"GET": docs.openapi, "HEAD": docs.openapi},
        "/docs": {"GET": docs.page, "HEAD": docs.page},
    }


async def _first_answer(router: RouterClient) -> None:
    """Return when a router has answered: the channel is warm, and the first caller does not pay for it."""
    pause_s = 0.05
    while True:
        try:
            await router.list_models(_FIRST_ANSWER_S)
        except MeshError:
            await SYSTEM.sleep(pause_s)
            pause_s = min(2 * pause_s, _FIRST_ANSWER_S)
        else:
            return
