"""The dialect of Gemini's API."""

from __future__ import annotations

from inference.core.chat_port import ChatRequest
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.dialect import HttpCall
from inference.core.providers.gemini_request import GeminiOptions, to_call
from inference.core.providers.gemini_response import GeminiReader


class GeminiDialect:
    """See inference.core.providers.dialect.Dialect."""

    def __init__(self, options: GeminiOptions) -> None:
        self._options = options

    def call(self, request: ChatRequest) -> HttpCall:
        """See Dialect."""
        return to_call(request, self._options)

    def reader(self, request: ChatRequest) -> GeminiReader:
        """See Dialect."""
        return GeminiReader(max(1, request.generation.sampling.n), FreshIds.of(request))
