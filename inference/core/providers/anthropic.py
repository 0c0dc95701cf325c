"""The dialect of Anthropic's Messages API."""

from __future__ import annotations

from inference.core.chat_port import ChatRequest
from inference.core.continuing import continued_text
from inference.core.providers.anthropic_request import AnthropicOptions, to_call
from inference.core.providers.anthropic_response import AnthropicReader
from inference.core.providers.dialect import HttpCall
from inference.core.providers.prefill import without_last_space


class AnthropicDialect:
    """See inference.core.providers.dialect.Dialect."""

    def __init__(self, options: AnthropicOptions) -> None:
        self._options = options

    def call(self, request: ChatRequest) -> HttpCall:
        """See Dialect."""
        return to_call(request, self._options)

    def reader(self, request: ChatRequest) -> AnthropicReader:
        """See Dialect."""
        text = continued_text(request.generation)
        return AnthropicReader(cut=without_last_space(text)[1] if text else "")
