"""What every provider's node is set up with: HEADRACE_INFERENCE_<FIELD>."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from headrace.inference.v1.inference_pb2 import Capabilities, ModelCard
from mesh.config import Secret

Count = Annotated[int, msgspec.Meta(ge=1)]
Timer = Annotated[float, msgspec.Meta(gt=0)]
Capability = Literal["chat", "completion", "tools", "vision", "json_schema", "logprobs", "seed"]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ProviderSettings:
    """One model of one provider. Times are seconds."""

    # The provider's own name for the model.
    upstream_model: str
    # Everything before the path that the provider's interface begins with.
    base_url: str
    # The key itself, or a file that holds it (read again when it changes). Neither: no key is sent.
    api_key: Secret = field(default_factory=lambda: Secret(""))
    api_key_file: Path | None = None
    # What the model can be asked for; empty takes what the provider's models usually can.
    capabilities: tuple[Capability, ...] = ()
    context_length: Count = 128_000
    # Two nodes with the same words serve the same weights.
    revision: str = ""
    # What to do with a sampling field that the provider has no word for.
    unsupported: Literal["refuse", "drop"] = "refuse"
    max_running: Count = 64
    # An answer that grows beyond it is ended for its length, whatever the caller's limit is.
    max_answer_bytes: Count = 16 << 20
    # Until a connection to the provider stands. How long its answer may take, and be silent, is the business of the
    # caller's deadline and of the router's timers.
    connect_s: Timer = 5.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url: {self.base_url!r} is not an http or https URL")
        if parts.username or parts.query or parts.fragment:
            raise ValueError("base_url: must not hold credentials, a query or a fragment")
        has_key = bool(self.api_key) or self.api_key_file is not None
        if parts.scheme == "http" and has_key and parts.hostname not in _LOOPBACK:
            raise ValueError("base_url: a key is sent over https only, except on this machine")
        if self.api_key and self.api_key_file is not None:
            raise ValueError("api_key and api_key_file: give one of them")


def card(settings: ProviderSettings, usual: Iterable[Capability], *, continues: bool) -> ModelCard:
    """What the node says of itself; its name is the node's business. `continues`: an answer from its beginning."""
    chosen = settings.capabilities or tuple(usual)
    return ModelCard(
        revision=settings.revision or settings.upstream_model,
        context_length=settings.context_length,
        capabilities=Capabilities(**dict.fromkeys(chosen, True), continue_text=continues),
    )
