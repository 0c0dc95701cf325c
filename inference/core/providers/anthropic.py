"""The dialect of Anthropic's Messages API."""

from __future__ import annotations

from inference.core.chat_port import ChatRequest
from inference.core.providers.anthropic_request import AnthropicOptions, to_call
from inference.core.providers.anthropic_response import AnthropicReader
from inference.core.providers.dialect import HttpCall


class AnthropicDialect:
    """See inference.core.providers.dialect.Dialect."""

    def __init__(self, options: AnthropicOptions) -> None:
        self._options = options

    def call(self, request: ChatRequest) -> HttpCall:
        """See Dialect."""
        return to_call(request, self._options)

    def reader(self, request: ChatRequest) -> AnthropicReader:
        """See Dialect."""
        return AnthropicReader()
