"""`engine: anthropic`: Anthropic's Messages API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from inference.adapters.providers.assembly import assemble
from inference.adapters.providers.settings import Capability, Count, ProviderSettings
from inference.core.backend import ChatBackend
from inference.core.providers.anthropic import AnthropicDialect
from inference.core.providers.anthropic_request import AnthropicOptions
from inference.core.providers.request_fields import Unsupported

_USUAL: Final[tuple[Capability, ...]] = ("chat", "tools", "vision", "json_schema")


@dataclass(frozen=True, kw_only=True)
class AnthropicSettings(ProviderSettings):
    """HEADRACE_INFERENCE_* of `engine: anthropic`."""

    base_url: str = "https://api.anthropic.com/v1"
    # The older version lets requests say how tokens are drawn, where the model does.
    api_version: Literal["2023-06-01", "2026-10-21"] = "2026-10-21"
    # Sent where the caller set no limit: the API wants one.
    default_max_tokens: Count = 4096
    # `prefill`: the model goes on from the beginning of an answer. Newer ones refuse that.
    continue_text: Literal["off", "prefill"] = "off"


def build(settings: AnthropicSettings) -> ChatBackend:
    """The engine. Raises ValueError naming the setting that is wrong."""
    options = AnthropicOptions(
        model=settings.upstream_model,
        unsupported=Unsupported(settings.unsupported),
        api_version=settings.api_version,
        default_max_tokens=settings.default_max_tokens,
    )
    return assemble(
        settings,
        AnthropicDialect(options),
        lambda key: {"x-api-key": key.reveal()},
        _USUAL,
        continues=settings.continue_text == "prefill",
    )
