"""The dialect of OpenAI and of the servers that speak like it."""

from __future__ import annotations

from inference.core.chat_port import ChatRequest
from inference.core.continuing import continued_text
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.dialect import HttpCall
from inference.core.providers.openai_request import OpenAIOptions, to_call
from inference.core.providers.openai_response import OpenAIReader


class OpenAIDialect:
    """See inference.core.providers.dialect.Dialect."""

    def __init__(self, options: OpenAIOptions) -> None:
        self._options = options

    def call(self, request: ChatRequest) -> HttpCall:
        """See Dialect."""
        return to_call(request, self._options)

    def reader(self, request: ChatRequest) -> OpenAIReader:
        """See Dialect."""
        choices = max(1, request.generation.sampling.n)
        return OpenAIReader(
            choices, FreshIds.of(request), counted=self._options.stream_usage, begun=continued_text(request.generation)
        )
