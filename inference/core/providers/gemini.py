"""The dialect of Gemini's API."""

from __future__ import annotations

import hashlib

from inference.core.chat_port import ChatRequest
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
        # Request ids may be long and hold anything; ids of calls travel to other providers, some of which are strict.
        call_id = hashlib.sha256(request.context.request_id.encode()).hexdigest()[:16]
        return GeminiReader(max(1, request.generation.sampling.n), f"call-{call_id}")
