"""`engine: openai`: OpenAI, Azure, and every server that speaks like them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from inference.adapters.providers.assembly import assemble
from inference.adapters.providers.settings import Capability, ProviderSettings
from inference.core.backend import ChatBackend
from inference.core.providers.call_ids import MISTRAL, OPENAI
from inference.core.providers.openai import OpenAIDialect
from inference.core.providers.openai_request import OpenAIOptions
from inference.core.providers.request_fields import Unsupported
from mesh.config import Secret

_USUAL: Final[tuple[Capability, ...]] = ("chat", "tools", "vision", "json_schema", "logprobs", "seed")
# Their newer models refuse max_tokens; most other servers know only that.
_NEWER_FIELD: Final = ("api.openai.com", ".azure.com", ".microsoft.com")


@dataclass(frozen=True, kw_only=True)
class OpenAISettings(ProviderSettings):
    """HEADRACE_INFERENCE_* of `engine: openai`."""

    base_url: str = "https://api.openai.com/v1"
    # Azure's query parameter `api-version`; empty: none.
    api_version: str = ""
    # The header that carries the key: `Authorization: Bearer` or Azure's `api-key`.
    key_header: Literal["authorization", "api-key"] = "authorization"
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    # Off for servers that refuse `stream_options`; usage is then unknown.
    stream_usage: bool = True
    # The server knows top_k, min_p, repetition_penalty and ignore_eos (vLLM, SGLang, llama-server).
    extended_sampling: bool = False
    # Mistral's servers, and vLLM with Mistral's tokenizer, take ids of calls of nine letters and digits only.
    call_ids: Literal["auto", "any", "mistral"] = "auto"
    # How the server is told to go on from the beginning of an answer: vLLM and SGLang, or Mistral and DeepSeek.
    continue_text: Literal["off", "continue_final_message", "prefix"] = "off"


def build(settings: OpenAISettings) -> ChatBackend:
    """The engine. Raises ValueError naming the setting that is wrong."""
    host = urlsplit(settings.base_url).hostname or ""
    field, call_ids = settings.max_tokens_field, settings.call_ids
    if call_ids == "auto":
        call_ids = "mistral" if host.endswith(".mistral.ai") else "any"
    if field == "auto":
        field = "max_completion_tokens" if host.endswith(_NEWER_FIELD) else "max_tokens"
    options = OpenAIOptions(
        model=settings.upstream_model,
        unsupported=Unsupported(settings.unsupported),
        max_tokens_field=field,
        stream_usage=settings.stream_usage,
        extended_sampling=settings.extended_sampling,
        api_version=settings.api_version,
        continue_text=settings.continue_text,
        call_ids=MISTRAL if call_ids == "mistral" else OPENAI,
    )

    def authorize(key: Secret) -> Mapping[str, str]:
        if settings.key_header == "api-key":
            return {"api-key": key.reveal()}
        return {"authorization": f"Bearer {key.reveal()}"}

    continues = settings.continue_text != "off"
    return assemble(settings, OpenAIDialect(options), authorize, _USUAL, continues=continues)
