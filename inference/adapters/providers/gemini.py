"""`engine: gemini`: Google's Gemini API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from inference.adapters.providers.assembly import assemble
from inference.adapters.providers.settings import Capability, ProviderSettings
from inference.core.backend import ChatBackend
from inference.core.providers.gemini import GeminiDialect
from inference.core.providers.gemini_request import GeminiOptions
from inference.core.providers.request_fields import Unsupported

_USUAL: Final[tuple[Capability, ...]] = ("chat", "tools", "vision", "json_schema", "logprobs", "seed")
# It stands in the URL's path.
_MODEL: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class GeminiSettings(ProviderSettings):
    """HEADRACE_INFERENCE_* of `engine: gemini`."""

    base_url: str = "https://generativelanguage.googleapis.com/v1beta"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _MODEL.fullmatch(self.upstream_model):
            raise ValueError(f"upstream_model: {self.upstream_model!r} does not match {_MODEL.pattern}")


def build(settings: GeminiSettings) -> ChatBackend:
    """The engine. Raises ValueError naming the setting that is wrong."""
    options = GeminiOptions(model=settings.upstream_model, unsupported=Unsupported(settings.unsupported))
    return assemble(settings, GeminiDialect(options), lambda key: {"x-goog-api-key": key.reveal()}, _USUAL)
