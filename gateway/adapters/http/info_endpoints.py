"""What is read rather than generated: models, health, the OpenAPI document and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from gateway.adapters.http.exchange import Exchange
from gateway.core.admission import Admission
from gateway.core.openai.errors import refusal_of
from gateway.core.openai.models import to_model, to_model_list
from gateway.core.openai.openapi import document
from gateway.core.ports import Router
from mesh.errors import NotFound, Unavailable
from mesh.health import Readiness

MODELS_PATH: Final = "/v1/models"
_TIMEOUT_S: Final = 5.0
_PAGE: Final = Path(__file__).with_name("docs.html")
# The page brings everything along and may load nothing else but the document.
_POLICY: Final = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'"
)


class ModelsEndpoints:
    """The models that a key may use."""

    def __init__(self, admission: Admission, router: Router) -> None:
        self._admission = admission
        self._router = router

    async def list_all(self, exchange: Exchange) -> None:
        """GET /v1/models."""
        self._authenticate(exchange)
        models = await self._router.list_models(_TIMEOUT_S)
        await exchange.respond(200, msgspec.json.encode(to_model_list(models)))

    async def show(self, exchange: Exchange) -> None:
        """GET /v1/models/{id}; ids may have slashes."""
        self._authenticate(exchange)
        name = exchange.path.removeprefix(f"{MODELS_PATH}/")
        for model in await self._router.list_models(_TIMEOUT_S):
            if model.name == name:
                await exchange.respond(200, msgspec.json.encode(to_model(model)))
                return
        raise NotFound("No model has this name.", field="model", reason="MODEL_NOT_FOUND")

    def _authenticate(self, exchange: Exchange) -> None:
        exchange.caller = self._admission.authenticate(exchange.header(b"authorization"), exchange.header(b"x-api-key"))


class HealthEndpoints:
    """Whether the process lives, and whether it wants work."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def live(self, exchange: Exchange) -> None:
        """GET /healthz: 200 while the process can answer at all."""
        await exchange.respond(200, b'{"status":"ok"}')

    async def ready(self, exchange: Exchange) -> None:
        """GET /readyz: 503 while something is pending; the body says what, and what is wrong besides."""
        pending = self._readiness.pending
        warnings = {"warnings": self._readiness.warnings} if self._readiness.warnings else {}
        body = msgspec.json.encode({"ready": not pending, "pending": pending, **warnings})
        headers = refusal_of(Unavailable("not ready"), None).headers if pending else []
        await exchange.respond(503 if pending else 200, body, headers)


class DocsEndpoints:
    """How to use it all."""

    def __init__(self) -> None:
        self._document = msgspec.json.encode(document())
        self._page = _PAGE.read_bytes()

    async def openapi(self, exchange: Exchange) -> None:
        """GET /openapi.json."""
        await exchange.respond(200, self._document)

    async def page(self, exchange: Exchange) -> None:
        """GET /docs."""
        headers = [(b"content-security-policy", _POLICY), (b"x-content-type-options", b"nosniff")]
        await exchange.respond(200, self._page, headers, b"text/html; charset=utf-8")
